"""The pages for people, as a browser shows them, and what a hostile request finds on them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.servers import browser
from tests.servers.hopgate import UNLIMITED, Gateway, hopgate, make_key
from tests.servers.raw_http import exchange

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
PAGES = ("root", "404", "410", "451")
WIDTHS = (360, 1280)
MARK = "hg7mark"
# What a page would run or show if it repeated what it was sent.
HOSTILE = (
    f"<script>{MARK}</script>",
    f'"><img/src=x/onerror={MARK}>',
    f"{MARK}",
    f"%3Cscript%3E{MARK}%3C/script%3E",
    f"javascript:{MARK}",
    f"$title${{text}}{MARK}",
    f"{{{{{MARK}}}}}",
    f"../{MARK}/..%2f",
    f"%00{MARK}%0d%0aX-Bad:%20{MARK}",
    f"é{MARK}\u202e",
)


@pytest.fixture(scope="module", params=["off", "on"], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Gateway]:
    settings = {
        **UNLIMITED,
        "HOPGATE_DATA_DIR": str(tmp_path_factory.mktemp("pages")),
        "HOPGATE_FRONT": request.param,
    }
    key = make_key(settings)
    with Gateway(settings, tmp_path_factory.mktemp("logs")) as gateway:
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=gateway.url, headers=headers) as api:
            links: dict[str, dict[str, object]] = {
                "blocked-one": {"long_url": "https://blocked.example/"},
                "gone-one": {"enabled": False},
                "removed-one": {},
                "over-one": {"enabled": False, "expired_url": "https://example.org/over"},
                "over-blocked": {"enabled": False, "expired_url": "https://blocked.example/over"},
                "counted": {"max_visits": 1, "expired_url": "https://example.org/over", "robots": "noindex"},
            }
            for slug, fields in links.items():
                body = {"long_url": "https://example.com/", "slug": slug, **fields}
                assert api.post("/api/v1/links", json=body).status_code == 201
            assert api.delete("/api/v1/links/removed-one").status_code == 204
            assert api.post("/api/v1/blocks", json={"hosts": ["blocked.example"]}).status_code == 200
        yield gateway


def page(gateway: Gateway, path: str) -> httpx.Response:
    return httpx.get(f"{gateway.url}{path}", headers={"Accept": BROWSER})


@pytest.mark.parametrize(
    ("path", "status", "title"),
    [
        ("/", 200, "Short links"),
        *(
            (f"/{slug}{end}", status, title)
            for slug, status, title in (
                ("no-such-link", 404, "No such link"),
                ("gone-one", 410, "This link has ended"),
                ("removed-one", 410, "This link has ended"),
                ("blocked-one", 451, "This link is blocked"),
                ("over-blocked", 410, "This link has ended"),
            )
            for end in ("", "+", ".qr", ".qr.png")
        ),
    ],
)
def test_people_get_a_page(gateway, path, status, title):
    answer = page(gateway, path)

    assert answer.status_code == status
    assert f"<h1>{title}</h1>" in answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-robots-tag"] == "noindex"
    head = httpx.head(f"{gateway.url}{path}", headers={"Accept": BROWSER})
    own = {"date", "content-length"}
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in answer.headers.items() if k not in own
    }


def test_programs_get_what_they_always_got(gateway):
    for path, status in (("/", 404), ("/no-such-link", 404), ("/gone-one", 410), ("/blocked-one", 451)):
        for end in ("", "+", ".qr") if path != "/" else ("",):
            answer = httpx.get(f"{gateway.url}{path}{end}")
            assert (answer.status_code, answer.headers["content-type"]) == (
                status,
                "application/problem+json",
            )
            assert answer.headers["vary"] == "accept" or path == "/"
    missing = httpx.get(f"{gateway.url}/api/v1/nothing", headers={"Accept": BROWSER})
    assert missing.headers["content-type"] == "application/problem+json"
    assert "vary" not in missing.headers


def test_link_that_is_over_leads_to_its_own_page(gateway):
    assert page(gateway, "/over-one").headers["location"] == "https://example.org/over"
    for end in ("+", ".qr"):  # spends no visit
        assert page(gateway, f"/counted{end}").status_code == 200
    answers = [httpx.get(f"{gateway.url}/counted") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [302, 302, 302]
    assert [answer.headers["location"] for answer in answers] == [
        "https://example.com/",
        "https://example.org/over",
        "https://example.org/over",
    ]
    assert {answer.headers["x-robots-tag"] for answer in answers} == {"noindex"}


def test_icon_is_kept(gateway):
    answer = httpx.get(f"{gateway.url}/favicon.ico")

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=604800"
    assert answer.content.startswith(b"\x00\x00\x01\x00")


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_the_request_is_on_a_page(gateway, text):
    raw = text.encode()
    for target, host, accept in (
        (b"/" + raw, b"hop.example", BROWSER.encode()),
        (b"/x/" + raw + b"?q=" + raw, b"hop.example", BROWSER.encode()),
        (b"/no-such-link?" + raw, raw, BROWSER.encode()),
        (b"/", raw, BROWSER.encode()),
        (b"/no-such-link", b"hop.example", b"text/html," + raw),
        (b"/no-such-link", b"hop.example", b'text/html;x="' + raw + b'"'),
    ):
        lines = [b"GET " + target + b" HTTP/1.1", b"Host: " + host, b"Accept: " + accept]
        request = b"\r\n".join([*lines, b"Referer: " + raw, b"Connection: close", b"", b""])
        answer = exchange(gateway.port, request)

        if answer is None or not answer.body:
            continue  # no server reads it
        assert answer.status < 500
        assert MARK.encode() not in answer.body
        assert not any(MARK in value for _, value in answer.headers)


@pytest.mark.parametrize("front", ["off", "on"])
def test_page_of_a_limit_names_when_to_try_again(front, tmp_path):
    limit = {"HOPGATE_LIMIT_REDIRECT": "1/min burst 1", "HOPGATE_LANGUAGE": "de", "HOPGATE_FRONT": front}
    with Gateway({"HOPGATE_DATA_DIR": str(tmp_path / "data"), **limit}, tmp_path) as gateway:
        page(gateway, "/aaa")
        refused = page(gateway, "/aaa")

        assert (refused.status_code, refused.headers["content-language"]) == (429, "de")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "<h1>Zu viele Anfragen</h1>" in refused.text
        problem = httpx.get(f"{gateway.url}/aaa")
        assert problem.headers["content-type"] == "application/problem+json"
        assert problem.headers.keys() - {"content-length"} <= refused.headers.keys()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("HOPGATE_LANGUAGE", "xx", "HOPGATE_LANGUAGE: 'xx' is none of de, en"),
        ("HOPGATE_PAGES", "{folder}/missing", "HOPGATE_PAGES: {folder}/missing: No such file or directory"),
        ("HOPGATE_PAGES", "{folder}", "HOPGATE_PAGES: {folder}/index.html: the names of templates are"),
    ],
)
def test_unusable_pages_stop_the_start(tmp_path, name, value, says):
    (tmp_path / "index.html").write_text("x")
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), name: value.format(folder=tmp_path)}

    for command in ("serve", "doctor"):
        done = hopgate(settings, command)
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.startswith(f"hopgate: {says.format(folder=tmp_path)}")


def test_templates_are_served(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "404.html").write_text("<!doctype html><style>p{color:red}</style><p>Ours: $title")
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_PAGES": str(folder)}
    with Gateway(settings, tmp_path) as gateway:
        assert "Ours: No such link" in page(gateway, "/no-such-link").text
        assert "This site forwards short links" in page(gateway, "/").text


def test_command_line_sets_where_a_link_leads(tmp_path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path)}
    options = ("--max-visits", "1", "--expired-url", "https://example.org/over", "--robots", "NOINDEX")
    hopgate(settings, "migrate")
    hopgate(settings, "links", "create", "https://example.com/", "--slug", "sale", *options)
    made = json.loads(hopgate(settings, "links", "get", "sale").stdout)
    assert (made["expired_url"], made["robots"]) == ("https://example.org/over", "noindex")

    hopgate(settings, "links", "edit", "sale", "--expired-url", "none", "--robots", "none")
    made = json.loads(hopgate(settings, "links", "get", "sale").stdout)
    assert (made["expired_url"], made["robots"]) == (None, None)


@pytest.mark.skipif(bool(browser.missing()), reason=f"needs {browser.missing()}")
@pytest.mark.timeout(240)
def test_browser_shows_the_pages(gateway, tmp_path):
    """In light and dark, from phones to wide screens; nothing is fetched, and nothing breaks the policy."""
    paths = dict(zip(PAGES, ("/", "/no-such-link", "/gone-one", "/blocked-one"), strict=True))
    with browser.Browser() as window:
        for name, path in paths.items():
            colours = set()
            for width in WIDTHS:
                for dark in (False, True):
                    window.look(width=width, height=800, dark=dark)
                    window.open(f"{gateway.url}{path}", Accept=BROWSER)
                    assert window.run("return document.documentElement.scrollWidth") <= width
                    assert window.run("return performance.getEntriesByType('resource').length") == 0
                    colours.add(window.run("return getComputedStyle(document.body).backgroundColor"))
                    (tmp_path / f"{name}-{width}-{'dark' if dark else 'light'}.png").write_bytes(
                        window.screenshot()
                    )
            # The style applies, so the policy names its digest; and it knows both colour schemes.
            assert len(colours) == 2, name
            assert window.run(_FINDINGS) == [], name


@pytest.mark.skipif(bool(browser.missing()), reason=f"needs {browser.missing()}")
@pytest.mark.timeout(240)
def test_browser_blocks_what_a_template_must_not_do(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "404.html").write_text(
        '<!doctype html><html lang="$lang"><title>before</title><style>p{color:rgb(1, 2, 3)}</style>'
        '<main><h1>$title</h1><p>$text</p><p style="color:red">x</p></main>'
        '<script>document.title = "run"</script><link rel="stylesheet" href="/healthz">'
    )
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_PAGES": str(folder)}
    with Gateway(settings, tmp_path) as gateway, browser.Browser() as window:
        window.open(f"{gateway.url}/no-such-link", Accept=BROWSER)
        found = window.run(_FINDINGS)

        assert {"style-src-attr", "script-src-elem", "style-src-elem"} <= set(found)
        assert window.run("return document.title") == "before"
        script = "return [...document.querySelectorAll('p')].map(one => getComputedStyle(one).color)"
        assert window.run(script) == ["rgb(1, 2, 3)"] * 2


# What a reader that cannot see the page, or sees it badly, would miss.
_FINDINGS = """
const observer = new ReportingObserver(() => {}, {types: ['csp-violation'], buffered: true});
observer.observe();
const found = observer.takeRecords().map(one => one.body.effectiveDirective);
if (!document.documentElement.lang) found.push('no language');
if (!document.title) found.push('no title');
if (document.querySelectorAll('h1').length !== 1) found.push('not one heading');
if (document.querySelectorAll('main').length !== 1) found.push('no main part');
if (document.querySelector('script, img, a:not([href])')) found.push('something else');
const channel = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
const light = text => {
  const [r, g, b] = text.match(/[0-9.]+/g).map(Number).map(channel);
  return .2126 * r + .7152 * g + .0722 * b;
};
const back = light(getComputedStyle(document.body).backgroundColor);
for (const one of document.querySelectorAll('h1, p')) {
  const front = light(getComputedStyle(one).color);
  const ratio = (Math.max(front, back) + .05) / (Math.min(front, back) + .05);
  if (ratio < 7) found.push(`contrast ${ratio} of ${one.tagName}`);
}
return found;
"""
