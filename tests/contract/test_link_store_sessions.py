"""`ConsoleSessionStore`: one suite for every adapter."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from app.ports import ApiKey, ConsoleSession, Store
from tests.contract.store_links import LATER, NOW

KEY = ApiKey(key_id="k1", name="k", secret_hash=bytes(range(32)), scopes=frozenset(), created_at=NOW)


def session(number: int, key_id: str = "k1") -> ConsoleSession:
    """Return the session *number* of a key: a minute after the one before it."""
    return ConsoleSession(
        id_hash=bytes([number]) * 31 + key_id[-1:].encode(),
        key_id=key_id,
        secret_hash=KEY.secret_hash,
        created_at=NOW + timedelta(minutes=number, microseconds=1),
        expires_at=LATER + timedelta(minutes=number),
    )


async def stored(store: Store) -> set[bytes]:
    return {one.id_hash for one in await store.list_sessions()}


async def test_session_reads_back_until_it_is_ended(store: Store) -> None:
    first, second = session(1), session(2)
    for one in (first, second):
        await store.add_session(one, keep=9)

    assert await store.get_session(first.id_hash) == first
    assert sorted(await store.list_sessions(), key=lambda one: one.id_hash) == [first, second]
    assert await store.end_session(first.id_hash)
    assert await store.get_session(first.id_hash) is None
    assert await store.get_session(second.id_hash) == second
    assert not await store.end_session(first.id_hash)


async def test_sign_in_ends_the_oldest_sessions_of_its_key_alone(store: Store) -> None:
    other = session(0, "k2")
    await store.add_session(other, keep=3)
    for number in (4, 2, 3, 5):
        await store.add_session(session(number), keep=3)

    assert await stored(store) == {other.id_hash, *(session(number).id_hash for number in (3, 4, 5))}

    # The new one stays, whatever the clock of its gateway says.
    await store.add_session(session(1), keep=2)
    assert await stored(store) == {other.id_hash, session(1).id_hash, session(5).id_hash}


async def test_sign_ins_at_once_keep_the_bound(store: Store) -> None:
    await store.add_key(KEY)

    await asyncio.gather(*(store.add_session(session(number), keep=5) for number in range(40)))

    assert len(await stored(store)) == 5


async def test_expired_sessions_are_forgotten(store: Store) -> None:
    for number in range(5):
        await store.add_session(session(number), keep=9)
    before = session(3).expires_at

    assert await store.forget_sessions(before=before, limit=2) == 2
    assert await store.forget_sessions(before=before, limit=2) == 1
    assert await store.forget_sessions(before=before, limit=2) == 0
    assert await stored(store) == {session(3).id_hash, session(4).id_hash}
