"""`ApiKeyStore`: one suite for every adapter."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from app.ports import ApiKey, Store
from tests.contract.store_database import Database
from tests.contract.store_links import LATER, NOW

KEY = ApiKey(
    key_id="k1",
    name="Zoë",
    secret_hash=bytes(range(32)),
    scopes=frozenset({"links:read", "admin"}),
    created_at=NOW,
)


async def test_key_whose_id_exists_stays_as_it_is(store: Store) -> None:
    """Gateways that start together store the same key."""
    await store.add_key(KEY)
    await store.revoke_key(KEY.key_id, now=NOW)

    await store.add_key(replace(KEY, secret_hash=bytes(32)))

    assert await store.list_keys() == [replace(KEY, revoked_at=NOW)]


RESTRICTIONS = {
    "own_links": True,
    "domains": frozenset({0, 7}),
    "allowed_addresses": ("10.0.0.0/8", "2001:db8::/32"),
    "rate_limit": "100/m",
}


@pytest.mark.parametrize("name", [*RESTRICTIONS, "all"])
async def test_restrictions_read_back(store: Store, name: str) -> None:
    chosen = RESTRICTIONS if name == "all" else {name: RESTRICTIONS[name]}
    key = replace(KEY, **chosen)  # type: ignore[arg-type]
    await store.add_key(key)

    assert await store.get_key(KEY.key_id) == key
    assert await store.list_keys() == [key]


@pytest.mark.parametrize("name", ["own_links", "domains", "allowed_addresses"])
async def test_restricted_key_has_no_scope_that_earlier_releases_know(
    store: Store, database: Database, name: str
) -> None:
    """They do not know its restrictions: the key may do nothing there, and after a rollback."""
    await store.add_key(replace(KEY, **{name: RESTRICTIONS[name]}))  # type: ignore[arg-type]

    [(scopes,)] = database.execute("SELECT scopes FROM api_keys")
    found = json.loads(scopes) if isinstance(scopes, str) else scopes
    assert sorted(found) == ["restricted:admin", "restricted:links:read"]


async def test_keys_read_back_oldest_first(store: Store) -> None:
    second = replace(KEY, key_id="k0", scopes=frozenset(), created_at=LATER, revoked_at=LATER)
    await store.add_key(second)
    await store.add_key(KEY)

    assert await store.list_keys() == [KEY, second]
    assert await store.get_key("k0") == second
    assert await store.get_key("k2") is None


async def test_revoking_twice_keeps_the_first_time(store: Store) -> None:
    await store.add_key(KEY)

    first = await store.revoke_key("k1", now=NOW)
    second = await store.revoke_key("k1", now=LATER)

    assert (first, second) == (True, True)
    assert await store.get_key("k1") == replace(KEY, revoked_at=NOW)
    assert await store.revoke_key("nope", now=NOW) is False


async def test_rotated_key_has_both_secrets(store: Store) -> None:
    await store.add_key(KEY)
    new = b"n" * 32

    rotated = await store.rotate_key(KEY.key_id, old=KEY.secret_hash, new=new, old_until=LATER)
    again = await store.rotate_key(KEY.key_id, old=KEY.secret_hash, new=b"x" * 32, old_until=LATER)
    unknown = await store.rotate_key("unknown", old=KEY.secret_hash, new=new, old_until=LATER)

    assert (rotated, again, unknown) == (True, False, False)
    found = await store.get_key(KEY.key_id)
    assert found == replace(KEY, secret_hash=new, old_secret_hash=KEY.secret_hash, old_until=LATER)
    assert found.hashes(NOW) == (new, KEY.secret_hash)
    assert found.hashes(LATER) == (new,)


async def test_revoked_key_is_not_rotated(store: Store) -> None:
    await store.add_key(KEY)
    await store.revoke_key(KEY.key_id, now=NOW)

    assert not await store.rotate_key(KEY.key_id, old=KEY.secret_hash, new=b"n" * 32, old_until=LATER)


async def test_latest_use_of_a_key_is_noted(store: Store) -> None:
    await store.add_key(replace(KEY, expires_at=LATER))

    for at in (NOW, LATER, NOW):
        await store.note_key_uses({KEY.key_id: at, "unknown": at})

    assert await store.get_key(KEY.key_id) == replace(KEY, expires_at=LATER, last_used_at=LATER)
