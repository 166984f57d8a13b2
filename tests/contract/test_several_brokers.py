"""Several hosts in the URL of RabbitMQ, each a way to a real broker: the next is used when one is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from app.adapters.rabbitmq.bus import RabbitBus
from app.domain.events import WorkQueue
from tests.contract.bus_parties import (
    RETRY_DELAYS_S,
    Broker,
    Handler,
    changed,
    is_up,
    publish_timed,
    until,
)
from tests.servers.ports import free_ports
from tests.servers.proxy import GOOD, SILENT, FaultProxy, Network

pytestmark = pytest.mark.services


@pytest.fixture
async def ways(broker: Broker) -> AsyncIterator[list[FaultProxy]]:
    with (
        FaultProxy(broker.server.port, speaks_amqp=True) as one,
        FaultProxy(broker.server.port, speaks_amqp=True) as other,
    ):
        yield [one, other]


def url(broker: Broker, *ports: int) -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return broker.server.url.replace(f"127.0.0.1:{broker.server.port}", hosts)


async def test_first_host_may_be_away_from_the_start(broker, ways):
    [closed] = free_ports(1)
    bus = RabbitBus(url(broker, closed, ways[0].port), retry_delays_s=RETRY_DELAYS_S)
    try:
        await until(lambda: is_up(bus))
        assert await publish_timed(bus, changed(1))
    finally:
        await bus.aclose()


@pytest.mark.timeout(120)  # silence is noticed by heartbeats, after 12 s
@pytest.mark.parametrize("lost", [Network(refuse=True), SILENT], ids=["refused", "silent"])
async def test_events_go_on_through_the_next_host(broker, ways, lost):
    bus = RabbitBus(url(broker, *(way.port for way in ways)), retry_delays_s=RETRY_DELAYS_S)
    handler = Handler()
    try:
        await until(lambda: is_up(bus))
        await bus.consume(WorkQueue.CACHE, handler)
        # The first is back when the second is lost.
        for number, way in enumerate(ways):
            way.become(lost)
            if lost.refuse:
                way.reset()
            await until(partial(publish_timed, bus, changed(number)), within_s=30)
            await until(partial(_has_seen, handler, number))
            way.become(GOOD)
    finally:
        await bus.aclose()


def _has_seen(handler: Handler, number: int) -> bool:
    return changed(number) in handler.seen
