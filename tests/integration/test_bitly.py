"""The API of Bitly, by its client as it is published and by hand."""

from __future__ import annotations

import secrets

import httpx
import pytest

from tests.integration.dialect_gateway import BASE, Speaking, needs_node, node, speaking, target
from tests.servers.certificates import Authority
from tests.servers.hopgate import eventually

V4 = "/v4"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    yield from speaking(tmp_path_factory.mktemp("bitly"))


@pytest.fixture
def bitly(gateway):
    headers = {"Authorization": f"Bearer {gateway.key}"}
    with httpx.Client(base_url=f"{gateway.url}{V4}", headers=headers) as client:
        yield client


def failed(answer, status, message):
    assert (answer.status_code, answer.json()["message"]) == (status, message), answer.text
    assert answer.json()["description"]
    return answer.json()["errors"]


class Secured(Speaking):
    """A gateway that speaks TLS."""

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(f"https://127.0.0.1:{self.port}/healthz", verify=False).status_code == 200
        except httpx.HTTPError:
            return False


@needs_node
def test_bitly_of_npm(tmp_path):
    """It takes no port, so the script leads port 443 to the gateway, which has a certificate."""
    authority = Authority(tmp_path)
    tls = {"HOPGATE_TLS_CERT": str(authority.certificate()), "HOPGATE_TLS_KEY": str(authority.key)}
    url = target()
    trusted = {"NODE_EXTRA_CA_CERTS": str(authority.authority)}

    for gateway in speaking(tmp_path, kind=Secured, **tls):
        found = node("bitly.mjs", str(gateway.port), gateway.key, url, **trusted)

    made = found["made"]
    assert made["link"].startswith("http")
    assert (made["long_url"], made["archived"], made["tags"]) == (url, False, [])
    assert found["again"] == found["info"] == made
    assert found["expanded"]["long_url"] == url
    assert found["expanded"]["id"] == made["id"]
    assert (found["raw"]["title"], found["raw"]["tags"]) == ("Spring", ["a"])
    assert (found["clicks"]["total_clicks"], found["clicks"]["units"]) == (0, -1)
    assert found["groups"]["groups"][0]["guid"] == "hopgate"
    assert found["invalid"]["message"] == "INVALID_ARG_LONG_URL"
    assert found["missing"]["message"] == "NOT_FOUND"
    assert found["forbidden"]["message"] == "FORBIDDEN"


def test_shorten_finds_what_is_there(bitly):
    url = target()

    first, second = (bitly.post("/shorten", json={"long_url": url, "domain": "bit.ly"}) for _ in range(2))

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    document = first.json()
    slug = document["id"].removeprefix("hop.example/")
    assert document["link"] == f"{BASE}/{slug}"
    assert document["created_at"].endswith("+0000")


def test_bitlink_is_made_read_and_changed(gateway, bitly):
    url, keyword = target(), f"k{secrets.token_hex(5)}"
    made = bitly.post("/bitlinks", json={"long_url": url, "title": "A", "tags": ["x"], "keyword": keyword})

    assert made.status_code == 201
    assert made.json()["id"] == f"hop.example/{keyword}"
    assert bitly.get(f"/bitlinks/hop.example/{keyword}").json() == made.json()
    assert bitly.get(f"/bitlinks/bit.ly%2F{keyword}").json() == made.json()
    changed = bitly.patch(f"/bitlinks/hop.example/{keyword}", json={"title": "B", "archived": True})
    assert (changed.json()["title"], changed.json()["archived"]) == ("B", True)
    visit = httpx.get(f"{gateway.url}/{keyword}", headers={"Host": "hop.example"})
    assert visit.status_code == 410
    failed(bitly.post("/bitlinks", json={"long_url": url, "keyword": keyword}), 409, "ALREADY_EXISTS")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "long_url"),
        ({"long_url": "x"}, "long_url"),
        ({"long_url": "https://example.com/", "domain": "nowhere.example"}, "domain"),
        ({"long_url": "https://example.com/", "group_guid": "Ba1bc23dE4F"}, "group_guid"),
        ({"long_url": "https://example.com/", "deeplinks": [{"app_id": "x"}]}, "deeplinks"),
        ({"long_url": "https://example.com/", "tags": [""]}, "tags"),
    ],
)
def test_wrong_field_is_named(bitly, body, field):
    [error] = failed(bitly.post("/bitlinks", json=body), 400, f"INVALID_ARG_{field.upper()}")

    assert error["field"] == field


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_unreadable_body(bitly, body):
    answer = bitly.post("/shorten", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert answer.json()["message"].startswith("INVALID_ARG")


def test_form_is_refused(bitly):
    failed(bitly.post("/shorten", data={"long_url": target()}), 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "bitlink", ["hop.example/nothing-here", "other.example/abc", "bit.ly/", "x", "", "a/b/c"]
)
def test_unknown_bitlink(bitly, bitlink):
    failed(bitly.post("/expand", json={"bitlink_id": bitlink}), 404, "NOT_FOUND")


def test_clicks_are_counted(gateway, bitly):
    slug = gateway.link()["slug"]
    httpx.get(f"{gateway.url}/{slug}", headers={"Host": "hop.example"})

    def clicks(**query: object) -> int:
        return bitly.get(f"/bitlinks/hop.example/{slug}/clicks/summary", params=query).json()["total_clicks"]

    eventually(lambda: clicks() == 1, what="the click is counted")
    assert [clicks(unit="hour", units=2), clicks(unit="day", units=31), clicks(unit="week", units=4)] == [
        1,
        1,
        1,
    ]
    for query in ({"unit": "minute", "units": 5}, {"unit": "day", "units": 32}, {"units": "x"}, {"units": 0}):
        answer = bitly.get(f"/bitlinks/hop.example/{slug}/clicks/summary", params=query)
        failed(answer, 400, "INVALID_ARG_UNITS")


def test_account(gateway, bitly):
    user = bitly.get("/user").json()

    assert user["login"] == gateway.key.split("_")[1]
    assert user["default_group_guid"] == "hopgate"
    assert "hop.example" in bitly.get("/groups/hopgate").json()["bsds"]
    failed(bitly.get("/groups/other"), 404, "NOT_FOUND")


def test_keys_and_scopes(gateway):
    url, body = f"{gateway.url}{V4}/shorten", {"long_url": target()}

    def sent(value: str | None) -> httpx.Response:
        return httpx.post(url, json=body, headers={} if value is None else {"Authorization": value})

    for wrong in (None, "Bearer wrong", "wrong", f"Basic {gateway.key}", f"Bearer {gateway.reader}"):
        failed(sent(wrong), 403, "FORBIDDEN")
    assert sent(gateway.key).status_code == 201
    by_writer = [sent(f"Bearer {gateway.writer}") for _ in range(2)]
    assert [one.status_code for one in by_writer] == [201, 201]
    assert by_writer[0].json()["link"] != by_writer[1].json()["link"]
