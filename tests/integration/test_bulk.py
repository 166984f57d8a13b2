"""Batches over HTTP, on an embedded gateway: `POST`, `PATCH` and `DELETE /api/v1/links/bulk`."""

from __future__ import annotations

import http.client
import json
import socket
from datetime import datetime

import httpx
import pytest

from app.web.bulk_schemas import MAX_BATCH_BYTES, MAX_ITEMS
from tests.integration.api_calls import LINKS, create, fresh_slug, problem
from tests.integration.bulk_calls import BULK, URL, delete, patch, post, results, statuses, version
from tests.servers.hopgate import UNLIMITED, Gateway, make_key

# --- create ----------------------------------------------------------------------------


def test_results_are_in_order_and_a_bad_item_does_not_undo_the_others(api, visitor):
    slug = fresh_slug()

    answer = post(
        api,
        {"long_url": URL, "slug": slug, "title": "first"},
        {"long_url": "nowhere"},
        {"long_url": URL, "unknown": 1},
        {"long_url": URL, "slug": slug},
        {"long_url": f"{URL}last"},
        "no object",
    )

    assert statuses(answer) == [201, 422, 422, 409, 201, 422]
    found = results(answer)
    assert found[0]["link"] == api.get(f"{LINKS}/{slug}").json()
    assert visitor.get(f"/{found[4]['link']['slug']}").headers["location"] == f"{URL}last"
    for place in (1, 2, 3, 5):
        assert found[place]["error"]["pointer"] == f"/links/{place}"
        assert found[place]["error"]["status"] == found[place]["status"]
    assert found[3]["error"]["link"]["title"] == "first"


@pytest.mark.parametrize(
    "item",
    [
        {"long_url": "ftp://example.com/"},
        {"long_url": URL, "slug": "a b"},
        {"long_url": URL, "slug": "api"},
        {"long_url": URL, "expires_at": "2020-01-01T00:00:00Z"},
        {"long_url": URL, "max_visits": 0},
        {"long_url": URL, "tags": ["x"] * 21, "title": "x" * 513},
        {"long_url": URL, "external_id": ""},
        {"long_url": URL, "expires_in": "7 days"},
        {"long_url": URL, "expires_in": "7d", "expires_at": "2030-01-01T00:00:00Z"},
        {"long_url": 7},
        {},
    ],
    ids=json.dumps,
)
def test_item_is_judged_as_by_the_single_endpoint(api, item):
    single = api.post(LINKS, json=item)

    [result] = results(post(api, item))

    assert single.status_code == result["status"] == 422
    assert {**single.json(), "pointer": "/links/0"} == result["error"]


def test_atomic_batch_with_bad_items_stores_nothing_and_names_each(api):
    slug, taken = fresh_slug(), create(api, slug=fresh_slug())["slug"]

    answer = post(
        api,
        {"long_url": URL, "slug": slug},
        {"long_url": "nowhere"},
        {"long_url": URL, "slug": taken},
        atomic=True,
    )

    document = problem(answer, 422, "batch_refused")
    assert [(one["index"], one["status"]) for one in document["items"]] == [(1, 422), (2, 409)]
    assert [one["error"]["pointer"] for one in document["items"]] == ["/links/1", "/links/2"]
    assert api.get(f"{LINKS}/{slug}").status_code == 404


def test_atomic_batch_without_bad_items_is_stored(api):
    assert statuses(post(api, {"long_url": URL}, {"long_url": URL}, atomic=True)) == [201, 201]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"links": [{}', 400),
        (b'{"links": [{"long_url": "x",}]}', 400),
        (b'{"links": [{}]} {}', 400),
        (b'{"links": [{}], "links": [{}]}', 400),
        (b'{"links": [{}], "atomic": true, "atomic": false}', 400),
        (b'{"links": [{"title": "\\ud800"}]}', 400),
        (b'{"links": [' + b"[" * 100_000 + b"]}", 400),
        (b"{}", 422),
        (b'{"links": []}', 422),
        (b'{"links": {}}', 422),
        (b'{"links": null}', 422),
        (b'{"links": [{}], "atomic": 1}', 422),
        (b'{"links": [{}], "upsert": "slug"}', 422),
        (b'{"links": [{}], "unknown": 1}', 422),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else value,
)
def test_body_that_is_no_batch_is_refused(api, body, status):
    answer = api.post(BULK, content=body, headers={"Content-Type": "application/json"})

    problem(answer, status, "unreadable" if status == 400 else "invalid")


def test_largest_batch_is_stored_and_a_larger_one_names_the_limit(api):
    item = {"long_url": URL}

    assert statuses(post(api, *[item] * MAX_ITEMS)) == [201] * MAX_ITEMS
    document = problem(post(api, *[item] * (MAX_ITEMS + 1)), 422, "invalid")
    assert document["errors"][0]["code"] == "links_count"
    assert "5,000" in document["detail"]


def test_large_body_is_read_and_a_larger_one_is_refused(api):
    item = {"long_url": URL + "x" * 3_000}

    assert statuses(post(api, *[item] * 2_000)) == [201] * 2_000
    big = b" " * (MAX_BATCH_BYTES + 1)
    answer = api.post(BULK, content=big, headers={"Content-Type": "application/json"})
    assert str(MAX_BATCH_BYTES) in problem(answer, 413, "body_too_large")["detail"]


def test_large_body_without_a_key_is_refused_unread(visitor):
    """Most of the body never comes, so the answer does not wait for it, and the connection ends."""
    fields = "Host: x\r\nContent-Type: application/json\r\nContent-Length: 1000000"
    head = f"POST {BULK} HTTP/1.1\r\n{fields}\r\n\r\n"
    with socket.create_connection((visitor.base_url.host, visitor.base_url.port), timeout=10) as connection:
        connection.sendall(head.encode() + b" " * 1000)
        answer = http.client.HTTPResponse(connection)
        answer.begin()

        assert (answer.status, json.loads(answer.read())["code"]) == (401, "unauthorized")
        assert answer.getheader("connection") == "close"


# --- repeated requests -----------------------------------------------------------------


def test_repeated_request_is_answered_alike_and_done_once(api):
    headers = {"Idempotency-Key": fresh_slug()}
    slug = fresh_slug()
    body = {"links": [{"long_url": URL, "slug": slug}, {"long_url": URL}, {"long_url": "nowhere"}]}

    first = api.post(BULK, json=body, headers=headers)
    patch(api, {"slug": slug, "title": "changed since"})
    again = api.post(BULK, json=body, headers=headers)

    assert again.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


def test_key_of_another_body_or_method_is_refused(api):
    headers = {"Idempotency-Key": fresh_slug()}
    slug = create(api, slug=fresh_slug())["slug"]
    body = {"links": [{"slug": slug}]}
    api.request("DELETE", BULK, json=body, headers=headers)

    for answer in (
        api.request("DELETE", BULK, json={"links": [slug]}, headers=headers),
        api.patch(BULK, json=body, headers=headers),
        api.post(LINKS, json={"long_url": URL}, headers=headers),
    ):
        problem(answer, 422, "idempotency_key_reused")


# --- change and remove -----------------------------------------------------------------


def test_changes_are_made_in_order_at_their_versions(api, visitor):
    one, two = create(api)["slug"], create(api)["slug"]
    visitor.get(f"/{one}")

    answer = patch(
        api,
        {"slug": one, "long_url": f"{URL}moved", "version": 1},
        {"slug": one, "title": "late", "version": 1},
        {"slug": one, "title": "again"},
        {"slug": two},
        {"slug": two, "redirect_code": 999},
        {"slug": "absent", "title": "x"},
        {"slug": "no slug", "title": "x"},
    )

    assert statuses(answer) == [200, 412, 200, 422, 422, 404, 404]
    assert results(answer)[2]["link"] == api.get(f"{LINKS}/{one}").json()
    assert version(api, one) == 3
    assert version(api, two) == 1
    assert visitor.get(f"/{one}").headers["location"] == f"{URL}moved"


def test_removals_end_redirects(api, visitor):
    one, two = create(api)["slug"], create(api)["slug"]
    visitor.get(f"/{one}")

    answer = delete(api, one, {"slug": two, "version": 7}, {"slug": one}, "absent")

    assert statuses(answer) == [204, 412, 410, 404]
    assert visitor.get(f"/{one}").status_code == 410
    assert visitor.get(f"/{two}").status_code == 302


def test_atomic_changes_are_all_or_nothing(api):
    slug = create(api)["slug"]

    problem(
        patch(api, {"slug": slug, "title": "x"}, {"slug": "absent", "title": "x"}, atomic=True),
        422,
        "batch_refused",
    )
    problem(delete(api, slug, "absent", atomic=True), 422, "batch_refused")

    assert version(api, slug) == 1


# --- relative expiry -------------------------------------------------------------------


def test_lifetime_counts_from_the_moment_of_storing(api):
    made = create(api, expires_in="90m")
    edited = api.patch(f"{LINKS}/{made['slug']}", json={"expires_in": "2w"}).json()
    [bulk] = results(post(api, {"long_url": URL, "expires_in": "30s"}))
    [later] = results(patch(api, {"slug": bulk["link"]["slug"], "expires_in": "1d"}))

    def lifetime(link: dict) -> float:
        return (parsed(link["expires_at"]) - parsed(link["updated_at"])).total_seconds()

    assert [lifetime(one) for one in (made, edited, bulk["link"], later["link"])] == [
        90 * 60,
        14 * 86_400,
        30,
        86_400,
    ]


@pytest.mark.parametrize("text", ["", "7", "0d", "-1d", "1.5d", "7 d", "7D", "1y", "36501d", "9999999999w"])
def test_unreadable_lifetime_is_refused(api, text):
    answer = api.post(LINKS, json={"long_url": URL, "expires_in": text})

    assert problem(answer, 422, "invalid")["errors"][0]["code"] == "lifetime_invalid"
    slug = create(api)["slug"]
    problem(api.patch(f"{LINKS}/{slug}", json={"expires_in": text}), 422, "invalid")


def parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)


# --- limits ----------------------------------------------------------------------------


def test_items_are_limited_by_key(tmp_path):
    settings = {
        "HOPGATE_DATA_DIR": str(tmp_path / "data"),
        **UNLIMITED,
        "HOPGATE_LIMIT_BULK": "10/h burst 10",
    }
    headers = {"Authorization": f"Bearer {make_key(settings)}"}
    with (
        Gateway(settings, tmp_path) as gateway,
        httpx.Client(base_url=gateway.url, headers=headers) as client,
    ):
        never = post(client, *[{"long_url": URL}] * 11)
        assert statuses(post(client, *[{"long_url": URL}] * 10)) == [201] * 10
        later = post(client, {"long_url": URL})
        single = client.post(LINKS, json={"long_url": URL})

    assert "ask for less" in problem(never, 429, "too_many_requests")["detail"]
    assert "retry-after" not in never.headers
    problem(later, 429, "too_many_requests")
    assert int(later.headers["retry-after"]) > 60
    assert single.status_code == 201
