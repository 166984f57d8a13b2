"""Connections that last for weeks, and end when they are told to."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Sequence

import pytest
from aio_pika.abc import AbstractConnection, OneShotCallback

from app.adapters.amqp_link import Link, open_channel
from app.adapters.bus_rabbitmq import RabbitBus
from app.domain.errors import Unavailable
from app.domain.events import Event
from tests.contract.bus_parties import RETRY_DELAYS_S, Broker, Handler, changed, counted, is_up, until

pytestmark = pytest.mark.services


def left_behind() -> int:
    """How many callbacks of channels are still waiting for their connection to end."""
    gc.collect()
    return sum(isinstance(found, OneShotCallback) for found in gc.get_objects())


async def test_being_asked_leaves_nothing_on_a_connection(broker: Broker) -> None:
    """A channel opened through aio_pika leaves 4 KiB, every few seconds, until the connection ends."""
    bus = RabbitBus(broker.server.url, probe_s=0.001)
    try:
        await until(lambda: is_up(bus))
        await bus.consume(Handler())
        await until(lambda: is_up(bus))
        before = left_behind()
        for _ in range(10):
            await bus.depths()
            await asyncio.sleep(0.01)

        assert left_behind() <= before
    finally:
        await bus.aclose()


async def test_closing_does_not_wait_for_a_peer_that_takes_nothing(broker: Broker) -> None:
    """More was written than fits into the buffers of the kernel, and the broker stands still."""
    is_ready, go = asyncio.Event(), asyncio.Event()

    async def session(connection: AbstractConnection, ready: Callable[[], None]) -> None:
        channel = await open_channel(connection)
        ready()
        is_ready.set()
        await go.wait()
        for _ in range(30):
            await channel.basic_publish(bytes(300_000), routing_key="nowhere", wait=False)
        await asyncio.Event().wait()

    link = Link(broker.server.url, "full", session)
    link.start()
    async with asyncio.timeout(10):
        await is_ready.wait()
    broker.server.pause()
    try:
        go.set()
        await asyncio.sleep(0.5)
        async with asyncio.timeout(10):
            await link.aclose()
    finally:
        broker.server.resume()


async def test_a_lost_connection_leaves_no_second_feeder(broker: Broker) -> None:
    """The link gives a session up while its handler still runs, and the handler has to end first."""
    bus = RabbitBus(broker.server.url, retry_delays_s=RETRY_DELAYS_S, probe_s=0.05, random=lambda: 0.1)

    async def slowly_away(_: Sequence[Event]) -> None:
        await asyncio.sleep(0.5)
        raise Unavailable("redis", "is away")

    def feeders() -> int:
        return sum("Consumer._feed" in repr(task.get_coro()) for task in asyncio.all_tasks())

    handler = Handler(slowly_away)
    try:
        await bus.consume(handler)
        await until(lambda: is_up(bus))
        await bus.publish([changed(1)])
        for _ in range(3):
            calls = len(handler.calls)
            await asyncio.to_thread(broker.server.ctl, "close_all_connections", "testing")
            await until(lambda calls=calls: len(handler.calls) > calls + 1)
            await until(lambda: is_up(bus))

            assert feeders() == 1
    finally:
        await bus.aclose()
    assert feeders() == 0


async def test_who_stops_consumes_nothing_anew(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """One consumer stops at once, and the other has a batch to finish."""
    caplog.set_level(logging.INFO)
    bus = RabbitBus(broker.server.url, retry_delays_s=RETRY_DELAYS_S, random=lambda: 0.1)
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(_: Sequence[Event]) -> None:
        begun.set()
        await release.wait()

    links, clicks = Handler(), Handler(slow)
    await bus.consume(links)
    await bus.consume_clicks(clicks)
    await until(lambda: is_up(bus))
    await bus.publish([counted(1)])
    await begun.wait()
    closing = asyncio.create_task(bus.aclose())
    await asyncio.sleep(0.5)
    release.set()
    async with asyncio.timeout(5):
        await closing

    assert clicks.seen == [counted(1)]
    assert "was lost" not in caplog.text
