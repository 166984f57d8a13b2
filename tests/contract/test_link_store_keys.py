"""`ApiKeyStore`: one suite for every adapter."""

from __future__ import annotations

from dataclasses import replace

from app.ports import ApiKey, Store
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
