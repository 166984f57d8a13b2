"""Whatever a client sends to a dialect, the answer is the dialect's own, and no failure of the service."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.integration.dialect_gateway import speaking
from tests.servers.raw_http import exchange

TEXTS = (
    *(
        "",
        " ",
        "\x00",
        "\u2028",
        "\uffff",
        "%",
        "%00",
        "../..",
        "a" * 5000,
        "\u202e",
        "💥" * 300,
        "null",
        "[]",
    ),
    *(
        "-1",
        "1e9",
        "9" * 30,
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31",
        "true",
    ),
    *("http://", "http://[::1", "http://hop.example/", "http://hop.example/%2e%2e/a", "//hop.example/a"),
    *("hop.example/", "hop.example/~1~abc", "~1~abc", "xn--a", "a.b:c/d"),
)
YOURLS = ("url", "keyword", "title", "shorturl", "filter", "limit", "start", "format", "callback", "db")
ACTIONS = ("shorturl", "expand", "url-stats", "stats", "version")
LISTED = ("page", "itemsPerPage", "searchTerm", "tags[]", "excludeTags[]", "orderBy", "startDate", "endDate")
CREATED = (
    "longUrl",
    "customSlug",
    "shortCodeLength",
    "domain",
    "validSince",
    "validUntil",
    "maxVisits",
    "tags",
)
VALUES: tuple[object, ...] = (None, [], {}, [[]], 0, -1, 2**70, 0.5, True, "\ud800", *TEXTS)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    yield from speaking(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def client(gateway):
    headers = {"X-Api-Key": gateway.key, "Authorization": f"Bearer {gateway.key}"}
    with httpx.Client(base_url=gateway.url, headers=headers) as client:
        yield client


def checked(answer: httpx.Response, *what: object) -> None:
    assert answer.status_code < 500, (what, answer.text)
    assert "urn:hopgate" not in answer.text or answer.status_code in {411, 413, 415, 429}, (what, answer.text)


@pytest.mark.parametrize("name", YOURLS)
def test_yourls(client, gateway, name):
    for action in ACTIONS:
        for text in TEXTS:
            form = {
                "signature": gateway.key,
                "action": action,
                "url": "https://a.example/",
                "format": "json",
                name: text,
            }
            checked(client.post("/yourls-api.php", data=form), action, text)


@pytest.mark.parametrize("name", LISTED)
def test_shlink_lists(client, name):
    for text in TEXTS:
        checked(client.get("/rest/v3/short-urls", params={name: text}), name, text)
        checked(client.get("/rest/v3/tags", params={name: text}), name, text)


def sent(client, method: str, path: str, body: object) -> None:
    # ASCII alone, so that half of a pair can be sent.
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    checked(client.request(method, path, content=content, headers=headers), method, path, body)


@pytest.mark.parametrize("name", CREATED)
def test_shlink_bodies(client, name):
    for value in VALUES:
        sent(client, "POST", "/rest/v3/short-urls", {"longUrl": "https://a.example/", name: value})
        sent(client, "PATCH", "/rest/v3/short-urls/nothing", {name: value})
        sent(client, "PUT", "/rest/v3/tags", {"oldName": value, "newName": "b"})
        sent(client, "PUT", "/rest/v3/tags", {"oldName": "a", "newName": value})


@pytest.mark.parametrize(
    "name", ["long_url", "domain", "group_guid", "title", "tags", "keyword", "bitlink_id"]
)
def test_bitly_bodies(client, name):
    for value in VALUES:
        for path in ("/v4/shorten", "/v4/bitlinks", "/v4/expand"):
            sent(client, "POST", path, {"long_url": "https://a.example/", name: value})
        sent(client, "PATCH", "/v4/bitlinks/hop.example/nothing", {name: value})


def test_paths(gateway):
    for path in (b"%00", b"%FF", b"a%2Fb", b"..", b"a" * 3000, b"~1~a", b"%7E1%7Ea"):
        for before in (
            b"/rest/v3/short-urls/",
            b"/v4/bitlinks/hop.example/",
            b"/v4/bitlinks/%FF/",
            b"/v4/groups/",
        ):
            key = gateway.key.encode()
            head = b"GET %b%b HTTP/1.1\r\nHost: hop.example\r\nX-Api-Key: %b\r\nAuthorization: Bearer %b\r\n"
            answer = exchange(gateway.port, (head + b"Connection: close\r\n\r\n") % (before, path, key, key))
            assert answer is not None
            assert 400 <= answer.status < 500, (before, path)
