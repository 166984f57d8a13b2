"""Sessions of the console and the links that begin them, over two gateways of one store."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.service import keys
from app.service.keys import ALL_SCOPES, Authenticator, Principal
from app.service.sessions import LINK_LIFETIME, SESSION_LIFETIME, Session, Sessions, SignInLink, new_link

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
        forget = self.authenticator.forget
        self.sessions = Sessions(store, clock=clock, random=secrets.token_bytes, on_change=forget)

    async def signs_in(self, text) -> Session | None:
        if not isinstance(await self.authenticator.authenticate(text), Principal):
            return None
        return await self.sessions.begin(text)

    async def takes(self, session: Session | None) -> bool:
        read = Session.of(session.text) if session else None
        return isinstance(await self.authenticator.authenticate(read), Principal) if read else False


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

    assert first.nonce != second.nonce
    assert first.form_token != second.form_token
    assert first.form_token not in first.text


async def test_changed_session_is_none(embedded_store, nodes):
    key, other = await stored_key(embedded_store), await stored_key(embedded_store)
    session = await nodes[0].signs_in(key)

    for changed in (
        replace(session, began=session.began + 1),
        replace(session, nonce="A" * 43),
        replace(session, mac=bytes(32)),
        replace(session, key_id=other.split("_")[1]),
        replace(session, key_id="aaaaaaaa"),
    ):
        assert not await nodes[0].takes(changed)
    for text in ("", "x", session.text[:-1], f"{session.text}\n", session.text.replace(".", "_"), key):
        assert Session.of(text) is None


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
