"""The REST API of Shlink, by its clients as they are published and by hand."""

from __future__ import annotations

import secrets

import httpx
import pytest

from tests.integration.dialect_gateway import (
    BASE,
    needs_node,
    needs_python_clients,
    node,
    python,
    speaking,
    target,
)
from tests.servers.hopgate import eventually
from tests.servers.raw_http import exchange

REST = "/rest/v3"
TYPES = "https://shlink.io/api/error/"


@pytest.fixture(scope="module", params=["on", "off"], ids=["front", "no front"])
def gateway(request, tmp_path_factory):
    yield from speaking(tmp_path_factory.mktemp("shlink"), HOPGATE_FRONT=request.param)


@pytest.fixture
def shlink(gateway):
    with httpx.Client(base_url=f"{gateway.url}{REST}", headers={"X-Api-Key": gateway.key}) as client:
        yield client


def word() -> str:
    return f"w{secrets.token_hex(6)}"


def failed(answer, status, kind):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["status"], document["type"]) == (status, f"{TYPES}{kind}")
    assert document["title"]
    assert document["detail"]
    return document


# --- clients ----------------------------------------------------------------------------


@needs_node
def test_client_of_shlink_itself(gateway):
    url, slug, tag = target(), word(), word()
    gateway.link(tags=["node-kept", "fetch-kept"])

    both = node("shlink.mjs", gateway.url, gateway.key, url, slug, tag)

    for name, found in both.items():
        code = f"{slug}-{name[0]}"
        made = found["made"]
        assert made["shortUrl"] == f"{BASE}/{code}"
        assert (made["shortCode"], made["longUrl"], made["domain"]) == (code, url, None)
        assert made["meta"] == {
            "validSince": None,
            "validUntil": "2099-01-31T11:00:00+00:00",
            "maxVisits": 10,
        }
        assert made["visitsSummary"] == {"total": 0, "nonBots": 0, "bots": 0}
        assert (made["title"], made["tags"], made["forwardQuery"]) == ("Spring", [tag, name], True)
        assert found["same"] == found["got"] == made
        assert len(found["short"]["shortCode"]) == 5
        edited = found["edited"]
        assert (edited["title"], edited["tags"], edited["forwardQuery"]) == (None, [tag], False)
        assert edited["meta"] == {"validSince": None, "validUntil": None, "maxVisits": None}
        assert [one["shortCode"] for one in found["listed"]["data"]] == [code]
        assert found["listed"]["pagination"] == {
            "currentPage": 1,
            "pagesCount": 1,
            "itemsPerPage": 5,
            "itemsInCurrentPage": 1,
            "totalItems": 1,
        }
        assert tag in found["tags"]["data"]
        assert found["conflict"]["type"] == f"{TYPES}tag-conflict"
        assert found["domains"]["data"][0]["domain"] == "hop.example"
        assert found["domains"]["data"][0]["isDefault"] is True
        assert found["health"]["status"] == "pass"
        assert found["overview"]["orphanVisits"]["total"] == 0
        assert found["visits"]["data"] == found["orphans"]["data"] == []
        assert found["rules"] == {"defaultLongUrl": url, "redirectRules": []}
        taken, invalid = found["taken"], found["invalid"]
        assert (taken["type"], taken["customSlug"]) == (f"{TYPES}non-unique-slug", code)
        assert (invalid["type"], invalid["invalidElements"]) == (f"{TYPES}invalid-data", ["longUrl"])
        assert found["stats"]["type"] == found["mercure"]["type"] == f"{TYPES}not-found"
        assert found["gone"]["type"] == f"{TYPES}short-url-not-found"
        assert found["gone"]["shortCode"] == code
        assert found["forbidden"]["type"] == f"{TYPES}invalid-api-key"


OF_PYSHLINK = """
import json, sys
from shlink import Shlink
url, key, code = sys.argv[1:]
shlink = Shlink(api_key=key, url=url + "/")
print(json.dumps({
    "listed": shlink.list_short_urls(), "got": shlink.get_short_url(code),
    "missing": shlink.get_short_url("nothing-here"),
    "visits": shlink.list_visit_data(code, startDate="2020-01-01T00:00:00+00:00"),
}))
"""


@needs_python_clients
def test_pyshlink_of_pypi(gateway):
    link = gateway.link()

    found = python(OF_PYSHLINK, gateway.url, gateway.key, link["slug"])

    assert found["listed"]["shortUrls"]["data"][0]["shortCode"] == link["slug"]
    assert found["got"]["longUrl"] == link["long_url"]
    assert found["missing"]["type"] == f"{TYPES}short-url-not-found"
    assert found["visits"]["visits"]["data"] == []


# --- short URLs -------------------------------------------------------------------------


def test_made_short_url_redirects_with_its_query(gateway, shlink):
    url = target()

    made = shlink.post("/short-urls", json={"longUrl": url, "validateUrl": True}).json()

    visit = httpx.get(f"{gateway.url}/{made['shortCode']}?a=b", headers={"Host": "hop.example"})
    assert (visit.status_code, visit.headers["location"]) == (302, f"{url}?a=b")


@pytest.mark.parametrize(
    ("body", "elements"),
    [
        ({}, ["longUrl"]),
        ({"longUrl": 5}, ["longUrl"]),
        ({"longUrl": "https://example.com/", "customSlug": "docs"}, ["customSlug"]),
        ({"longUrl": "https://example.com/", "customSlug": "a/b"}, ["customSlug"]),
        ({"longUrl": "https://example.com/", "shortCodeLength": 3}, ["shortCodeLength"]),
        ({"longUrl": "https://example.com/", "shortCodeLength": 999}, ["shortCodeLength"]),
        ({"longUrl": "https://example.com/", "maxVisits": 0}, ["maxVisits"]),
        ({"longUrl": "https://example.com/", "validUntil": "tomorrow"}, ["validUntil"]),
        ({"longUrl": "https://example.com/", "validUntil": "2020-01-01T00:00:00Z"}, ["validUntil"]),
        ({"longUrl": "https://example.com/", "domain": "nowhere.example"}, ["domain"]),
        ({"longUrl": "https://example.com/", "crawlable": False}, ["crawlable"]),
        ({"longUrl": "https://example.com/", "pathPrefix": "a"}, ["pathPrefix"]),
        (
            {"longUrl": "https://example.com/", "deviceLongUrls": {"ios": "https://a.example/"}},
            ["deviceLongUrls"],
        ),
    ],
)
def test_invalid_data_names_its_elements(shlink, body, elements):
    answer = shlink.post("/short-urls", json=body)

    assert failed(answer, 400, "invalid-data")["invalidElements"] == elements


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'{"longUrl": "https://a.example/", "longUrl": ""}', b"\xff"]
)
def test_unreadable_body(shlink, body):
    answer = shlink.post("/short-urls", content=body, headers={"Content-Type": "application/json"})

    failed(answer, 400, "invalid-data")


def test_chunked_body_is_taken_if_it_is_whole(gateway):
    """granian ends a chunked body that breaks off like a complete one; a JSON object shows the difference."""
    body = b'{"longUrl": "%b"}' % target().encode()
    head = f"POST {REST}/short-urls HTTP/1.1\r\nHost: hop.example\r\nX-Api-Key: {gateway.key}\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    head += "Connection: close\r\n\r\n"

    def sent(*chunks: bytes) -> int:
        framed = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks)
        answer = exchange(gateway.port, head.encode() + framed + b"0\r\n\r\n")
        return 0 if answer is None else answer.status

    assert sent(body[:9], body[9:]) == 200
    assert sent(body[:9]) == 400
    assert sent(b" " * 70_000) == 413


def test_find_if_exists_compares_what_is_asked_for(shlink):
    url, slug = target(), word()
    first = shlink.post("/short-urls", json={"longUrl": url, "customSlug": slug, "tags": ["a", "b"]}).json()

    def found(**body: object) -> bool:
        answer = shlink.post("/short-urls", json={"longUrl": url, "findIfExists": True, **body})
        assert answer.status_code == 200, answer.text
        return answer.json()["shortCode"] == first["shortCode"]

    assert found(tags=["b", "a"])
    assert found(tags=["a", "b"], customSlug=slug)
    assert not found(tags=["a"])
    assert not found(tags=["a", "b"], maxVisits=5)
    assert not found(tags=["a", "b"], validUntil="2099-01-01T00:00:00Z")
    taken = shlink.post("/short-urls", json={"longUrl": target(), "customSlug": slug, "findIfExists": True})
    failed(taken, 400, "non-unique-slug")


def test_links_of_a_domain(gateway, shlink):
    host = f"d{secrets.token_hex(4)}.example"
    assert gateway.api.post("/api/v1/domains", json={"host": host}).status_code == 201

    made = shlink.post("/short-urls", json={"longUrl": target(), "domain": host}).json()

    code = made["shortCode"]
    assert (made["domain"], made["shortUrl"]) == (host, f"http://{host}/{code}")
    assert shlink.get(f"/short-urls/{code}", params={"domain": host}).json() == made
    failed(shlink.get(f"/short-urls/{code}"), 404, "short-url-not-found")
    failed(shlink.get(f"/short-urls/{code}", params={"domain": "no.example"}), 404, "short-url-not-found")
    listed = shlink.get("/short-urls", params={"domain": host}).json()["shortUrls"]["data"]
    assert listed == [made]
    others = shlink.get("/short-urls", params={"domain": "DEFAULT", "itemsPerPage": 1000}).json()
    assert code not in {one["shortCode"] for one in others["shortUrls"]["data"]}
    assert shlink.delete(f"/short-urls/{code}", params={"domain": host}).status_code == 204


def test_pages_of_short_urls(gateway, shlink):
    tag = word()
    made = [gateway.link(tags=[tag])["slug"] for _ in range(5)]

    pages = [
        shlink.get("/short-urls", params={"tags[]": tag, "itemsPerPage": 2, "page": n}).json()["shortUrls"]
        for n in (1, 2, 3, 4)
    ]

    assert [one["shortCode"] for page in pages for one in page["data"]] == made[::-1]
    assert [page["pagination"]["itemsInCurrentPage"] for page in pages] == [2, 2, 1, 0]
    assert {page["pagination"]["totalItems"] for page in pages} == {5}
    assert {page["pagination"]["pagesCount"] for page in pages} == {3}


@pytest.mark.parametrize(
    "query",
    [
        {"page": "0"},
        {"page": "x"},
        {"itemsPerPage": "-1"},
        {"itemsPerPage": "1001"},
        {"searchTerm": "ab"},
        {"orderBy": "longUrl-ASC"},
        {"orderBy": "visits"},
        {"startDate": "yesterday"},
        {"excludeMaxVisitsReached": "true"},
        {"apiKeyName": "mine"},
        {"domain": "nowhere.example"},
        {"tagsMode": "some"},
    ],
)
def test_listing_refuses_what_it_cannot_do(shlink, query):
    answer = shlink.get("/short-urls", params=query)

    assert failed(answer, 400, "invalid-data")["invalidElements"] == list(query)


def test_visits_are_counted_and_not_listed(gateway, shlink):
    slug = gateway.link()["slug"]
    assert shlink.get(f"/short-urls/{slug}/visits").json()["visits"]["pagination"]["totalItems"] == 0
    httpx.get(f"{gateway.url}/{slug}", headers={"Host": "hop.example"})

    def summary():
        return shlink.get(f"/short-urls/{slug}").json()["visitsSummary"]

    eventually(lambda: summary()["total"] == 1, what="the visit is counted")
    assert summary() == {"total": 1, "nonBots": 1, "bots": 0}
    assert shlink.get("/visits").json()["visits"]["nonOrphanVisits"]["total"] >= 1
    failed(shlink.get(f"/short-urls/{slug}/visits"), 404, "not-found")


# --- keys -------------------------------------------------------------------------------


def test_authentication_problems(gateway):
    url = f"{gateway.url}{REST}/short-urls"

    failed(httpx.get(url), 401, "missing-authentication")
    failed(httpx.get(url, headers={"Authorization": f"Bearer {gateway.key}"}), 401, "missing-authentication")
    failed(httpx.get(url, headers={"X-Api-Key": "wrong"}), 401, "invalid-api-key")
    assert httpx.get(f"{gateway.url}/rest/health").json()["status"] == "pass"


def test_scopes_hold(gateway):
    slug = gateway.link(title="Secret")["slug"]
    url = f"{gateway.url}{REST}/short-urls"
    reader, writer = {"X-Api-Key": gateway.reader}, {"X-Api-Key": gateway.writer}
    body = {"longUrl": target()}

    assert httpx.post(url, json=body, headers=reader).status_code == 403
    assert httpx.delete(f"{url}/{slug}", headers=reader).status_code == 403
    assert httpx.get(f"{url}/{slug}", headers=writer).status_code == 403
    assert httpx.post(url, json={**body, "findIfExists": True}, headers=writer).status_code == 403
    assert httpx.post(url, json=body, headers=writer).status_code == 200
    changed = httpx.patch(f"{url}/{slug}", json={"title": "New"}, headers=writer)
    assert (changed.status_code, changed.content) == (204, b"")
    rename = {"oldName": "a", "newName": "b"}
    assert httpx.put(f"{gateway.url}{REST}/tags", json=rename, headers=writer).status_code == 403


def test_links_named_like_the_dialects_are_served(gateway):
    for slug in ("rest", "v4"):
        link = gateway.link(slug=slug) if slug == "rest" else gateway.link(slug=slug, long_url=target())
        visit = httpx.get(f"{gateway.url}/{slug}", headers={"Host": "hop.example"})
        assert (visit.status_code, visit.headers["location"]) == (302, link["long_url"])


def test_dialects_are_off_unless_they_are_asked_for(embedded):
    for path in ("/rest/health", f"{REST}/short-urls", "/v4/groups"):
        assert httpx.get(f"{embedded.url}{path}").status_code == 404
