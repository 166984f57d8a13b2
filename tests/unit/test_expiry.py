from __future__ import annotations

import asyncio
import socket
import time

import pytest

from app.concurrency.expiry import Expiry


async def limited(expiry: Expiry, work) -> str:
    call = expiry.start()
    try:
        await work
    except asyncio.CancelledError:
        if expiry.stop(call):
            return "expired"
        raise
    return "too late" if expiry.stop(call) else "done"


def cancelling() -> int:
    """Return how many cancellations of this task are under way."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def never() -> None:
    await asyncio.Event().wait()


async def test_only_long_calls_expire():
    expiry = Expiry(0.05)

    results = await asyncio.gather(
        limited(expiry, never()), limited(expiry, asyncio.sleep(0)), limited(expiry, never())
    )

    assert list(results) == ["expired", "done", "expired"]


async def test_later_calls_expire_later():
    expiry, loop = Expiry(0.1), asyncio.get_running_loop()
    first = asyncio.create_task(limited(expiry, never()))
    await asyncio.sleep(0.05)
    began = loop.time()

    assert [await first, await limited(expiry, never())] == ["expired", "expired"]
    assert loop.time() - began >= 0.099


async def test_foreign_cancellation_is_kept():
    """Also with expiry at the same moment: an abandoned request must not go on."""
    expiry = Expiry(0.01)
    task = asyncio.create_task(limited(expiry, never()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    def both() -> None:
        task.cancel()

    task = asyncio.create_task(limited(expiry, never()))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(next(iter(expiry._calls)).end, both)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_task_continues_after_expiry():
    expiry = Expiry(0.01)

    assert await limited(expiry, never()) == "expired"
    assert cancelling() == 0
    async with asyncio.timeout(5):
        await asyncio.sleep(0)


async def test_call_that_suppresses_cancellation_completes():
    async def stubborn() -> None:
        try:
            await never()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    assert await limited(Expiry(0.01), stubborn()) == "too late"
    assert cancelling() == 0


def keep_busy(seconds: float) -> None:
    """Hold up the event loop, as a crowd of new requests does."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def test_busy_loop_extends_calls():
    """The reply was there in time; the busy loop had not read it."""
    expiry, loop = Expiry(0.02), asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        asking = asyncio.create_task(limited(expiry, loop.sock_recv(ours, 1)))
        await asyncio.sleep(0)
        theirs.send(b"x")
        keep_busy(0.1)

        assert await asking == "done"


async def test_silent_call_expires_after_a_busy_loop():
    expiry = Expiry(0.02)
    asking = asyncio.create_task(limited(expiry, never()))
    await asyncio.sleep(0)
    keep_busy(0.1)

    async with asyncio.timeout(10):
        assert await asking == "expired"
