"""RabbitMQ that is away, silent, alarmed or killed, and queues and workers that vanish."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence

import aio_pika
import pytest

from app.adapters import amqp_consumer
from app.adapters.amqp_link import Link
from app.adapters.bus_rabbitmq import RabbitBus
from app.domain.errors import Unavailable
from app.domain.events import Event
from app.wire import CACHE_QUEUE, retry_queue
from tests.contract.bus_parties import (
    RETRY_DELAYS_S,
    Broker,
    Handler,
    Listener,
    MakeBus,
    changed,
    failing,
    is_empty,
    is_up,
    publish_timed,
    until,
)
from tests.servers.rabbitmq import PrivateRabbit


async def test_without_a_broker_nothing_is_taken_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Returns False at once, never raises; and the password is in no log."""
    caplog.set_level(logging.DEBUG)
    bus = RabbitBus("amqp://me:hush%21hush@127.0.0.1:1/", random=lambda: 0.0)
    loop = asyncio.get_running_loop()
    start = loop.time()
    for n in range(20):
        assert not await publish_timed(bus, changed(n))
        await asyncio.sleep(0.001)
    assert loop.time() - start < 0.5
    for call in (bus.ping(), bus.depths(), bus.announce([changed(1)])):
        with pytest.raises(Unavailable):
            await call
    await bus.listen(Listener())
    await bus.consume(Handler())
    await asyncio.sleep(0.05)
    async with asyncio.timeout(1):
        await bus.aclose()

    assert "was lost" in caplog.text
    assert "hush" not in caplog.text


async def test_reconnecting_uses_full_jitter() -> None:
    """0.2 s doubling to 2 s, each times a random number."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    bus = RabbitBus("amqp://127.0.0.1:1/", sleep=sleep, random=lambda: 0.5)
    bus.start()
    await until(lambda: len(slept) >= 9)
    await bus.aclose()

    assert slept[:9] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.services
async def test_a_deleted_queue_is_repaired(make_rabbit: MakeBus, broker: Broker) -> None:
    """Unroutable is False, not silence; then everything is declared anew."""
    bus = await make_rabbit()
    await broker.delete(CACHE_QUEUE)

    assert not await publish_timed(bus, changed(1))
    await until(lambda: publish_timed(bus, changed(2)))
    assert (await bus.depths())[CACHE_QUEUE] == 1


@pytest.mark.services
async def test_a_queue_deleted_under_its_consumer(make_rabbit: MakeBus, broker: Broker) -> None:
    """It is declared anew and consumed again, whether the broker cancels the consumer or not."""
    bus, handler = await make_rabbit(), Handler()
    await bus.consume(handler)
    await until(lambda: is_up(bus))
    await broker.delete(CACHE_QUEUE)

    await until(lambda: publish_timed(bus, changed(1)), within_s=5)
    await until(lambda: changed(1) in handler.seen, within_s=10)


@pytest.mark.services
async def test_who_gets_nothing_consumes_anew_and_misses_nothing(
    make_rabbit: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp_consumer, "_RENEW_S", 0.01)
    bus, other, handler = await make_rabbit(), await make_rabbit(), Handler()
    await bus.consume(handler)
    await until(lambda: is_up(bus))

    for n in range(200):
        await other.publish([changed(n)])
        await asyncio.sleep(0.01 * (n % 4))

    await until(lambda: {changed(n) for n in range(200)} <= set(handler.seen))
    await until(lambda: is_empty(bus))


@pytest.mark.services
async def test_closed_connections_come_back(make_rabbit: MakeBus, broker: Broker) -> None:
    """Listeners hear of the gap; the handler goes on; unacknowledged events come again."""
    bus, listener = await make_rabbit(), Listener()
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(events: Sequence[Event]) -> None:
        begun.set()
        await release.wait()

    handler = Handler(slow)
    await bus.listen(listener)
    await bus.consume(handler)
    await until(lambda: listener.gaps == 1)
    await bus.publish([changed(1)])
    await begun.wait()
    await asyncio.to_thread(broker.server.ctl, "close_all_connections", "testing")
    await until(lambda: listener.gaps == 2, within_s=5)
    release.set()

    # Its acknowledgement went nowhere, so it is given again.
    await until(lambda: handler.seen.count(changed(1)) == 2, within_s=5)
    assert handler.most_running == 1
    await until(lambda: is_up(bus), within_s=5)
    await bus.announce([changed(2)])
    await until(lambda: changed(2) in listener.changes)
    assert await publish_timed(bus, changed(3))
    await until(lambda: changed(3) in handler.seen)


@pytest.mark.services
async def test_an_alarmed_broker(make_rabbit: MakeBus, broker: Broker) -> None:
    """It accepts connections but confirms nothing: False within 2 s; consuming goes on."""
    bus, handler = await make_rabbit(), Handler()
    await bus.consume(handler)
    await until(lambda: is_up(bus))
    await asyncio.to_thread(broker.server.ctl, "set_vm_memory_high_watermark", "0")
    try:
        assert not await publish_timed(bus, changed(1))
        results = await asyncio.gather(*(publish_timed(bus, changed(n)) for n in range(2, 30)))
        assert not any(results)
    finally:
        await asyncio.to_thread(broker.server.ctl, "set_vm_memory_high_watermark", "absolute", "1000000000")

    await until(lambda: publish_timed(bus, changed(99)), within_s=5)
    await until(lambda: changed(99) in handler.seen, within_s=5)


@pytest.mark.services
async def test_a_silent_broker(make_rabbit: MakeBus, broker: Broker) -> None:
    """Stopped in its tracks: False within 2 s; closing does not hang."""
    bus, other = await make_rabbit(), await make_rabbit()
    await other.consume(Handler())
    await until(lambda: is_up(other))
    broker.server.pause()
    try:
        assert not await publish_timed(bus, changed(1))
        assert not await publish_timed(bus, changed(2))
        async with asyncio.timeout(8):
            await other.aclose()
    finally:
        broker.server.resume()
    await until(lambda: publish_timed(bus, changed(3)), within_s=8)


@pytest.fixture
def mortal() -> Iterator[PrivateRabbit]:
    """A broker of its own: one that was killed on a busy machine may not be whole again for others."""
    with PrivateRabbit() as server:
        yield server


@pytest.mark.services
@pytest.mark.timeout(120)
async def test_nothing_confirmed_is_lost_when_the_broker_dies(mortal: PrivateRabbit) -> None:
    """The ledger: everything that was answered with True is handled, whatever died between."""
    bus, worker = (RabbitBus(mortal.url, retry_delays_s=RETRY_DELAYS_S, random=lambda: 0.1) for _ in range(2))
    handler = Handler()
    await worker.consume(handler)
    await until(lambda: is_up(bus))
    confirmed: set[Event] = set()
    numbers = itertools.count()
    is_publishing = True

    async def publish() -> None:
        while is_publishing:
            events = [changed(next(numbers)) for _ in range(5)]
            taken = await bus.publish(events)
            confirmed.update(event for event, ok in zip(events, taken, strict=True) if ok)
            await asyncio.sleep(0.01)

    publishers = [asyncio.create_task(publish()) for _ in range(3)]
    await until(lambda: len(confirmed) > 200)
    # RabbitMQ writes its directory of queues with a delay: a queue that is younger than that
    # when the node is killed does not come up again.
    await asyncio.sleep(1.5)
    mortal.kill()
    assert not await publish_timed(bus, changed(next(numbers)))
    await asyncio.to_thread(mortal.start)
    before = len(confirmed)
    await until(lambda: len(confirmed) > before + 100, within_s=8)
    is_publishing = False
    await asyncio.gather(*publishers)

    await until(lambda: confirmed <= set(handler.seen), within_s=10)
    await until(lambda: is_empty(bus))
    await asyncio.gather(bus.aclose(), worker.aclose())


@pytest.mark.services
async def test_a_retry_that_the_broker_does_not_take_is_not_forgotten(
    make_rabbit: MakeBus, broker: Broker
) -> None:
    """Never acknowledged before it is confirmed elsewhere."""
    bus, handler = await make_rabbit(), failing(ValueError, on=changed(1), times=1)
    await bus.consume(handler)
    await until(lambda: is_up(bus))
    # What fails is routed nowhere until the topology is declared again.
    await broker.delete(retry_queue(RETRY_DELAYS_S[0]))
    await bus.publish([changed(1)])

    await until(lambda: handler.seen.count(changed(1)) >= 2)
    await until(lambda: is_empty(bus))


@pytest.mark.services
async def test_a_silent_broker_is_noticed_on_connections_that_only_receive(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """A consumer and a listener send nothing that could fail; heartbeats alone would take 18 s."""
    bus, listener = RabbitBus(broker.server.url, probe_s=0.1, random=lambda: 0.1), Listener()

    def lost(link: str) -> bool:
        return f"RabbitMQ link {link} was lost" in caplog.text

    try:
        await bus.consume(Handler())
        await bus.listen(listener)
        await until(lambda: is_up(bus))
        await until(lambda: listener.gaps == 1)
        broker.server.pause()
        try:
            # Each by itself: one that the broker answers in the last moment has missed nothing.
            await until(lambda: lost(f"consumer of {CACHE_QUEUE}") and lost("listener"), within_s=6)
        finally:
            broker.server.resume()

        # What was announced meanwhile is lost to a listener, so it has to hear of the gap.
        await until(lambda: listener.gaps >= 2)
        await until(lambda: is_up(bus))
    finally:
        await bus.aclose()


@pytest.mark.services
@pytest.mark.parametrize("deaths", [2, 3])
async def test_what_was_delivered_to_dead_workers_is_given_one_by_one_from_either_end(
    make_rabbit: MakeBus, broker: Broker, deaths: int
) -> None:
    """One of them may be what kills; those before it and behind it must not be parked with it."""
    bus, handler = await make_rabbit(), Handler()
    await until(lambda: is_up(bus))
    events = [changed(n) for n in range(5)]
    assert all(await bus.publish(events))
    for _ in range(deaths):
        connection = await aio_pika.connect(broker.server.url)
        queue = await (await connection.channel()).get_queue(CACHE_QUEUE, ensure=False)
        for _ in events:
            await until(lambda queue=queue: queue.get(fail=False, timeout=5))
        await connection.close()

    await bus.consume(handler)
    await until(lambda: len(handler.calls) == len(events))

    assert handler.calls == [[event] for event in (events if deaths % 2 == 0 else events[::-1])]
    await until(lambda: is_empty(bus))


@pytest.mark.services
async def test_a_session_that_never_becomes_ready_is_begun_anew(broker: Broker) -> None:
    """It waits for an answer that got lost, and cancelling it is not enough: the connection has to go."""
    begun, is_ready = [], asyncio.Event()

    async def session(connection: aio_pika.abc.AbstractConnection, ready: Callable[[], None]) -> None:
        begun.append(connection)
        if len(begun) == 1:
            while not connection.is_closed:
                with contextlib.suppress(asyncio.CancelledError):
                    await connection.closed()
            return
        ready()
        is_ready.set()
        await asyncio.Event().wait()

    link = Link(broker.server.url, "stuck", session, setup_s=0.2, random=lambda: 0.1)
    link.start()
    async with asyncio.timeout(10):
        await is_ready.wait()
    await link.aclose()

    assert begun[0] is not begun[1]
    assert begun[0].is_closed


@pytest.mark.services
async def test_a_session_that_lost_its_cancellation_ends_with_its_connection(broker: Broker) -> None:
    """`asyncio.wait_for`, which the library uses, drops one that comes together with an answer."""
    is_ready = asyncio.Event()

    async def session(connection: aio_pika.abc.AbstractConnection, ready: Callable[[], None]) -> None:
        ready()
        is_ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await connection.closed()

    link = Link(broker.server.url, "deaf", session)
    link.start()
    async with asyncio.timeout(10):
        await is_ready.wait()
        await link.aclose()
