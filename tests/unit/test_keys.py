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


async def test_an_issued_key_is_recognised_with_its_scopes(embedded_store, issued, monotonic):
    principal = await Authenticator(embedded_store, monotonic=monotonic).authenticate(issued[0])

    assert principal is not None
    assert principal.may(Scope.LINKS_READ)
    assert not principal.may(Scope.LINKS_WRITE)


def test_only_a_hash_is_stored(choice):
    text, record = keys.issue("test", frozenset(), now=NOW, choice=choice)

    secret = text.split("_")[2]
    assert record.secret_hash == hashlib.sha256(secret.encode()).digest()
    assert secret not in repr(record)


def test_admin_may_everything(choice):
    principal = keys.Principal("x", frozenset({"admin"}))

    assert all(principal.may(scope) for scope in Scope)


async def test_every_altered_key_is_refused(embedded_store, issued, monotonic):
    """One character more, less or other: 401, wherever it is."""
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


async def test_a_secret_of_another_key_is_refused(embedded_store, issued, monotonic, choice):
    """The checksum holds, the id exists, the secret is somebody else's."""
    _, mine, _, _ = issued[0].split("_")
    other, _ = keys.issue("other", frozenset(), now=NOW, choice=choice)
    body = f"hg_{mine}_{other.split('_')[2]}"
    forged = f"{body}_{keys._checksum(body)}"

    assert await Authenticator(embedded_store, monotonic=monotonic).authenticate(forged) is None


async def test_a_revoked_key_stops_working_within_a_second(embedded_store, issued, monotonic):
    text, record = issued
    authenticator = Authenticator(embedded_store, monotonic=monotonic)
    assert await authenticator.authenticate(text) is not None

    await embedded_store.revoke_key(record.key_id, now=NOW)
    monotonic.now += 1.0

    assert await authenticator.authenticate(text) is None


def test_unknown_scopes_are_named():
    with pytest.raises(InvalidInput, match="links:steal"):
        keys.parse_scopes(["links:read", "links:steal"])


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "a\u2028b", "caf\udce9", "x" * 513])
def test_a_name_that_is_not_one_line_of_text_is_refused(choice, name):
    with pytest.raises(InvalidInput, match="name: must be at most 512 printable characters"):
        keys.issue(name, frozenset(), now=NOW, choice=choice)


@pytest.mark.parametrize("name", ["", "naïve 🙂", "x" * 512])
def test_a_name_may_be_any_line_of_text(choice, name):
    assert keys.issue(name, frozenset(), now=NOW, choice=choice)[1].name == name


async def test_a_thousand_requests_with_one_key_ask_the_store_once(embedded_store, issued, monotonic):
    store = CountingStore(embedded_store)
    authenticator = Authenticator(store, monotonic=monotonic)

    store.open.clear()
    asked = [asyncio.create_task(authenticator.authenticate(issued[0])) for _ in range(1000)]
    await asyncio.sleep(0)
    store.open.set()

    assert None not in await asyncio.gather(*asked)
    assert store.calls["get_key"] == 1
