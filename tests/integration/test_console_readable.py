"""The console and the pages for people in a browser: what can be read, and how it looks."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest

from app.ports import Refusal
from app.web import errors
from app.web.pages import load
from tests.integration import accessibility, places
from tests.integration.console_gateway import ConsoleGateway
from tests.integration.console_session import ConsoleSession
from tests.integration.console_window import FIREFOX, MARKS, SCREENS, opened, post, serving, sign_in
from tests.servers.browser import Browser
from tests.servers.hopgate import eventually

pytestmark = MARKS
window = pytest.fixture(opened, scope="module")
gateway = pytest.fixture(serving, scope="module")
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
        "health": "/console/health",
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


def furnish(gateway: ConsoleGateway, console: ConsoleSession) -> None:
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
        FIREFOX,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605 Version/18.5 Safari/604.1",
        "Googlebot/2.1 (+http://www.google.com/bot.html)",
    )
    for number in range(24):
        headers = {
            "User-Agent": agents[number % 7 % 3],
            "Accept-Language": "de" if number % 3 else "en",
            "X-Forwarded-For": list(places.ADDRESSES.values())[number % 5 % 3],
            **({"Referer": "https://news.example/today"} if number % 2 else {}),
        }
        assert httpx.get(f"{gateway.url}/spring-sale", headers=headers).status_code == 302
    for slug in ("sprnig-sale", "sprnig-sale", "summer-sale", "sale.html"):
        assert httpx.get(f"{gateway.url}/{slug}", headers={"User-Agent": FIREFOX}).status_code == 404
    eventually(lambda: "sprnig-sale" in console.get("/console").text, 20, "missing slugs are named")
    eventually(lambda: "Firefox" in console.page("spring-sale").text, 20, "the visits are described")
