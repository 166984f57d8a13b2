from __future__ import annotations

import asyncio
import hashlib

import pytest

from app.domain.errors import InvalidInput
from app.service import keys
from app.service.keys import Authenticator, Scope
from tests.conftest import NOW
from tests.unit.services import CountingStore


@pytest.fixture
async def issued(embedded_store, choice):
    text, record = keys.issue("test", frozenset({Scope.LINKS_READ}), now=NOW, choice=choice)
    await embedded_store.add_key(record)
    return text, record


async def test_issued_key_authenticates_with_its_scopes(embedded_store, issued, monotonic):
    principal = await Authenticator(embedded_store, monotonic=monotonic).authenticate(issued[0])

    assert isinstance(principal, keys.Principal)
    assert principal.may(Scope.LINKS_READ)
    assert not principal.may(Scope.LINKS_WRITE)


def test_only_a_hash_is_stored(choice):
    text, record = keys.issue("test", frozenset(), now=NOW, choice=choice)

    secret = text.split("_")[2]
    assert record.secret_hash == hashlib.sha256(secret.encode()).digest()
    assert secret not in repr(record)


def test_admin_has_every_scope(choice):
    principal = keys.Principal("x", frozenset({"admin"}))

    assert all(principal.may(scope) for scope in Scope)


async def test_altered_key_is_refused(embedded_store, issued, monotonic):
    """One character more, less or different, at any position."""
    text = issued[0]
    authenticator = Authenticator(embedded_store, monotonic=monotonic)
    altered = [text[:i] + ("a" if text[i] != "a" else "b") + text[i + 1 :] for i in range(len(text))]
    altered += [
        text[:-1],
        text + "a",
        "",
        "hg_",
        "null",
        "0",
        text.upper(),
        text + "\n",
        f" {text}",
        "é" * 60,
    ]

    assert [one for one in altered if await authenticator.authenticate(one) is not None] == []


async def test_secret_of_another_key_is_refused(embedded_store, issued, monotonic, choice):
    """The checksum is valid and the id exists, but the secret belongs to another key."""
    _, mine, _, _ = issued[0].split("_")
    other, _ = keys.issue("other", frozenset(), now=NOW, choice=choice)
    body = f"hg_{mine}_{other.split('_')[2]}"
    forged = f"{body}_{keys._checksum(body)}"

    assert await Authenticator(embedded_store, monotonic=monotonic).authenticate(forged) is None


async def test_revoked_key_stops_working_within_a_second(embedded_store, issued, monotonic):
    text, record = issued
    authenticator = Authenticator(embedded_store, monotonic=monotonic)
    assert await authenticator.authenticate(text) is not None

    await embedded_store.revoke_key(record.key_id, now=NOW)
    monotonic.now += 1.0

    assert await authenticator.authenticate(text) is None


def test_unknown_scopes_are_named():
    with pytest.raises(InvalidInput, match="links:steal"):
        keys.parse_scopes(["links:read", "links:steal"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *[("a\nb", "has a line break"), ("a\u2028b", "has a line break")],
        *[("\x1b[2J", "U\\+001B"), ("a\x9bb", "U\\+009B"), ("caf\udce9", "is not UTF-8"), ("\t", "U\\+0009")],
        ("x" * 513, "is 513 characters, the most is 512"),
        *[
            (name, "has nothing to read")
            for name in ("", " ", "\u00a0\u2003", "\u200b\u202e", "\u3000\ufeff")
        ],
    ],
)
def test_name_that_says_nothing_is_refused(choice, name, why):
    with pytest.raises(InvalidInput, match=f"^name: .*{why}"):
        keys.issue(name, frozenset(), now=NOW, choice=choice)


@pytest.mark.parametrize("name", ["x", "naïve 🙂", "☃", "x" * 512])
def test_printable_name_is_accepted(choice, name):
    assert keys.issue(name, frozenset(), now=NOW, choice=choice)[1].name == name


async def test_thousand_requests_with_one_key_read_it_once(embedded_store, issued, monotonic):
    store = CountingStore(embedded_store)
    authenticator = Authenticator(store, monotonic=monotonic)

    store.open.clear()
    asked = [asyncio.create_task(authenticator.authenticate(issued[0])) for _ in range(1000)]
    await asyncio.sleep(0)
    store.open.set()

    assert None not in await asyncio.gather(*asked)
    assert store.calls["get_key"] == 1


def forged(choice, *, key_id=None):
    """A text with a valid checksum, of a key that does not exist."""
    text, _ = keys.issue("forged", frozenset(), now=NOW, choice=choice)
    _, own, secret, _ = text.split("_")
    body = f"hg_{key_id or own}_{secret}"
    return f"{body}_{keys._checksum(body)}"


async def test_used_key_was_valid_until_revoked(embedded_store, issued, monotonic, choice):
    text, record = issued
    authenticator = Authenticator(embedded_store, monotonic=monotonic)
    assert not authenticator.was_valid(text)

    await authenticator.authenticate(text)
    monotonic.now += 3600.0
    assert authenticator.was_valid(text)
    assert not authenticator.was_valid(forged(choice, key_id=record.key_id))

    await embedded_store.revoke_key(record.key_id, now=NOW)
    assert await authenticator.authenticate(text) is None
    assert not authenticator.was_valid(text)


async def test_invalid_keys_evict_no_valid_one(embedded_store, issued, monotonic, choice, monkeypatch):
    monkeypatch.setattr(keys, "_MAX_CACHED", 3)
    authenticator = Authenticator(embedded_store, monotonic=monotonic)
    await authenticator.authenticate(issued[0])

    for _ in range(10):
        await authenticator.authenticate(forged(choice))

    assert authenticator.was_valid(issued[0])


async def test_list_of_keys_is_read_once_a_second(embedded_store, issued, monotonic, choice):
    store = CountingStore(embedded_store)
    authenticator = Authenticator(store, monotonic=monotonic)

    listed = await asyncio.gather(*(authenticator.is_listed(forged(choice)) for _ in range(50)))
    assert not any(listed)
    assert await authenticator.is_listed(issued[0])
    assert store.calls == {"list_keys": 1}

    monotonic.now += 1.0
    await embedded_store.revoke_key(issued[1].key_id, now=NOW)
    assert not await authenticator.is_listed(issued[0])
    assert store.calls == {"list_keys": 2}


async def test_key_is_not_listed_without_the_store(embedded_store, issued, monotonic):
    store = CountingStore(embedded_store)
    store.away = True

    assert not await Authenticator(store, monotonic=monotonic).is_listed(issued[0])
