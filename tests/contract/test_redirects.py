"""
The redirect fast path, the redirect route and Robyn's own server give identical responses.

Three servers on the same data: the gateway as it ships, alone or behind its front, one without its
fast path, and the same application on Robyn's own server. Any difference but the date, and the name of
the server behind a front, is a bug.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.servers.hopgate import UNLIMITED, Gateway, eventually, make_key
from tests.servers.raw_http import RawAnswer, answered, exchange

LINKS = "/api/v1/links"
# What may differ from one answer to the next.
OWN = frozenset({"date", "server"})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("redirects")
    return {"HOPGATE_DATA_DIR": str(directory), "HOPGATE_BASE_URL": "http://hop.example", **UNLIMITED}


@pytest.fixture(scope="module")
def key(settings: dict[str, str]) -> str:
    return make_key(settings)


@pytest.fixture(scope="module", params=["off", "on"], ids=["alone", "front"])
def gateway(request, settings, key, tmp_path_factory) -> Iterator[Gateway]:
    with Gateway({**settings, "HOPGATE_FRONT": request.param}, tmp_path_factory.mktemp("logs")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def without_fast_path(settings, key, tmp_path_factory) -> Iterator[Gateway]:
    without = Gateway(settings, tmp_path_factory.mktemp("logs"))
    options = [
        "--interface",
        "rsgi",
        "--loop",
        "uvloop",
        "--factory",
        "--no-ws",
        "--http1-buffer-size",
        "32768",
    ]
    without._arguments = [
        *(sys.executable, "-m", "granian", *options, "--port", str(without.port)),
        "tests.servers.fast_path_off:create",
    ]
    with without:
        yield without


@pytest.fixture(scope="module")
def robyn_server(settings, key, tmp_path_factory) -> Iterator[Gateway]:
    server = Gateway(settings, tmp_path_factory.mktemp("logs"))
    server._arguments = [sys.executable, "-m", "bench.servers.robyn_own", str(server.port)]
    server.start()
    yield server
    server.kill()  # it ignores SIGTERM


@pytest.fixture(scope="module")
def slugs(gateway, key) -> dict[str, str]:
    """One link of each kind that answers differently."""
    kinds: dict[str, dict[str, object]] = {
        "plain": {},
        "permanent": {"redirect_code": 301},
        "temporary": {"redirect_code": 307},
        "kept": {"redirect_code": 308},
        "international": {"long_url": "https://münchen.de/ü?ü#ü"},
        "quotes": {"long_url": "https://example.com/\"<>'`{}|^"},
        "forwarding": {"long_url": "https://example.com/?a=1#f", "forward_query": True},
        "forwarding-bare": {"long_url": "https://example.com/x", "forward_query": True},
        "overriding": {
            "long_url": "https://example.com/?a=1&b=1&x=%C3%BC#f",
            "forward_query": True,
            "override_query": True,
        },
        "limited": {"max_visits": 1_000_000},
        "disabled": {"enabled": False},
        "over": {"enabled": False, "expired_url": "https://example.org/over", "robots": "noindex"},
        "removed-over": {"expired_url": "https://example.org/over"},
        "hidden": {"robots": "noindex, nofollow", "forward_query": True},
        "future": {"valid_from": "2090-01-01T00:00:00Z"},
        "removed": {},
    }
    made = {}
    with httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}) as api:
        for kind, fields in kinds.items():
            answer = api.post(LINKS, json={"long_url": "https://example.com/", **fields})
            assert answer.status_code == 201, answer.text
            made[kind] = answer.json()["slug"]
        for kind in ("removed", "removed-over"):
            assert api.delete(f"{LINKS}/{made[kind]}").status_code == 204
    return made


def same(gateway: Gateway, without_fast_path: Gateway, request: bytes) -> RawAnswer | None:
    """Ask both, the fast path twice (a miss, then a hit of the L1 cache); return the one response."""
    answers = [exchange(one.port, request) for one in (gateway, gateway, without_fast_path)]
    comparable = [
        answer and (answer.status, sorted(pair for pair in answer.headers if pair[0] not in OWN), answer.body)
        for answer in answers
    ]
    assert comparable[0] == comparable[1] == comparable[2]
    return answers[0]


KINDS = [
    *("plain", "permanent", "temporary", "kept", "international", "quotes"),
    *("forwarding", "forwarding-bare", "overriding", "limited", "disabled", "future", "removed"),
    *("over", "removed-over", "hidden"),
]
ACCEPTS = [
    "*/*",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "text/html;q=x",
    "text/*;q=.1",
]
BROWSER = ACCEPTS[1]
QUERIES = ["", "?", "?b=2", "?b=2&b=3&c", "?%0d%0aX:y", "?a=%C3%BC", "?q=\"<>'`{}|\\^[]", "?" + "x" * 3000]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "end", ["+", "%2B", "+/", "+?a=b", "++", ".qr", ".qr.png", ".qr.", ".qr.gif", "%2b.qr"]
)
def test_what_follows_a_slug_is_the_same(gateway, without_fast_path, slugs, end, method):
    for name in (slugs["plain"], slugs["limited"], slugs["disabled"], slugs["future"], "absent"):
        request = f"{method} /{name}{end} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = same(gateway, without_fast_path, request.encode())

        assert answer is not None
        assert answer.status in {200, 404, 410}


@pytest.mark.parametrize("end", ["+", "%2B", ".qr", ".qr.png", "+."])
@pytest.mark.parametrize("path", ["/healthz", "/docs", "/api"])
def test_page_stays_after_it_is_asked_for_as_a_link(gateway, without_fast_path, path, end):
    """An answer that is kept for its slug would take the place of the page."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    before = same(gateway, without_fast_path, request)

    answer = same(gateway, without_fast_path, request.replace(path.encode(), (path + end).encode()))

    assert answer is not None
    assert answer.status == 404
    after = same(gateway, without_fast_path, request)
    assert (before and before.status) == (after and after.status) == (404 if path == "/api" else 200)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", KINDS)
def test_link_response_is_the_same(gateway, without_fast_path, slugs, kind, method):
    for query in QUERIES:
        request = f"{method} /{slugs[kind]}{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = same(gateway, without_fast_path, request.encode())

        if answer is not None and answer.status < 400:
            location = answer.header("location")
            assert location is not None
            assert location.startswith("https://")
            assert location.isascii()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    "path",
    [
        *("/unknown-slug", "/ab", "/" + "a" * 128, "/" + "a" * 129, "/a.b", "/%61bc"),
        *("/", "/x/y", "/healthz", "/robots.txt", "/a%00b", "/%ff", "/%C3%BC", "/x%2Fy"),
        *(f"/{part * 3000}{end}" for part in ("a", "a/", "%CC%81") for end in ("", "+")),
    ],
)
def test_error_response_is_the_same(gateway, without_fast_path, path, method):
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    answer = same(gateway, without_fast_path, request.encode())

    assert answer is not None
    assert answer.status < 500


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("accept", ACCEPTS)
def test_page_is_the_same(gateway, without_fast_path, slugs, accept, method):
    paths = ["/", "/unknown-slug", "/x/y", "/a%00b", "/api", "/api/v1/nothing", "/healthz", "/favicon.ico"]
    paths += [f"/{slugs[kind]}" for kind in KINDS]
    for path in paths:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Accept: {accept}", "X-Request-ID: r1"]
        request = "\r\n".join([*lines, "Connection: close", "", ""])
        answer = same(gateway, without_fast_path, request.encode())

        assert answer is not None
        if path.startswith("/api/") or method == "POST":
            assert answer.header("vary") is None
        elif answer.status >= 400:
            kind = "text/html; charset=utf-8" if accept == BROWSER else "application/problem+json"
            assert (answer.header("content-type"), answer.header("vary")) == (kind, "accept"), path


def test_bad_host_gets_a_page(gateway, without_fast_path):
    for path in ("/", "/asked-for-here-alone", "/healthz"):
        request = f"GET {path} HTTP/1.1\r\nHost: a b\r\nAccept: {BROWSER}\r\nConnection: close\r\n\r\n"
        answer = same(gateway, without_fast_path, request.encode())

        assert answer is not None
        assert answer.status == 400
        assert answer.body.startswith(b"<!doctype html>")


def test_percent_encoded_slug_is_the_slug(gateway, without_fast_path, slugs):
    encoded = "".join(f"%{ord(character):02x}" for character in slugs["plain"])

    answer = same(
        gateway,
        without_fast_path,
        f"GET /{encoded} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(),
    )

    assert answer is not None
    assert answer.status in {302, 404}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        *(
            "/a/{}",
            "/a%2F{}",
            "/a/{}/",
            "/a/{}/)",
            "/a%2f{}%20",
            "/%61/{}",
            "/a/./{}",
            "/x/../a/{}",
            "/a//{}",
        ),
        *("//a/{}", "/a/{}/x", "/A/{}", "/docs/{}", "/a/{}?x=1", "/a/{}#x", "/a%5C{}"),
    ],
)
def test_slug_of_several_segments_is_visited_the_same(gateway, without_fast_path, segments, path, method):
    request = f"{method} {path.format(segments)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    answer = same(gateway, without_fast_path, request.encode())

    assert answer is not None
    found = path in {"/a/{}", "/a%2F{}", "/a/{}/", "/a/{}/)", "/a%2f{}%20", "/%61/{}", "/a/{}?x=1"}
    if "#" not in path and method != "POST":
        assert answer.status == (302 if found else 404)


@pytest.fixture(scope="module")
def segments(gateway, without_fast_path, key) -> str:
    """The last segment of a link below `a`, whose slugs may have several."""
    name = f"s{secrets.token_hex(6)}"
    with httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}) as api:
        changed = api.patch("/api/v1/domains/hop.example", json={"multi_segment": True})
        assert changed.status_code == 200, changed.text
        made = api.post(LINKS, json={"long_url": "https://example.com/", "slug": f"a/{name}"})
        assert made.status_code == 201, made.text
    request = f"GET /a/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    eventually(lambda: answered(without_fast_path.port, request).status == 302, 30, "both know the setting")
    return name


@pytest.mark.parametrize("kind", KINDS)
def test_robyn_server_redirects_the_same(gateway, robyn_server, slugs, kind):
    request = f"GET /{slugs[kind]} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()

    ours, theirs = (answered(one.port, request) for one in (gateway, robyn_server))

    assert (theirs.status, theirs.body) == (ours.status, ours.body)
    for name in ("location", "cache-control", "content-type"):
        assert theirs.header(name) == ours.header(name)


def test_robyn_server_serves_the_api(robyn_server, key):
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=robyn_server.url, headers=headers) as api:
        made = api.post(LINKS, json={"long_url": "https://example.com/"})
        assert made.status_code == 201, made.text
        path = f"{LINKS}/{made.json()['slug']}"
        assert api.patch(path, json={"title": "x"}, headers={"If-Match": '"7"'}).status_code == 412
        assert api.patch(path, json={"title": "x"}, headers={"If-Match": '"1"'}).json()["title"] == "x"
        assert api.get(LINKS, params={"limit": 1}).json()["links"][0]["title"] == "x"
        assert api.get(LINKS, headers={"Authorization": ""}).status_code == 401
        assert api.get(LINKS.removesuffix("links") + "openapi.json").json()["openapi"] == "3.1.0"
