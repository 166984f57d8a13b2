"""`EventBus` while RabbitMQ is absent, unresponsive, in an alarm or killed; lost queues and workers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import aio_pika
import pytest

from app.adapters.rabbitmq import consumer as rabbitmq_consumer
from app.adapters.rabbitmq.bus import RabbitBus
from app.adapters.rabbitmq.connection import SupervisedConnection
from app.domain.errors import Unavailable
from app.domain.events import Event, WorkQueue
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


async def test_absent_broker_fails_fast_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    """`publish` returns False at once and never raises; no log holds the password."""
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
    await bus.consume(WorkQueue.CACHE, Handler())
    await asyncio.sleep(0.05)
    async with asyncio.timeout(1):
        await bus.aclose()

    assert "rabbitmq connection publisher failed:" in caplog.text
    assert "hush" not in caplog.text


async def test_reconnect_delays_have_full_jitter() -> None:
    """0.2 s doubling to 2 s, each times a random float."""
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
async def test_deleted_queue_is_declared_again(make_rabbit: MakeBus, broker: Broker) -> None:
    """An unroutable event is False; then the topology is declared again."""
    bus = await make_rabbit()
    await broker.delete(CACHE_QUEUE)

    assert not await publish_timed(bus, changed(1))
    await until(lambda: publish_timed(bus, changed(2)))
    assert (await bus.depths())[CACHE_QUEUE] == 1


@pytest.mark.services
async def test_queue_deleted_under_its_consumer_is_consumed_again(
    make_rabbit: MakeBus, broker: Broker
) -> None:
    """Whether the broker cancels the consumer or not."""
    bus, handler = await make_rabbit(), Handler()
    await bus.consume(WorkQueue.CACHE, handler)
    await until(lambda: is_up(bus))
    await broker.delete(CACHE_QUEUE)

    await until(lambda: publish_timed(bus, changed(1)), within_s=5)
    await until(lambda: changed(1) in handler.seen, within_s=10)


@pytest.mark.services
async def test_resubscribing_consumer_misses_no_event(
    make_rabbit: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_consumer, "_RESUBSCRIBE_S", 0.01)
    bus, other, handler = await make_rabbit(), await make_rabbit(), Handler()
    await bus.consume(WorkQueue.CACHE, handler)
    await until(lambda: is_up(bus))

    for n in range(200):
        await other.publish([changed(n)])
        await asyncio.sleep(0.01 * (n % 4))

    await until(lambda: {changed(n) for n in range(200)} <= set(handler.seen))
    await until(lambda: is_empty(bus))


@pytest.mark.services
async def test_closed_connections_are_restored(
    make_rabbit: MakeBus, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Listeners get `on_gap`, the handler continues, unacknowledged events are redelivered."""
    bus, listener = await make_rabbit(), Listener()
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(events: Sequence[Event]) -> None:
        begun.set()
        await release.wait()

    handler = Handler(slow)
    await bus.listen(listener)
    await bus.consume(WorkQueue.CACHE, handler)
    await until(lambda: listener.gaps == 1)
    await bus.publish([changed(1)])
    await begun.wait()
    await asyncio.to_thread(broker.server.ctl, "close_all_connections", "testing")
    await until(lambda: listener.gaps == 2, within_s=5)
    release.set()

    # Its acknowledgement was lost, so it is redelivered.
    await until(lambda: handler.seen.count(changed(1)) == 2, within_s=5)
    assert handler.most_running == 1
    await until(lambda: is_up(bus), within_s=5)
    await bus.announce([changed(2)])
    await until(lambda: changed(2) in listener.changes)
    assert await publish_timed(bus, changed(3))
    await until(lambda: changed(3) in handler.seen)
    for name in ("publisher", "listener", f"consumer of {CACHE_QUEUE}"):
        assert f"rabbitmq connection {name} lost:" in caplog.text
        assert f"rabbitmq connection {name} restored;" in caplog.text


@pytest.mark.services
async def test_listener_that_reconnects_is_reported(broker: Broker) -> None:
    """Without it no announcement arrives, and `on_gap` follows: the bus is not well before."""
    goes_on = asyncio.Event()

    async def sleep(seconds: float) -> None:
        task = asyncio.current_task()
        if task is not None and task.get_name() == "amqp-listener":
            await goes_on.wait()
        await asyncio.sleep(seconds)

    bus, listener = RabbitBus(broker.server.url, random=lambda: 0.1, sleep=sleep), Listener()
    try:
        await bus.listen(listener)
        await until(lambda: is_up(bus))
        assert listener.gaps == 1
        await asyncio.to_thread(broker.server.ctl, "close_all_connections", "testing")
        # The publishing connection is back, so nothing else is missing.
        await until(lambda: publish_timed(bus, changed(1)), within_s=10)
        with pytest.raises(Unavailable, match="no announcements of changes arrive"):
            await bus.ping()
        goes_on.set()
        await until(lambda: is_up(bus), within_s=5)
        assert listener.gaps == 2
    finally:
        await bus.aclose()


@pytest.mark.services
async def test_broker_in_a_resource_alarm(make_rabbit: MakeBus, broker: Broker) -> None:
    """It accepts connections but confirms nothing: `publish` is False within 2 s; consuming continues."""
    bus, handler = await make_rabbit(), Handler()
    await bus.consume(WorkQueue.CACHE, handler)
    await until(lambda: is_up(bus))
    await asyncio.to_thread(broker.server.ctl, "set_vm_memory_high_watermark", "0")

    async def is_refused() -> bool:
        return not await publish_timed(bus, changed(1))

    try:
        # The node tells its connections of the alarm after the command has ended.
        await until(is_refused)
        results = await asyncio.gather(*(publish_timed(bus, changed(n)) for n in range(2, 30)))
        assert not any(results)
    finally:
        await asyncio.to_thread(broker.server.ctl, "set_vm_memory_high_watermark", "absolute", "1000000000")

    await until(lambda: publish_timed(bus, changed(99)), within_s=5)
    await until(lambda: changed(99) in handler.seen, within_s=5)


@pytest.mark.services
async def test_unresponsive_broker(make_rabbit: MakeBus, broker: Broker) -> None:
    """A stopped process: `publish` is False within 2 s, and `aclose` is bounded."""
    bus, other = await make_rabbit(), await make_rabbit()
    await other.consume(WorkQueue.CACHE, Handler())
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
    """A broker for one test: after a kill on a busy machine it may not recover fully for others."""
    with PrivateRabbit() as server:
        yield server


@pytest.mark.services
@pytest.mark.timeout(120)
async def test_confirmed_events_survive_a_killed_broker(mortal: PrivateRabbit) -> None:
    """Every event for which `publish` returned True is handled."""
    bus, worker = (RabbitBus(mortal.url, retry_delays_s=RETRY_DELAYS_S, random=lambda: 0.1) for _ in range(2))
    handler = Handler()
    await worker.consume(WorkQueue.CACHE, handler)
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
    # RabbitMQ writes its list of queues with a delay: a queue younger than that does not survive a kill.
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
async def test_unconfirmed_retry_is_repeated(make_rabbit: MakeBus, broker: Broker) -> None:
    """The original is acknowledged only after its retry is confirmed."""
    bus, handler = await make_rabbit(), failing(ValueError, on=changed(1), times=1)
    await bus.consume(WorkQueue.CACHE, handler)
    await until(lambda: is_up(bus))
    # Retries are unroutable until the topology is declared again.
    await broker.delete(retry_queue(RETRY_DELAYS_S[0]))
    await bus.publish([changed(1)])

    await until(lambda: handler.seen.count(changed(1)) >= 2)
    await until(lambda: is_empty(bus))


@pytest.mark.services
async def test_unresponsive_broker_is_detected_by_receiving_connections(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Consumers and listeners send nothing that could fail; heartbeats alone take 18 s."""
    bus, listener = RabbitBus(broker.server.url, probe_s=0.1, random=lambda: 0.1), Listener()

    def lost(name: str) -> bool:
        return f"rabbitmq connection {name} lost:" in caplog.text

    try:
        await bus.consume(WorkQueue.CACHE, Handler())
        await bus.listen(listener)
        await until(lambda: is_up(bus))
        await until(lambda: listener.gaps == 1)
        broker.server.pause()
        try:
            # Each on its own: a connection whose probe is answered just in time has missed nothing.
            await until(lambda: lost(f"consumer of {CACHE_QUEUE}") and lost("listener"), within_s=6)
        finally:
            broker.server.resume()

        # Announcements of the outage are lost to a listener, so it needs `on_gap`.
        await until(lambda: listener.gaps >= 2)
        await until(lambda: is_up(bus))
    finally:
        await bus.aclose()


@pytest.mark.services
@pytest.mark.parametrize("deaths", [2, 3])
async def test_suspects_are_processed_alone_from_either_end(
    make_rabbit: MakeBus, broker: Broker, deaths: int
) -> None:
    """One of them may kill each worker; the others must not be dead-lettered with it."""
    bus, handler = await make_rabbit(), Handler()
    await until(lambda: is_up(bus))
    events = [changed(n) for n in range(5)]
    assert all(await bus.publish(events))
    for _ in range(deaths):
        connection = await aio_pika.connect(broker.server.url)
        queue = await (await connection.channel()).get_queue(CACHE_QUEUE, ensure=False)
        for _ in events:
            await until(partial(queue.get, fail=False, timeout=5))
        await connection.close()

    await bus.consume(WorkQueue.CACHE, handler)
    await until(lambda: len(handler.calls) == len(events))

    assert handler.calls == [[event] for event in (events if deaths % 2 == 0 else events[::-1])]
    await until(lambda: is_empty(bus))


@pytest.mark.services
async def test_session_that_is_never_ready_is_restarted(broker: Broker) -> None:
    """It waits for a lost reply and ignores its cancellation: only closing the connection ends it."""
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

    supervised = SupervisedConnection(broker.server.url, "stuck", session, setup_s=0.2, random=lambda: 0.1)
    supervised.start()
    async with asyncio.timeout(10):
        await is_ready.wait()
    await supervised.aclose()

    assert begun[0] is not begun[1]
    assert begun[0].is_closed


@pytest.mark.services
async def test_session_without_cancellation_ends_with_its_connection(broker: Broker) -> None:
    """`asyncio.wait_for`, which aiormq uses, drops a cancellation that coincides with a result."""
    is_ready = asyncio.Event()

    async def session(connection: aio_pika.abc.AbstractConnection, ready: Callable[[], None]) -> None:
        ready()
        is_ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await connection.closed()

    supervised = SupervisedConnection(broker.server.url, "deaf", session)
    supervised.start()
    async with asyncio.timeout(10):
        await is_ready.wait()
        await supervised.aclose()
