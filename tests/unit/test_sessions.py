"""Sessions of the console and the links that begin them, over two gateways of one store."""

from __future__ import annotations

import base64
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.errors import Unavailable
from app.service import keys
from app.service.keys import ALL_SCOPES, Authenticator, Principal
from app.service.sessions import (
    LINK_LIFETIME,
    MAX_SESSIONS,
    SESSION_LIFETIME,
    SessionId,
    Sessions,
    SignInLink,
    new_link,
)
from tests.unit.services import CountingStore

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.now.timestamp()

    def passes(self, time: timedelta) -> None:
        self.now += time


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Node:
    """What a gateway has of sessions."""

    def __init__(self, store, clock: Clock) -> None:
        self.authenticator = Authenticator(store, monotonic=clock.monotonic, clock=clock)
        self.sessions = Sessions(
            store,
            clock=clock,
            monotonic=clock.monotonic,
            random=secrets.token_bytes,
            on_change=self.authenticator.forget,
        )

    async def signs_in(self, text, instead_of: SessionId | None = None) -> SessionId | None:
        if not isinstance(await self.authenticator.authenticate(text), Principal):
            return None
        return await self.sessions.begin(text, instead_of=instead_of)

    async def takes(self, session: SessionId | None, *, stale_s: float = 0.0) -> bool:
        read = SessionId.of(session.text) if session else None
        if read is None:
            return False
        reference = self.sessions.reference(read)
        return isinstance(await self.authenticator.authenticate(reference, stale_s=stale_s), Principal)


@pytest.fixture
def nodes(embedded_store, clock) -> tuple[Node, Node]:
    return Node(embedded_store, clock), Node(embedded_store, clock)


async def stored_key(store) -> str:
    text, record = keys.issue("test", ALL_SCOPES, now=START, choice=secrets.choice)
    await store.add_key(record)
    return text


async def stored_link(store) -> SignInLink:
    link, key = new_link("console", ALL_SCOPES, now=START, choice=secrets.choice, random=secrets.token_bytes)
    await store.add_key(key)
    read = SignInLink.of(link.text)
    assert read == link
    return link


async def test_session_counts_at_every_gateway_for_twelve_hours(embedded_store, nodes, clock):
    session = await nodes[0].signs_in(await stored_key(embedded_store))

    assert await nodes[1].takes(session)
    clock.passes(SESSION_LIFETIME - timedelta(seconds=1))
    assert await nodes[1].takes(session)
    clock.passes(timedelta(seconds=1))
    assert not await nodes[0].takes(session)


async def test_each_sign_in_is_another_session(embedded_store, nodes):
    key = await stored_key(embedded_store)

    first, second = await nodes[0].signs_in(key), await nodes[0].signs_in(key)

    assert first.text != second.text
    assert first.form_token != second.form_token
    assert first.form_token not in first.text
    assert first.text not in repr(first)


async def test_nothing_that_is_stored_signs_in(embedded_store, nodes):
    """A reader of the database, or of a copy of it, has the rows of the session and of its key."""
    key, link = await stored_key(embedded_store), await stored_link(embedded_store)
    session = await nodes[0].signs_in(key)
    rows = [*await embedded_store.list_sessions(), *await embedded_store.list_keys()]
    contents = [
        getattr(row, name) for row in rows for name in ("id_hash", "secret_hash") if hasattr(row, name)
    ]
    texts = [base64.urlsafe_b64encode(content).decode().rstrip("=") for content in contents]

    assert session.hash in contents
    for text in texts:
        assert not await nodes[0].takes(SessionId(text))
        assert text != session.form_token
        forged = SignInLink(link.key_id, link.made, text)
        assert await nodes[0].signs_in(forged) is None
    for secret in (session.text, session.form_token, link.secret, key):
        assert secret not in repr(rows)


async def test_changed_session_is_none(embedded_store, nodes):
    key = await stored_key(embedded_store)
    session = await nodes[0].signs_in(key)
    changed = ("A" if session.text[0] != "A" else "B") + session.text[1:]
    former = f"{key.split('_')[1]}.1700000000.{'a' * 43}.{'a' * 43}"

    assert not await nodes[0].takes(SessionId(changed))
    for text in ("", "x", session.text[:-1], f"{session.text}\n", f"{session.text}=", former, key):
        assert SessionId.of(text) is None


async def test_session_that_was_ended_counts_nowhere_after_a_second(embedded_store, nodes, clock):
    key = await stored_key(embedded_store)
    session, other = await nodes[0].signs_in(key), await nodes[0].signs_in(key)
    assert await nodes[0].takes(session)
    assert await nodes[1].takes(session)

    await nodes[0].sessions.end(session)

    assert not await nodes[0].takes(session)
    clock.passes(timedelta(seconds=1))
    assert not await nodes[1].takes(session)
    assert await nodes[1].takes(other)


async def test_session_that_was_read_counts_while_the_store_is_away_where_that_is_allowed(
    embedded_store, clock
):
    store = CountingStore(embedded_store)
    node = Node(store, clock)
    key = await stored_key(embedded_store)
    session, ended = await node.signs_in(key), await node.signs_in(key)
    assert await node.takes(session)
    assert await node.takes(ended)
    assert ended is not None
    await node.sessions.end(ended)
    store.away = True
    clock.passes(timedelta(seconds=599))

    with pytest.raises(Unavailable):
        await node.takes(session)
    assert await node.takes(session, stale_s=600)
    with pytest.raises(Unavailable):
        await node.takes(ended, stale_s=600)
    clock.passes(timedelta(seconds=3))
    with pytest.raises(Unavailable):
        await node.takes(session, stale_s=600)


async def test_sign_in_ends_the_session_that_it_takes_the_place_of(embedded_store, nodes, clock):
    key = await stored_key(embedded_store)
    former = await nodes[0].signs_in(key)

    assert await nodes[0].signs_in("hg_no_key", instead_of=former) is None
    assert await nodes[0].takes(former)
    session = await nodes[0].signs_in(key, instead_of=former)

    assert not await nodes[0].takes(former)
    assert await nodes[0].takes(session)


async def test_sessions_of_a_key_are_bounded(embedded_store, nodes, clock):
    key, other = await stored_key(embedded_store), await stored_key(embedded_store)
    [of_other, *of_key] = [await nodes[0].signs_in(one) for one in (other, *[key] * (MAX_SESSIONS + 1))]

    assert len(await embedded_store.list_sessions()) == MAX_SESSIONS + 1
    assert await nodes[0].takes(of_other)
    assert await nodes[0].takes(of_key[-1])


async def test_ids_that_lead_nowhere_cost_one_list_a_second(embedded_store, clock):
    store = CountingStore(embedded_store)
    node = Node(store, clock)
    session = await node.signs_in(await stored_key(embedded_store))
    assert session is not None
    references = [node.sessions.reference(SessionId(f"{number:043}")) for number in range(50)]

    listed = [await node.authenticator.is_listed(one) for one in references]

    assert not any(listed)
    assert store.calls["list_sessions"] == 1
    assert store.calls["list_keys"] == 0
    own = node.sessions.reference(session)
    assert node.authenticator.was_valid(own)
    await node.sessions.end(session)
    assert not node.authenticator.was_valid(own)


async def test_session_of_another_gateway_is_listed(embedded_store, nodes):
    session = await nodes[0].signs_in(await stored_key(embedded_store))
    assert session is not None
    elsewhere = nodes[1].sessions.reference(session)

    assert not nodes[1].authenticator.was_valid(elsewhere)
    assert await nodes[1].authenticator.is_listed(elsewhere)
    assert await nodes[1].takes(session)
    assert nodes[1].authenticator.was_valid(elsewhere)


async def test_store_that_is_away_ends_no_session(embedded_store, clock):
    store = CountingStore(embedded_store)
    node = Node(store, clock)
    session = await node.signs_in(await stored_key(embedded_store))
    assert session is not None
    assert await node.takes(session)

    store.away = True

    assert await node.takes(session)
    clock.passes(timedelta(seconds=1))
    for refused in (node.takes(session), node.sessions.end(session)):
        with pytest.raises(Unavailable):
            await refused
    store.away = False
    assert await node.takes(session)


async def test_session_ends_with_the_secret_that_it_was_made_from(embedded_store, nodes, clock):
    key = await stored_key(embedded_store)
    key_id = key.split("_")[1]
    session = await nodes[0].signs_in(key)
    current = await embedded_store.get_key(key_id)
    _, rotated = keys.reissue(current, choice=secrets.choice)
    until = clock() + timedelta(hours=1)
    await embedded_store.rotate_key(key_id, old=current.secret_hash, new=rotated.secret_hash, old_until=until)

    clock.passes(timedelta(minutes=59))
    assert await nodes[1].takes(session)
    clock.passes(timedelta(minutes=1))
    assert not await nodes[1].takes(session)


async def test_session_ends_within_a_second_of_the_revocation(embedded_store, nodes, clock):
    key = await stored_key(embedded_store)
    session = await nodes[0].signs_in(key)
    assert await nodes[1].takes(session)

    await embedded_store.revoke_key(key.split("_")[1], now=clock())

    clock.passes(timedelta(seconds=1))
    assert not await nodes[1].takes(session)


async def test_link_signs_in_once_at_one_gateway(embedded_store, nodes, clock):
    link = await stored_link(embedded_store)
    # Both have seen the link before it is used.
    for node in nodes:
        assert isinstance(await node.authenticator.authenticate(link), Principal)

    session = await nodes[0].signs_in(link)

    assert await nodes[1].sessions.begin(link) is None
    assert await nodes[0].sessions.begin(link) is None
    clock.passes(timedelta(seconds=1))
    assert await nodes[1].takes(session)
    assert await nodes[1].authenticator.authenticate(link) is None


async def test_link_counts_for_ten_minutes(embedded_store, nodes, clock):
    link = await stored_link(embedded_store)
    later = replace(link, made=link.made + 600)

    clock.passes(LINK_LIFETIME)

    assert await nodes[0].signs_in(link) is None
    assert await nodes[0].signs_in(later) is None


async def test_key_of_a_link_ends_with_its_longest_session(embedded_store, nodes, clock):
    link = await stored_link(embedded_store)
    clock.passes(LINK_LIFETIME - timedelta(seconds=1))
    session = await nodes[0].signs_in(link)

    clock.passes(SESSION_LIFETIME - timedelta(seconds=1))
    assert await nodes[0].takes(session)
    clock.passes(timedelta(seconds=1))
    assert not await nodes[0].takes(session)
    clock.passes(timedelta(seconds=1))
    assert (await embedded_store.get_key(link.key_id)).has_expired(clock())


async def test_no_text_is_the_key_of_a_link(embedded_store, nodes):
    link = await stored_link(embedded_store)
    for text in (link.text, link.secret, f"hg_{link.key_id}_{link.secret}_000000"):
        assert await nodes[0].authenticator.authenticate(text) is None
