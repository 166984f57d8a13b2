"""Supervised AMQP connections: no leaks over weeks, and a bounded close."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from aio_pika.abc import AbstractConnection
from aio_pika.tools import OneShotCallback

from app.adapters.rabbitmq.bus import RabbitBus
from app.adapters.rabbitmq.connection import SupervisedConnection, open_channel
from app.domain.errors import Unavailable
from app.domain.events import Event, WorkQueue
from tests.contract.bus_parties import (
    RETRY_DELAYS_S,
    Broker,
    Handler,
    changed,
    counted,
    is_up,
    until,
    was_called,
)

pytestmark = pytest.mark.services


def left_behind() -> int:
    """Return how many channel callbacks are registered until their connection ends."""
    gc.collect()
    return sum(isinstance(found, OneShotCallback) for found in gc.get_objects())


def open_sockets() -> int:
    """Return how many sockets this process has open."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the folder
            links.append(descriptor.readlink())
    return sum(str(link).startswith("socket:") for link in links)


async def is_answered(bus: RabbitBus) -> bool:
    """Return whether the broker tells its depths: one that is busy beside others may lose its connection."""
    try:
        await bus.depths()
    except Unavailable:
        return False
    return True


async def test_probes_leak_nothing_on_a_connection(broker: Broker) -> None:
    """A channel opened through aio_pika leaks 4 KiB, at every probe, until the connection ends."""
    bus = RabbitBus(broker.server.url, probe_s=0.001)
    try:
        await until(lambda: is_up(bus))
        await bus.consume(WorkQueue.CACHE, Handler())
        await until(lambda: is_up(bus))
        before = left_behind()
        for _ in range(10):
            await until(lambda: is_answered(bus))
            await asyncio.sleep(0.01)

        assert left_behind() <= before
    finally:
        await bus.aclose()


async def test_close_is_bounded_with_a_full_send_buffer(broker: Broker) -> None:
    """The kernel's buffers are full, and the broker reads nothing: the socket is aborted, not flushed."""
    is_ready, go = asyncio.Event(), asyncio.Event()

    async def session(connection: AbstractConnection, ready: Callable[[], None]) -> None:
        channel = await open_channel(connection)
        ready()
        is_ready.set()
        await go.wait()
        for _ in range(30):
            # Its abstract class does not have *wait*.
            await channel.basic_publish(bytes(300_000), routing_key="nowhere", wait=False)  # type: ignore[call-arg]
        await asyncio.Event().wait()

    before = open_sockets()
    connection = SupervisedConnection(broker.server.url, "full", session)
    connection.start()
    async with asyncio.timeout(10):
        await is_ready.wait()
    broker.server.pause()
    try:
        go.set()
        await asyncio.sleep(0.5)
        async with asyncio.timeout(10):
            await connection.aclose()
        await until(lambda: open_sockets() == before, within_s=2)
    finally:
        broker.server.resume()


async def test_lost_connection_leaves_one_feeder(broker: Broker) -> None:
    """A session is cancelled while its handler runs; the handler has to end before the next session."""
    bus = RabbitBus(broker.server.url, retry_delays_s=RETRY_DELAYS_S, probe_s=0.05, random=lambda: 0.1)

    async def slowly_away(_: Sequence[Event]) -> None:
        await asyncio.sleep(0.5)
        raise Unavailable("redis", "is away")

    def feeders() -> int:
        return sum("Consumer._feed" in repr(task.get_coro()) for task in asyncio.all_tasks())

    handler = Handler(slowly_away)
    try:
        await bus.consume(WorkQueue.CACHE, handler)
        await until(lambda: is_up(bus))
        await bus.publish([changed(1)])
        for _ in range(3):
            calls = len(handler.calls)
            await asyncio.to_thread(broker.server.ctl, "close_all_connections", "testing")
            await until(partial(was_called, handler, calls + 1))
            await until(lambda: is_up(bus))

            assert feeders() == 1
    finally:
        await bus.aclose()
    assert feeders() == 0


async def test_stopped_consumer_does_not_reconnect(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """One consumer stops at once, the other has a batch to finish: neither may reconnect meanwhile."""
    caplog.set_level(logging.INFO)
    bus = RabbitBus(broker.server.url, retry_delays_s=RETRY_DELAYS_S, random=lambda: 0.1)
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(_: Sequence[Event]) -> None:
        begun.set()
        await release.wait()

    links, clicks = Handler(), Handler(slow)
    await bus.consume(WorkQueue.CACHE, links)
    await bus.consume(WorkQueue.CLICKS, clicks)
    await until(lambda: is_up(bus))
    await bus.publish([counted(1)])
    await begun.wait()
    closing = asyncio.create_task(bus.aclose())
    await asyncio.sleep(0.5)
    release.set()
    async with asyncio.timeout(5):
        await closing

    assert clicks.seen == [counted(1)]
    assert "rabbitmq connection" not in caplog.text
