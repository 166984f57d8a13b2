"""`/{slug}+`: the page that shows where a link leads, alone and behind the front, and in a real browser."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.api_calls import LINKS, create, fresh_slug, problem
from tests.integration.domain_gateway import BASE, PAGES, Serving, serving, slug
from tests.integration.front_gateway import ALONE, FRONT, total
from tests.servers import browser
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_store
from tests.servers.postgres import PrivatePostgres
from tests.servers.stack import stack_settings

TARGET = "https://www.example.com/a/b?c=d&e=f#g"
BOTH = pytest.mark.parametrize("front", [ALONE, FRONT], ids=["alone", "front"])
APPS = "http https mailto tel myapp"


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Serving]:
    settings = {**request.param, "HOPGATE_TARGET_SCHEMES": APPS}
    yield from serving(settings, tmp_path_factory.mktemp("preview"))


def text_of(answer: httpx.Response) -> str:
    """Return the text of a page, as far as a parser of tags alone can tell it."""
    body = answer.text[answer.text.index("<body>") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", body)).split())


def looked_at(gateway: Serving, path: str, host: str = BASE, **headers: str) -> httpx.Response:
    return gateway.api.get(path, headers={"Host": host, **headers})


def test_page_shows_the_link(gateway):
    link = gateway.link(long_url=TARGET, title="Spring & summer")

    answer = looked_at(gateway, f"/{link['slug']}+")

    assert answer.status_code == 200
    text = text_of(answer)
    for shown in (link["short_url"], TARGET, "Spring & summer", link["created_at"][:10]):
        assert shown in text
    assert "<strong>www.example.com</strong>" in answer.text
    escaped = html.escape(TARGET)
    assert f'<a href="{escaped}" rel="noreferrer nofollow noopener">Continue</a>' in answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-robots-tag"] == "noindex, nofollow"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy


@pytest.mark.parametrize("accept", ["application/json", "image/*", "text/html;q=0", ""])
def test_page_is_html_whatever_is_accepted(gateway, accept):
    name = gateway.link()["slug"]

    assert looked_at(gateway, f"/{name}+", Accept=accept).headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("end", ["+", "%2B", "%2b", "+/", "+.", "+)", "+,", "+%20", ".+", "+?a=b", "%2B?x"])
def test_plus_is_read_as_it_is_sent_and_pasted(gateway, end):
    name = gateway.link()["slug"]

    assert looked_at(gateway, f"/{name}{end}").status_code == 200


@pytest.mark.parametrize("path", ["/+", "/{}++", "/{}+x", "/+{}", "/{} +x", "/{}%252B", "/{}+/x", "/docs+"])
def test_other_paths_with_a_plus_are_not_there(gateway, path):
    name = gateway.link()["slug"]

    problem(looked_at(gateway, path.format(name)), 404, "not_found")


def test_method_that_no_link_has(gateway):
    answer = gateway.api.post(f"/{gateway.link()['slug']}+", headers={"Host": BASE})

    problem(answer, 405, "method_not_allowed")


def test_head_has_the_headers_alone(gateway):
    name = gateway.link()["slug"]

    answer = gateway.api.head(f"/{name}+", headers={"Host": BASE})

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/html")


def test_page_of_another_domain_is_found_by_its_host(gateway):
    host, name = gateway.domain(case_sensitive=False), slug()
    gateway.link(long_url="https://example.com/default", slug=name)
    gateway.link(host, long_url="https://example.com/other", slug=name)
    gateway.becomes(host, f"/{name}", (302, "https://example.com/other"))

    for path in (f"/{name}+", f"/{name.upper()}+"):
        text = text_of(looked_at(gateway, path, host))
        assert f"https://{host}/{name} leads to https://example.com/other" in text
    assert "https://example.com/default" in text_of(looked_at(gateway, f"/{name}+"))


GONE = [
    {"enabled": False},
    {"expires_in": "1s"},
    {"valid_from": "2999-01-01T00:00:00Z"},
]


@pytest.mark.parametrize("fields", GONE)
def test_link_that_does_not_redirect_has_no_page(gateway, fields):
    name = gateway.link(**fields)["slug"]

    eventually(lambda: looked_at(gateway, f"/{name}").status_code in {404, 410}, 30, "it is refused")
    visit, look = looked_at(gateway, f"/{name}"), looked_at(gateway, f"/{name}+")

    assert (look.status_code, look.content) == (visit.status_code, visit.content)
    assert look.headers["content-type"] == "application/problem+json"


def test_absent_removed_and_blocked_links_answer_as_a_visit_does(gateway):
    removed = gateway.link()["slug"]
    assert gateway.api.delete(f"{LINKS}/{removed}").status_code == 204
    blocked = gateway.link(long_url="https://bad.example/")["slug"]
    assert gateway.api.post("/api/v1/blocks", json={"hosts": ["bad.example"]}).status_code == 200
    statuses = []
    for name in (slug(), removed, blocked):
        eventually(lambda name=name: looked_at(gateway, f"/{name}").status_code != 302, 30, "it is refused")
        visit, look = looked_at(gateway, f"/{name}"), looked_at(gateway, f"/{name}+")
        assert (look.status_code, look.content) == (visit.status_code, visit.content)
        statuses.append(look.status_code)

    assert statuses == [404, 410, 451]


def test_pages_of_a_domain_stand_in_for_refusals(gateway):
    host = gateway.domain(**PAGES)
    gone = gateway.link(host, enabled=False)["slug"]

    gateway.becomes(host, f"/{slug()}+", (302, PAGES["not_found_url"]))
    gateway.becomes(host, f"/{gone}+", (302, PAGES["expired_url"]))
    gateway.becomes(host, "/++", (302, PAGES["not_found_url"]))


@pytest.mark.parametrize("agent", ["Slackbot-LinkExpanding 1.0", "Mozilla/5.0"])
def test_page_is_no_visit(gateway, agent):
    link = gateway.link(max_visits=2)
    name = link["slug"]

    for _ in range(5):
        assert looked_at(gateway, f"/{name}+", **{"User-Agent": agent}).status_code == 200

    assert gateway.visit(BASE, f"/{name}") == (302, link["long_url"])
    assert looked_at(gateway, f"/{name}+").status_code == 200
    assert gateway.visit(BASE, f"/{name}")[0] == 302
    assert gateway.visit(BASE, f"/{name}")[0] == 410
    problem(looked_at(gateway, f"/{name}+"), 410, "gone")

    def visits() -> int:
        return gateway.api.get(f"{LINKS}/{name}").json()["visits"]

    eventually(lambda: visits() == 2, 15, "both visits are counted")


def test_page_is_a_route_of_its_own(gateway):
    name = gateway.link()["slug"]
    before = total(gateway, "http_server_requests_total", route="/{slug}+", status="200")

    looked_at(gateway, f"/{name}+")

    assert total(gateway, "http_server_requests_total", route="/{slug}+", status="200") == before + 1


@BOTH
def test_guess_costs_what_the_guess_of_a_slug_costs(front, tmp_path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), **UNLIMITED, **front}
    make_store(settings)
    assert hopgate(settings, "links", "create", TARGET, "--slug", "known").returncode == 0
    settings["HOPGATE_LIMIT_NOT_FOUND"] = "4/day burst 4"
    with Gateway(settings, tmp_path) as gateway, httpx.Client(base_url=gateway.url) as client:
        assert client.get("/known+").status_code == 200
        guesses = [client.get(f"/guess-{number}{'+' * (number % 2)}").status_code for number in range(6)]

        assert guesses == [404, 404, 404, 404, 429, 429]
        assert client.get("/also+").status_code == 429
    settings |= {"HOPGATE_LIMIT_NOT_FOUND": UNLIMITED["HOPGATE_LIMIT_NOT_FOUND"]}
    settings |= {"HOPGATE_LIMIT_REDIRECT": "4/day burst 4"}
    with Gateway(settings, tmp_path) as gateway, httpx.Client(base_url=gateway.url) as client:
        statuses = [client.get(path).status_code for path in ("/known+", "/known") * 3]

    assert statuses == [200, 302, 200, 302, 429, 429]


@BOTH
def test_page_can_be_turned_off(front, tmp_path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), **UNLIMITED, **front, "HOPGATE_PREVIEW": "off"}
    make_store(settings)
    assert hopgate(settings, "links", "create", TARGET, "--slug", "known").returncode == 0
    with Gateway(settings, tmp_path) as gateway:
        problem(httpx.get(f"{gateway.url}/known+"), 404, "not_found")
        assert httpx.get(f"{gateway.url}/known").status_code == 302


@pytest.mark.services
@pytest.mark.parametrize("front", ["on", "off"])
def test_page_shows_the_target_while_the_store_is_away(front, redis_server, rabbitmq, tmp_path):
    with PrivatePostgres() as postgres:
        settings = {**stack_settings(postgres, redis_server, rabbitmq), "HOPGATE_FRONT": front}
        made = hopgate(settings, "links", "create", TARGET, "--title", "A title")
        assert made.returncode == 0, made.stderr
        name = made.stdout.strip().rpartition("/")[2]
        with Gateway(settings, tmp_path) as gateway, httpx.Client(base_url=gateway.url) as client:
            assert "A title" in client.get(f"/{name}+").text
            # It is in the shared cache from then on.
            assert client.get(f"/{name}").status_code == 302
            postgres.kill()

            def shown() -> bool:
                answer = client.get(f"/{name}+")
                return answer.status_code == 200 and "cannot be read at the moment" in answer.text

            eventually(shown, 20, "the page is shown without its title")
            answer = client.get(f"/{name}+")
            assert TARGET in text_of(answer)
            assert client.get(f"/{fresh_slug()}+").status_code == 503


# Each would run, load or send something if it became markup.
HOSTILE_TITLES = [
    "<script>window.ran = 1</script>",
    "</bdi></dd><img src=x onerror='window.ran = 1'>",
    "</style><style>body { display: none }</style>",
    "</title><svg onload=window.ran=1>",
    '" autofocus onfocus="window.ran = 1',
    "$href ${target} $$ %s {0} {{7*7}}",
    "&lt;script&gt;window.ran = 1&lt;/script&gt;",
    "\u202egnp.exe \u2066mirrored\u2069",
    "<base href=https://bad.example/><meta http-equiv=refresh content='0;url=https://bad.example/'>",
    "<!-- --><!--",
]
HOSTILE_TARGETS = [
    "https://example.com/<script>window.ran=1</script>",
    'https://example.com/"><img/src=x/onerror=window.ran=1>',
    "https://example.com/'onmouseover='window.ran=1",
    "https://example.com/?q=</strong></p><script>window.ran=1</script>",
    "https://example.com/#<svg/onload=window.ran=1>",
    "https://example.com/&quot;&gt;&lt;script&gt;window.ran=1&lt;/script&gt;",
    "https://example.com/$href${target}",
    "mailto:a@example.com?subject=%3Cscript%3E&body='\"",
    "tel:+15551234",
    "myapp://open/'><script>window.ran=1</script>",
    "https://аррӏе.com/",
    f"https://example.com/{'x' * 8000}",
]


@pytest.mark.parametrize("title", HOSTILE_TITLES)
def test_hostile_title_is_text(gateway, title):
    name = gateway.link(title=title)["slug"]

    answer = looked_at(gateway, f"/{name}+")

    assert f"<dd><bdi>{html.escape(title)}</bdi></dd>" in answer.text


def test_target_of_any_allowed_scheme_can_be_followed(gateway):
    for target in ("mailto:a@example.com", "tel:+15551234", "myapp://open/this"):
        name = gateway.link(long_url=target)["slug"]

        answer = looked_at(gateway, f"/{name}+")

        scheme = target.partition(":")[0]
        assert f'<a href="{target}" ' in answer.text
        assert f"<strong>{scheme}</strong>:" in answer.text


def test_name_in_other_letters_is_shown_both_ways(gateway):
    name = gateway.link(long_url="https://аррӏе.com/")["slug"]

    text = text_of(looked_at(gateway, f"/{name}+"))

    assert "https://xn--80ak6aa92e.com/" in text
    assert "in its own letters: аррӏе.com." in text


# Names of the images in docs/images, sizes in CSS pixels, and whether the user prefers a dark page.
SCREENS = (("light", 760, 520, False), ("dark", 760, 520, True), ("phone", 390, 620, True))
WATCH = """
window.ran = 0; window.reports = [];
document.addEventListener("securitypolicyviolation", one => window.reports.push(one.violatedDirective));
"""


@pytest.mark.skipif(bool(browser.missing()), reason=f"{browser.missing()}: not installed")
def test_nothing_runs_in_a_browser(tmp_path):
    """Its screenshots, in both colour schemes and on a phone, are in docs/images."""
    for gateway in serving({"HOPGATE_TARGET_SCHEMES": APPS}, tmp_path):
        links = [{"title": one} for one in HOSTILE_TITLES] + [{"long_url": one} for one in HOSTILE_TARGETS]
        names = [gateway.link(**fields)["slug"] for fields in links]
        good = create(
            gateway.api, long_url="https://xn--e1afmkfd.example/2026/spring?from=poster", title="Spring sale"
        )["slug"]
        with browser.Browser() as window:
            window.before_each_page(WATCH)
            for name in names:
                window.open(f"{gateway.url}/{name}+")
                found = window.run(
                    "return [window.ran, window.reports, document.scripts.length, location.pathname,"
                    " performance.getEntriesByType('resource').map(one => one.name),"
                    " document.querySelectorAll('body *').length, document.links.length]"
                )
                assert found[:5] == [0, [], 0, f"/{name}+", []], (name, found)
                assert 8 <= found[5] <= 16, found
                assert found[6] == 1
                assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
            window.open(f"{gateway.url}/{good}+")
            colours = set()
            for screen, width, height, dark in SCREENS:
                window.look(width=width, height=height, dark=dark)
                (tmp_path / f"preview-{screen}.png").write_bytes(window.screenshot())
                assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
                colours.add(window.run("return getComputedStyle(document.body).backgroundColor"))
            assert len(colours) == 2
            # What the page may not load would have been reported.
            window.run("document.body.append(Object.assign(new Image(), {src: 'https://bad.example/'}))")
            eventually(lambda: window.run("return window.reports") == ["img-src"], 10, "it is reported")
