"""The bus within one process: what the contract leaves open."""

from __future__ import annotations

import asyncio

from app.adapters.memory.bus import InProcessBus
from app.domain.errors import Unavailable
from app.domain.events import WorkQueue
from tests.contract.bus_parties import (
    Handler,
    changed,
    counted,
    failing,
    is_empty,
    until,
)


async def test_inprocess_is_bounded() -> None:
    """`publish` returns False for events that do not fit."""
    bus = InProcessBus(max_events=3)

    assert list(await bus.publish([changed(n) for n in range(5)])) == [True] * 3 + [False] * 2
    assert list(await bus.publish([changed(9)])) == [False]
    await bus.consume(WorkQueue.CACHE, Handler())
    await until(lambda: is_empty(bus))
    assert list(await bus.publish([changed(9)])) == [True]
    await bus.aclose()


async def test_inprocess_retry_delays() -> None:
    """The delays grow; the last one repeats."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    bus, handler = InProcessBus(sleep=sleep), failing(ValueError, on=changed(1))
    await bus.consume(WorkQueue.CACHE, handler)
    await bus.publish([changed(1)])
    await until(lambda: bus.dead_letters)

    assert slept == [1, 10, 60, 60, 60]
    assert bus.dead_letters[0].event == changed(1)
    assert bus.dead_letters[0].reason.startswith("ValueError")
    await bus.aclose()


async def test_inprocess_pause_doubles_to_a_second() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))

    bus = InProcessBus(sleep=sleep)
    await bus.consume(WorkQueue.CACHE, failing(lambda: Unavailable("redis", "down"), on=changed(1), times=9))
    await bus.publish([changed(1)])
    await until(lambda: is_empty(bus) if len(slept) == 9 else False)

    assert slept == [0.1, 0.2, 0.4, 0.8, 1, 1, 1, 1, 1]
    await bus.aclose()


async def test_inprocess_close_handles_pending_clicks() -> None:
    """Changes are in the outbox; pending clicks are kept nowhere else."""
    bus, clicks, links = InProcessBus(), Handler(lambda events: asyncio.sleep(0)), Handler()
    await bus.consume(WorkQueue.CLICKS, clicks)
    await bus.publish([counted(n) for n in range(450)])
    await bus.publish([changed(1)])

    await bus.aclose()

    assert clicks.seen == [counted(n) for n in range(450)]
    assert links.seen == []
