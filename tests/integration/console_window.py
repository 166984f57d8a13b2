"""The console in a browser: the window, its gateway, forms that it sends, and what runs in its pages."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integration import places
from tests.integration.console_gateway import ConsoleGateway
from tests.servers import browser
from tests.servers.browser import Browser
from tests.servers.hopgate import UNLIMITED, eventually

MARKS = [
    pytest.mark.skipif(bool(browser.missing()), reason=f"{browser.missing()} not installed"),
    pytest.mark.timeout(600),
]
SCREENS = {"phone": (360, 740), "wide": (1280, 800)}
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
_WATCH = """
window.ran = what => { window.name += ' ran:' + what; };
document.addEventListener('securitypolicyviolation', event => {
  window.name += ' refused:' + event.effectiveDirective + ':' + event.blockedURI;
});
"""
# One question for all, as there are hundreds of pages.
_RAN = """
return [
  window.name,
  performance.getEntriesByType('resource').map(one => one.name),
  document.querySelectorAll('main script, base, iframe, style').length,
];
"""


def opened() -> Iterator[Browser]:
    """Give a window."""
    with Browser() as window:
        yield window


def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleGateway]:
    """Give a gateway that knows where some addresses are."""
    directory = tmp_path_factory.mktemp("console-page")
    settings = {**UNLIMITED, "HOPGATE_DATA_DIR": str(directory / "data"), **places.settings(directory)}
    with ConsoleGateway(settings, directory) as gateway:
        yield gateway


def sign_in(window: Browser, gateway: ConsoleGateway, key: str = "") -> None:
    """Sign in as a person does, by a form that the browser sends."""
    window.open(f"{gateway.url}/console/sign-in")
    window.run(f"document.querySelector('#key').value = {json.dumps(key or gateway.key)}")
    submit(window, "form")
    eventually(lambda: path_of(window) == "/console", 10, "the overview is shown")


def submit(window: Browser, form: str) -> None:
    window.run(f"document.querySelector({json.dumps(form)}).requestSubmit()")


def path_of(window: Browser) -> str:
    """Return where the page is that is shown; nothing while it is loaded."""
    return str(window.run("return document.readyState === 'complete' ? location.pathname : ''"))


def post(
    window: Browser, gateway: ConsoleGateway, path: str, fields: dict[str, str], file: str | None = None
) -> None:
    """Send a form from the page that is shown, with the token of its session; wait for the answer."""
    window.run(f"""
        document.documentElement.dataset.old = 'old';
        const form = document.createElement('form');
        // Pages of problems have none.
        const token = document.querySelector('[name=form_token]')?.value ?? sessionStorage.token;
        sessionStorage.token = token;
        const fields = {{form_token: token, ...{json.dumps(fields)}}};
        for (const [name, value] of Object.entries(fields)) {{
          const field = document.createElement('input');
          [field.type, field.name, field.value] = ['hidden', name, value];
          form.append(field);
        }}
        const content = {json.dumps(file)};
        if (content !== null) {{
          const chosen = new DataTransfer();
          chosen.items.add(new File([content], 'links.csv'));
          const field = document.createElement('input');
          [field.type, field.name, field.files] = ['file', 'file', chosen.files];
          [form.enctype, form.hidden] = ['multipart/form-data', true];
          form.append(field);
        }}
        form.method = 'post';
        form.action = {json.dumps(gateway.url + path)};
        document.body.append(form);
        form.submit();
    """)
    ready = "return document.readyState === 'complete' && !document.documentElement.dataset.old"
    eventually(lambda: window.run(ready), 20, f"the answer of {path} is shown")


def shows(window: Browser, text: str) -> None:
    eventually(lambda: path_of(window) and text in window.text(), 20, f"the page says: {text}")


def fill(window: Browser, **values: str) -> None:
    for name, value in values.items():
        window.run(f"document.querySelector('main [name={name}]').value = {json.dumps(value)}")


def watch(window: Browser) -> None:
    """Have each page that is opened from now on write down what runs in it, for `check_nothing_ran`."""
    window.before_each_page(_WATCH)
    window.run("window.name = ''")


def check_nothing_ran(window: Browser, gateway: ConsoleGateway, what: object) -> None:
    ran, loaded, foreign = window.run(_RAN)
    assert ran == "", what
    assert [one for one in loaded if not one.startswith(f"{gateway.url}/")] == []
    assert foreign == 0
