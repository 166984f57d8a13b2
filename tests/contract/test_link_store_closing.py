"""An event loop ends although PostgreSQL is silent, wherever opening or closing the store was cancelled."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from app.adapters.postgres.store import PostgresStore
from app.domain.errors import Unavailable
from app.domain.link import LinkFields, NewLink, Slug

# The driver waits two seconds for the answer to a connection, and the pool five for its tasks.
_ENDS_WITHIN_S = 20.0
# A task that is cancelled before its first step does nothing at all.
_STEPS = range(1, 30)
_NOW = datetime(2030, 1, 31, tzinfo=UTC)


@pytest.fixture
def silent_url() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        yield f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/d"


async def opening(url: str, steps: int) -> None:
    task = asyncio.create_task(PostgresStore.open(url))
    await _cancelled_after(steps, task)
    with suppress(asyncio.CancelledError):
        await (await task).aclose()


async def closing_with_a_read(url: str, steps: int) -> None:
    store = await PostgresStore.open(url, wait_timeout_s=0.5)
    await _closed(store, asyncio.create_task(store.ping()), steps)


async def closing_with_a_write(url: str, steps: int) -> None:
    store = await PostgresStore.open(url, wait_timeout_s=0.5)
    new = NewLink(slug=Slug("aaa"), fields=LinkFields(long_url="https://example.com/"))
    await _closed(store, asyncio.create_task(store.add([new], now=_NOW)), steps)


async def _closed(store: PostgresStore, call: asyncio.Task[object], steps: int) -> None:
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(store.aclose())
    await _cancelled_after(steps, closing)
    with suppress(asyncio.CancelledError):
        await closing
    with suppress(Unavailable):
        await call


async def _cancelled_after(steps: int, task: asyncio.Task[object]) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()


@pytest.mark.parametrize("story", [opening, closing_with_a_read, closing_with_a_write])
def test_loop_ends_wherever_it_was_cancelled(
    silent_url: str, story: Callable[[str, int], Awaitable[None]]
) -> None:
    async def main() -> None:
        await asyncio.gather(*(story(silent_url, steps) for steps in _STEPS))

    thread = threading.Thread(target=asyncio.run, args=[main()], daemon=True)
    thread.start()
    thread.join(_ENDS_WITHIN_S)

    assert not thread.is_alive()
