"""Links that a batch finds instead of making them: by their external id, or equal ones."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.integration.api_calls import LINKS, create, fresh_slug, problem
from tests.integration.bulk_calls import URL, patch, post, results, statuses, version
from tests.servers.hopgate import make_key

# --- external ids ----------------------------------------------------------------------


def test_upsert_changes_what_it_names_or_makes_a_link(api):
    known, other = fresh_slug(), fresh_slug()
    [made] = results(post(api, {"long_url": URL, "external_id": known, "title": "kept", "tags": ["x"]}))

    answer = post(
        api,
        {"long_url": f"{URL}new", "external_id": known},
        {"long_url": URL, "external_id": other},
        {"long_url": f"{URL}twice", "external_id": other},
        {"long_url": f"{URL}new", "external_id": known},
        {"long_url": URL, "external_id": known, "slug": fresh_slug()},
        upsert="external_id",
    )

    assert statuses(answer) == [200, 201, 200, 200, 409]
    updated, new, twice, same, fixed = results(answer)
    assert updated["link"]["slug"] == made["link"]["slug"]
    assert (updated["link"]["long_url"], updated["link"]["title"]) == (f"{URL}new", "kept")
    assert (new["link"]["slug"], twice["link"]["version"]) == (twice["link"]["slug"], 2)
    assert same["link"]["version"] == updated["link"]["version"] == 2
    assert fixed["error"]["code"] == "slug_fixed"
    assert api.get(f"{LINKS}/{new['link']['slug']}").json() == twice["link"]


def test_taken_external_id_is_a_conflict_everywhere(api):
    taken = fresh_slug()
    holder = create(api, external_id=taken)
    other = create(api)["slug"]

    single = problem(api.post(LINKS, json={"long_url": URL, "external_id": taken}), 409, "external_id_taken")
    edited = problem(api.patch(f"{LINKS}/{other}", json={"external_id": taken}), 409, "external_id_taken")
    made = results(post(api, {"long_url": URL, "external_id": taken}))
    bulk_edited = results(patch(api, {"slug": other, "external_id": taken}))

    assert single["link"] == edited["link"] == holder
    assert [made[0]["error"]["code"], bulk_edited[0]["error"]["code"]] == ["external_id_taken"] * 2
    assert version(api, other) == 1


# --- reuse -----------------------------------------------------------------------------


def test_reuse_finds_an_equal_link_or_makes_one(api):
    url = URL + fresh_slug()
    create(api, long_url=url, max_visits=3)
    create(api, long_url=url, enabled=False)
    create(api, long_url=url, expires_in="7d")
    create(api, long_url=url, external_id=fresh_slug())

    first = api.post(LINKS, json={"long_url": url, "reuse": True})
    again = api.post(LINKS, json={"long_url": url, "reuse": True})
    titled = api.post(LINKS, json={"long_url": url, "title": "other", "reuse": True})
    batch = post(
        api,
        {"long_url": url},
        {"long_url": url, "title": "new"},
        {"long_url": url, "title": "new"},
        reuse=True,
    )

    assert [one.status_code for one in (first, again, titled)] == [201, 200, 201]
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert titled.json()["slug"] != first.json()["slug"]
    assert statuses(batch) == [200, 201, 200]
    assert results(batch)[0]["link"] == first.json()


@pytest.mark.parametrize(
    "restriction",
    [{"slug": "mine-own"}, {"max_visits": 1}, {"enabled": False}, {"expires_in": "7d"}, {"external_id": "x"}],
    ids=lambda one: next(iter(one)),
)
def test_reuse_of_a_restricted_link_is_refused(api, restriction):
    answer = api.post(LINKS, json={"long_url": URL, "reuse": True, **restriction})

    document = problem(answer, 422, "invalid")
    assert [(one["field"], one["code"]) for one in document["errors"]] == [
        (next(iter(restriction)), "reuse_restricted")
    ]


def test_concurrent_reuse_makes_one_link(api, embedded):
    url, slugs = URL + fresh_slug(), []

    def send() -> None:
        with httpx.Client(base_url=embedded.url, headers=api.headers) as client:
            slugs.append(client.post(LINKS, json={"long_url": url, "reuse": True}).json()["slug"])

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(slugs) == 8
    assert len(set(slugs)) == 1


def test_what_finds_links_needs_to_read_them(api, embedded):
    key = make_key(embedded.settings, "links:write")
    with httpx.Client(base_url=embedded.url, headers={"Authorization": f"Bearer {key}"}) as writer:
        problem(writer.post(LINKS, json={"long_url": URL, "reuse": True}), 403, "forbidden")
        problem(post(writer, {"long_url": URL}, reuse=True), 403, "forbidden")
        problem(post(writer, {"long_url": URL, "reuse": True}), 403, "forbidden")
        problem(post(writer, {"long_url": URL}, upsert="external_id"), 403, "forbidden")
        slug = create(api, title="secret")["slug"]
        hidden = results(post(writer, {"long_url": URL, "slug": slug}))
        changed = results(patch(writer, {"slug": slug, "enabled": False}))

    assert "link" not in hidden[0]["error"]
    assert changed == [{"status": 204, "domain": "hop.example", "slug": slug, "version": 2}]


def test_answer_of_an_earlier_release_is_replayed(embedded, api):
    """It names no domain."""
    body, key = {"long_url": URL, "reuse": True}, fresh_slug()
    made = api.post(LINKS, json=body, headers={"Idempotency-Key": key})
    path = Path(embedded.settings["HOPGATE_DATA_DIR"]) / "hopgate.db"
    with closing(sqlite3.connect(path)) as db, db:
        [(answer,)] = db.execute("SELECT answer FROM idempotency WHERE key = ?", (key,)).fetchall()
        document = json.loads(answer)
        del document["results"][0]["link"]["domain"]
        former = json.dumps(document).encode()
        db.execute("UPDATE idempotency SET answer = ? WHERE key = ?", (former, key))

    again = api.post(LINKS, json=body, headers={"Idempotency-Key": key})

    assert (again.status_code, again.json()) == (made.status_code, made.json())
    assert again.headers["idempotency-replayed"] == "true"
