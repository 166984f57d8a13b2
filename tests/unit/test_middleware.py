"""Authentication behind a shared address: a neighbour's invalid keys lock out no valid one."""

from __future__ import annotations

import time

import pytest

from app.adapters.native_limiter import NativeRateLimiter
from app.domain.errors import Overloaded
from app.ports import Policy
from app.resilience.admission import AdmissionController, WorkKind
from app.service import keys
from app.service.keys import Authenticator, Scope
from app.web.endpoint import Endpoint, Operation
from app.web.middleware import ApiMiddleware
from app.web.request import Request
from app.web.response import empty_response
from tests.conftest import NOW
from tests.unit.services import CountingStore

NAT = "198.51.100.7"
BUDGET = 10


@pytest.fixture
def store(embedded_store):
    return CountingStore(embedded_store)


async def done(_call):
    return empty_response(204)


async def overloaded(_call):
    raise Overloaded


@pytest.fixture
def ask(store, monotonic):
    """Send a request with a key, and return the status of the answer."""
    return asking(store, monotonic, done)


def asking(store, monotonic, handler):
    limits = {**dict.fromkeys(Policy, "1000000/s burst 1000000"), Policy.ANONYMOUS: f"{BUDGET}/d"}
    middleware = ApiMiddleware(
        limiter=NativeRateLimiter(limits),
        authenticator=Authenticator(store, monotonic=monotonic),
        admission=AdmissionController(monotonic=time.monotonic),
        on_error=lambda _: None,
    )

    operation = Operation(
        summary="", scope=Scope.LINKS_READ, work=WorkKind.LIST, deadline_s=5.0, success=(204, None)
    )
    endpoint = getattr(middleware.endpoint(operation)(handler), "endpoint", None)
    assert isinstance(endpoint, Endpoint)

    async def ask(text: str) -> int:
        request = Request(
            method="GET",
            path_params={},
            query_string="",
            query={},
            repeated={},
            headers={"authorization": f"Bearer {text}"} if text else {},
            body=b"",
            client=NAT,
        )
        return (await endpoint.handle(request)).status

    return ask


@pytest.fixture
def key(embedded_store, choice):
    async def key() -> str:
        text, record = keys.issue("x", frozenset({Scope.LINKS_READ}), now=NOW, choice=choice)
        await embedded_store.add_key(record)
        return text

    return key


def unknown(choice) -> str:
    return keys.issue("x", frozenset(), now=NOW, choice=choice)[0]


@pytest.mark.parametrize("bad", ["x", "", "unknown"])
async def test_valid_key_passes_beside_invalid_ones(ask, key, choice, bad):
    used, unused = await key(), await key()
    assert await ask(used) == 204

    neighbour = [await ask(unknown(choice) if bad == "unknown" else bad) for _ in range(3 * BUDGET)]

    assert neighbour == [401] * BUDGET + [429] * (2 * BUDGET)
    assert [await ask(used) for _ in range(2 * BUDGET)] == [204] * (2 * BUDGET)
    assert [await ask(unused) for _ in range(2 * BUDGET)] == [204] * (2 * BUDGET)


async def test_invalid_keys_cost_bounded_look_ups(ask, key, store, choice):
    await key()

    for _ in range(20 * BUDGET):
        await ask(unknown(choice))

    assert store.calls["get_key"] == BUDGET
    assert store.calls["list_keys"] == 1


async def test_revoked_key_is_limited_like_an_invalid_one(ask, key, embedded_store, monotonic):
    text = await key()
    assert await ask(text) == 204
    await embedded_store.revoke_key(text.split("_")[1], now=NOW)
    monotonic.now += 1.0

    statuses = [await ask(text) for _ in range(3 * BUDGET)]

    assert statuses == [401] * (BUDGET + 1) + [429] * (2 * BUDGET - 1)


async def test_handler_without_room_is_answered_by_503(store, monotonic, key):
    assert await asking(store, monotonic, overloaded)(await key()) == 503
