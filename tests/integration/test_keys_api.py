"""API keys over HTTP: `/api/v1/keys` and `/api/v1/me`."""

from __future__ import annotations

from datetime import datetime, timedelta

import httpx
import pytest

from tests.integration.api_calls import LINKS, create, problem
from tests.servers.hopgate import eventually, hopgate, make_key

KEYS, ME = "/api/v1/keys", "/api/v1/me"


def made(api, **body) -> dict:
    answer = api.post(KEYS, json={"name": "made", "scopes": ["links:read"], **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def me(embedded, key: str) -> httpx.Response:
    return httpx.get(embedded.url + ME, headers={"Authorization": f"Bearer {key}"})


def listed(api, key_id: str) -> dict:
    return next(one for one in api.get(KEYS).json()["keys"] if one["key_id"] == key_id)


def test_key_is_shown_once_and_knows_itself(api, embedded):
    new = made(api, name="reader", expires_in="7d")

    answer = me(embedded, new["key"])

    assert answer.status_code == 200
    limits = answer.json().pop("limits")
    assert set(limits) == {"requests", "creates", "bulk_items"}
    text = new.pop("key")
    assert {
        name: value for name, value in answer.json().items() if name in new and name != "last_used_at"
    } == {name: value for name, value in new.items() if name != "last_used_at"}
    assert text not in api.get(KEYS).text
    assert text.split("_")[2] not in api.get(KEYS).text
    assert listed(api, new["key_id"])["name"] == "reader"
    assert datetime.fromisoformat(new["expires_at"]) - datetime.fromisoformat(new["created_at"]) == timedelta(
        7
    )


def test_revoked_key_ends_within_a_second(api, embedded):
    new = made(api)
    assert me(embedded, new["key"]).status_code == 200

    assert api.delete(f"{KEYS}/{new['key_id']}").status_code == 204

    eventually(lambda: me(embedded, new["key"]).status_code == 401)
    problem(me(embedded, new["key"]), 401, "unauthorized")
    assert listed(api, new["key_id"])["revoked_at"]
    problem(api.delete(f"{KEYS}/unknown"), 404, "not_found")


def test_expired_key_is_told_so_and_no_other(api, embedded):
    new = made(api, expires_in="1s")
    eventually(lambda: me(embedded, new["key"]).status_code == 401)

    problem(me(embedded, new["key"]), 401, "key_expired")
    hg, key_id, *_ = new["key"].split("_")
    other = made(api)["key"].split("_")
    forged = "_".join([hg, key_id, *other[2:]])
    problem(me(embedded, forged), 401, "unauthorized")
    problem(api.post(f"{KEYS}/{key_id}/rotate", json={}), 404, "not_found")


def test_both_secrets_of_a_rotated_key_count_for_its_grace(api, embedded):
    new = made(api)
    rotated = api.post(f"{KEYS}/{new['key_id']}/rotate", json={"grace": "2s"}).json()

    assert rotated["key_id"] == new["key_id"]
    eventually(lambda: me(embedded, rotated["key"]).status_code == 200)
    assert me(embedded, new["key"]).status_code == 200
    eventually(lambda: me(embedded, new["key"]).status_code == 401)
    assert me(embedded, rotated["key"]).status_code == 200

    last = api.post(f"{KEYS}/{new['key_id']}/rotate", json={"grace": "0"}).json()
    eventually(lambda: me(embedded, last["key"]).status_code == 200)
    problem(me(embedded, rotated["key"]), 401, "unauthorized")


def test_only_admins_manage_keys(api, embedded):
    with httpx.Client(base_url=embedded.url) as client:
        client.headers["Authorization"] = f"Bearer {made(api, scopes=['links:read', 'links:write'])['key']}"
        problem(client.get(KEYS), 403, "forbidden")
        problem(client.post(KEYS, json={"name": "x", "scopes": ["links:read"]}), 403, "forbidden")
        problem(client.delete(f"{KEYS}/x"), 403, "forbidden")
        problem(client.post(f"{KEYS}/x/rotate", json={}), 403, "forbidden")
        assert client.get(ME).status_code == 200
        create(client)
        assert client.get(LINKS).status_code == 200


def test_key_that_ends_makes_none_that_lasts_longer(api, embedded):
    admin = made(api, scopes=["admin"], expires_in="1h")
    with httpx.Client(base_url=embedded.url) as client:
        client.headers["Authorization"] = f"Bearer {admin['key']}"
        inherited = made(client)
        shorter = made(client, expires_in="1m")
        answer = client.post(KEYS, json={"name": "x", "scopes": ["links:read"], "expires_in": "2h"})

    assert inherited["expires_at"] == admin["expires_at"]
    assert shorter["expires_at"] < admin["expires_at"]
    assert problem(answer, 422, "invalid")["errors"][0]["code"] == "expiry_not_held"


def test_key_that_ends_rotates_none_that_lasts_longer(api, embedded):
    """It would get the key, and its owner would lose it."""
    lasting, short = made(api), made(api, expires_in="1m")
    admin = made(api, scopes=["admin"], expires_in="1h")
    with httpx.Client(base_url=embedded.url) as client:
        client.headers["Authorization"] = f"Bearer {admin['key']}"
        refused = client.post(f"{KEYS}/{lasting['key_id']}/rotate", json={"grace": "0"})
        rotated = client.post(f"{KEYS}/{short['key_id']}/rotate", json={"grace": "0"})

    assert problem(refused, 422, "invalid")["errors"][0]["code"] == "expiry_not_held"
    assert me(embedded, lasting["key"]).status_code == 200
    assert rotated.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x"},
        {"name": "", "scopes": ["links:read"]},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["links:all"]},
        {"name": "x", "scopes": ["links:read"], "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "x", "scopes": ["links:read"], "expires_at": "2999-01-01T00:00:00Z", "expires_in": "1d"},
        {"name": "x", "scopes": ["links:read"], "expires_in": "soon"},
        # In UTC, years that no store reads back.
        {"name": "x", "scopes": ["links:read"], "expires_at": "9999-12-31T23:59:59-01:00"},
        {"name": "x", "scopes": ["links:read"], "expires_at": "9998-12-31T23:59:59-01:00"},
        {"name": "x", "scopes": ["links:read"], "expires_at": "0001-01-01T00:00:00+01:00"},
        {"name": "x", "scopes": ["links:read"], "expires_at": "2030-01-01T00:00:00"},
    ],
    ids=str,
)
def test_key_that_breaks_a_rule_is_refused(api, body):
    before = len(api.get(KEYS).json()["keys"])

    problem(api.post(KEYS, json=body), 422, "invalid")

    assert len(api.get(KEYS).json()["keys"]) == before


def test_keys_of_the_command_line_are_those_of_the_api(api, embedded):
    text = make_key(embedded.settings, "links:read")
    key_id = text.split("_")[1]
    short = hopgate(embedded.settings, "keys", "create", "short", "--expires-in", "1h").stdout.split("_")[1]

    assert listed(api, key_id)["scopes"] == ["links:read"]
    assert listed(api, short)["expires_at"]
    new = made(api, name="over HTTP")
    assert new["key_id"] in hopgate(embedded.settings, "keys", "list").stdout
