"""
The redirect lane and the Robyn handler give identical answers.

Two gateways on the same data: one as it ships, one without the lane. What differs between
their answers is the date, or it is a bug.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.servers.hopgate import UNLIMITED, Gateway, make_key
from tests.servers.raw_http import RawAnswer, exchange

LINKS = "/api/v1/links"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("lane")
    return {"HOPGATE_DATA_DIR": str(directory), "HOPGATE_BASE_URL": "http://hop.example", **UNLIMITED}


@pytest.fixture(scope="module")
def key(settings: dict[str, str]) -> str:
    return make_key(settings)


@pytest.fixture(scope="module")
def with_lane(settings, key, tmp_path_factory) -> Iterator[Gateway]:
    with Gateway(settings, tmp_path_factory.mktemp("logs")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def without_lane(settings, key, tmp_path_factory) -> Iterator[Gateway]:
    gateway = Gateway(settings, tmp_path_factory.mktemp("logs"))
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
    gateway._arguments = [
        *(sys.executable, "-m", "granian", *options, "--port", str(gateway.port)),
        "tests.servers.lane_off:create",
    ]
    with gateway:
        yield gateway


@pytest.fixture(scope="module")
def slugs(with_lane, key) -> dict[str, str]:
    """One link of each kind that answers differently."""
    kinds = {
        "plain": {},
        "permanent": {"redirect_code": 301},
        "temporary": {"redirect_code": 307},
        "kept": {"redirect_code": 308},
        "international": {"long_url": "https://münchen.de/ü?ü#ü"},
        "quotes": {"long_url": "https://example.com/\"<>'`{}|^"},
        "forwarding": {"long_url": "https://example.com/?a=1#f", "forward_query": True},
        "forwarding-bare": {"long_url": "https://example.com/x", "forward_query": True},
        "limited": {"max_visits": 1_000_000},
        "disabled": {"enabled": False},
        "future": {"valid_from": "2090-01-01T00:00:00Z"},
        "removed": {},
    }
    made = {}
    with httpx.Client(base_url=with_lane.url, headers={"Authorization": f"Bearer {key}"}) as api:
        for kind, fields in kinds.items():
            answer = api.post(LINKS, json={"long_url": "https://example.com/", **fields})
            assert answer.status_code == 201, answer.text
            made[kind] = answer.json()["slug"]
        assert api.delete(f"{LINKS}/{made['removed']}").status_code == 204
    return made


def same(with_lane: Gateway, without_lane: Gateway, request: bytes) -> RawAnswer | None:
    """Ask both, the lane twice (cold, then from the first cache); return the one answer."""
    answers = [exchange(gateway.port, request) for gateway in (with_lane, with_lane, without_lane)]
    comparable = [
        answer and (answer.status, sorted(pair for pair in answer.headers if pair[0] != "date"), answer.body)
        for answer in answers
    ]
    assert comparable[0] == comparable[1] == comparable[2]
    return answers[0]


KINDS = [
    *("plain", "permanent", "temporary", "kept", "international", "quotes"),
    *("forwarding", "forwarding-bare", "limited", "disabled", "future", "removed"),
]
QUERIES = ["", "?", "?b=2", "?b=2&b=3&c", "?%0d%0aX:y", "?a=%C3%BC", "?q=\"<>'`{}|\\^[]", "?" + "x" * 3000]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_link_answers_the_same(with_lane, without_lane, slugs, kind, method):
    for query in QUERIES:
        request = f"{method} /{slugs[kind]}{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = same(with_lane, without_lane, request.encode())

        if answer is not None and answer.status < 400:
            assert answer.header("location").startswith("https://")
            assert answer.header("location").isascii()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    "path",
    [
        *("/unknown-slug", "/ab", "/" + "a" * 65, "/a.b", "/%61bc"),
        *("/", "/x/y", "/healthz", "/robots.txt", "/a%00b"),
    ],
)
def test_what_is_no_link_answers_the_same(with_lane, without_lane, path, method):
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    answer = same(with_lane, without_lane, request.encode())

    assert answer is not None
    assert answer.status < 500


def test_a_percent_encoded_slug_is_the_slug(with_lane, without_lane, slugs):
    encoded = "".join(f"%{ord(character):02x}" for character in slugs["plain"])

    answer = same(
        with_lane, without_lane, f"GET /{encoded} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )

    assert answer.status in {302, 404}
