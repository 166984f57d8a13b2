"""What only a broker can do to an `EventBus`: strange messages, and faults of RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from app.adapters import amqp_consumer
from app.adapters.amqp_consumer import REASON_HEADER
from app.adapters.amqp_link import Link
from app.adapters.bus_rabbitmq import RabbitBus
from app.domain.errors import Unavailable
from app.domain.events import Event
from app.ports import MAX_ATTEMPTS
from app.wire import ATTEMPT_HEADER, CACHE_QUEUE, DEAD_QUEUE, INVALIDATIONS_EXCHANGE, retry_queue
from tests.contract.bus_parties import (
    QUEUES,
    RETRY_DELAYS_S,
    Broker,
    Handler,
    Listener,
    MakeBus,
    changed,
    failing,
    has_depth,
    is_empty,
    is_up,
    until,
)
from tests.servers.rabbitmq import PrivateRabbit

# --- messages --------------------------------------------------------------------------

POISON = [
    b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"kind":"unknown","v":1}', b"[" * 100_000, b"x" * 1_000_000,
    b'{"kind":"changed","v":1,"slug":"\xff","version":1}',
    b'{"kind":"changed","v":2,"slug":"abc","version":1}',
    b'{"kind":"changed","v":1,"slug":"abc","version":%d}' % 2**60,
    b'{"kind":"changed","v":1,"slug":null,"version":1}',
]  # fmt: skip


@pytest.mark.services
async def test_poison_is_parked_at_once_and_neighbours_flow(make_rabbit: MakeBus, broker: Broker) -> None:
    """Bytes that are no event are parked at once, as they are, with the reason."""
    bus, handler = await make_rabbit(), Handler()
    for n, body in enumerate(POISON):
        await bus.publish([changed(n)])
        await broker.send(body, traceparent="00-abc")
    await bus.consume(handler)

    await until(lambda: len(handler.seen) == len(POISON), within_s=2)
    await until(lambda: has_depth(bus, DEAD_QUEUE, len(POISON)), within_s=2)
    parked = await broker.take(DEAD_QUEUE)
    assert sorted(message.body for message in parked) == sorted(POISON)
    for message in parked:
        assert str(message.headers[REASON_HEADER]).startswith("PoisonMessage")
        assert message.headers["traceparent"] == "00-abc"
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    await until(lambda: is_empty(bus))


@pytest.mark.services
async def test_a_parked_event_says_why_and_keeps_secrets(make_rabbit: MakeBus, broker: Broker) -> None:
    """Headers tell the error; no credentials in them; the body can be published again."""
    bus = await make_rabbit()
    await bus.consume(failing(lambda: ValueError("postgres://me:hush@db/x " + "y" * 9_000), on=changed(1)))
    await bus.publish([changed(1)])
    await until(lambda: has_depth(bus, DEAD_QUEUE, 1))

    (message,) = await broker.take(DEAD_QUEUE)
    reason = str(message.headers[REASON_HEADER])
    assert reason.startswith("ValueError: postgres://***@db/x")
    assert len(reason) <= 300
    assert message.headers[ATTEMPT_HEADER] == MAX_ATTEMPTS
    assert json.loads(message.body)["slug"] == "slug00001"


@pytest.mark.services
@pytest.mark.parametrize("attempt", [-1, 10**9, "1", None, True, 2.5], ids=repr)
async def test_a_foreign_attempt_header_is_not_trusted(
    make_rabbit: MakeBus, broker: Broker, attempt: Any
) -> None:
    bus, handler = await make_rabbit(), Handler()
    await bus.consume(handler)
    body = b'{"kind":"changed","v":1,"slug":"slug00001","version":1}'
    await broker.send(body, **{ATTEMPT_HEADER: attempt})

    await until(lambda: handler.seen == [changed(1)])


@pytest.mark.services
async def test_garbage_announcements_are_ignored(
    make_rabbit: MakeBus, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    bus, listener = await make_rabbit(), Listener()
    await bus.listen(listener)
    await until(lambda: listener.gaps == 1)
    exchange = await broker.channel.get_exchange(INVALIDATIONS_EXCHANGE, ensure=False)
    for body in POISON:
        await exchange.publish(aio_pika.Message(body), "", mandatory=False)
    await bus.announce([changed(1)])

    await until(lambda: listener.changes == [changed(1)])
    assert listener.gaps == 1
    assert caplog.text.count("is ignored") == len(POISON) - 1  # an empty list says nothing, readably


@pytest.mark.services
async def test_a_cancelled_publisher_harms_nobody(make_rabbit: MakeBus) -> None:
    """The channel counts on as before; every later confirm belongs to its message."""
    bus, handler = await make_rabbit(), Handler()
    for spins in range(20):
        task = asyncio.create_task(bus.publish([changed(1000 + spins)]))
        for _ in range(spins):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert list(await bus.publish([changed(spins)])) == [True]
    await bus.consume(handler)

    await until(lambda: {changed(n) for n in range(20)} <= set(handler.seen))


@pytest.mark.services
async def test_definitions_are_accepted_and_change_no_queue(
    rabbitmq: PrivateRabbit, make_rabbit: MakeBus, broker: Broker
) -> None:
    """Policies apply to what the code declares, and a full queue is refused, not dropped."""
    file = Path(__file__).parents[2] / "deploy/rabbitmq/definitions.json"
    definitions = json.loads(file.read_text())
    assert "users" not in definitions
    assert not re.search("password|guest", file.read_text())
    await asyncio.to_thread(rabbitmq.ctl, "import_definitions", str(file))
    try:
        bus, handler = await make_rabbit(), failing(ValueError, on=changed(1))
        listing = await asyncio.to_thread(rabbitmq.ctl, "list_queues", "name", "policy")
        policies = dict(line.split("\t") for line in listing.splitlines())
        assert all(policies[queue].startswith("hopgate-") for queue in QUEUES)
        await bus.consume(handler)
        await bus.publish([changed(1)])
        await until(lambda: has_depth(bus, DEAD_QUEUE, 1))
        await bus.aclose()

        other = await make_rabbit()
        policy = next(p for p in definitions["policies"] if re.search(p["pattern"], CACHE_QUEUE))
        small = json.dumps({**policy["definition"], "max-length": 3})
        await asyncio.to_thread(
            rabbitmq.ctl, "set_policy", policy["name"], policy["pattern"], small, "--apply-to", "queues"
        )
        results = [await _publish_timed(other, changed(n)) for n in range(20)]
        assert results[0]
        assert not results[-1]
        assert (await other.depths())[CACHE_QUEUE] == sum(results)
    finally:
        names = ",".join(f'<<"{policy["name"]}">>' for policy in definitions["policies"])
        delete = f'[rabbit_policy:delete(<<"/">>, Name, <<"tests">>) || Name <- [{names}]].'
        await asyncio.to_thread(rabbitmq.ctl, "eval", delete)


# --- faults ----------------------------------------------------------------------------


async def _publish_timed(bus: RabbitBus, event: Event) -> bool:
    """Publish one event, which must never take longer than 2 s."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    (taken,) = await bus.publish([event])
    assert loop.time() - start < 2.0
    return taken


async def test_without_a_broker_nothing_is_taken_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Returns False at once, never raises; and the password is in no log."""
    caplog.set_level(logging.DEBUG)
    bus = RabbitBus("amqp://me:hush%21hush@127.0.0.1:1/", random=lambda: 0.0)
    loop = asyncio.get_running_loop()
    start = loop.time()
    for n in range(20):
        assert not await _publish_timed(bus, changed(n))
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

    assert not await _publish_timed(bus, changed(1))
    await until(lambda: _publish_timed(bus, changed(2)))
    assert (await bus.depths())[CACHE_QUEUE] == 1


@pytest.mark.services
async def test_a_queue_deleted_under_its_consumer(make_rabbit: MakeBus, broker: Broker) -> None:
    """It is declared anew and consumed again, whether the broker cancels the consumer or not."""
    bus, handler = await make_rabbit(), Handler()
    await bus.consume(handler)
    await until(lambda: is_up(bus))
    await broker.delete(CACHE_QUEUE)

    await until(lambda: _publish_timed(bus, changed(1)), within_s=5)
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
    assert await _publish_timed(bus, changed(3))
    await until(lambda: changed(3) in handler.seen)


@pytest.mark.services
async def test_an_alarmed_broker(make_rabbit: MakeBus, broker: Broker) -> None:
    """It accepts connections but confirms nothing: False within 2 s; consuming goes on."""
    bus, handler = await make_rabbit(), Handler()
    await bus.consume(handler)
    await until(lambda: is_up(bus))
    await asyncio.to_thread(broker.server.ctl, "set_vm_memory_high_watermark", "0")
    try:
        assert not await _publish_timed(bus, changed(1))
        results = await asyncio.gather(*(_publish_timed(bus, changed(n)) for n in range(2, 30)))
        assert not any(results)
    finally:
        await asyncio.to_thread(broker.server.ctl, "set_vm_memory_high_watermark", "absolute", "1000000000")

    await until(lambda: _publish_timed(bus, changed(99)), within_s=5)
    await until(lambda: changed(99) in handler.seen, within_s=5)


@pytest.mark.services
async def test_a_silent_broker(make_rabbit: MakeBus, broker: Broker) -> None:
    """Stopped in its tracks: False within 2 s; closing does not hang."""
    bus, other = await make_rabbit(), await make_rabbit()
    await other.consume(Handler())
    await until(lambda: is_up(other))
    broker.server.pause()
    try:
        assert not await _publish_timed(bus, changed(1))
        assert not await _publish_timed(bus, changed(2))
        async with asyncio.timeout(8):
            await other.aclose()
    finally:
        broker.server.resume()
    await until(lambda: _publish_timed(bus, changed(3)), within_s=8)


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
    assert not await _publish_timed(bus, changed(next(numbers)))
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
async def test_retries_are_spread(broker: Broker) -> None:
    """What failed together must not come again together."""
    draws = itertools.cycle([0.0, 0.5])
    bus = RabbitBus(broker.server.url, retry_delays_s=(60,), random=lambda: next(draws))
    queue = retry_queue(60)
    try:
        await until(lambda: is_up(bus))
        await bus.consume(failing(ValueError, on=changed(1)))
        await bus.publish([changed(1)])
        await bus.publish([changed(1)])
        await until(lambda: has_depth(bus, queue, 2))

        waits = {message.expiration for message in await broker.take(queue)}
    finally:
        await bus.aclose()
        await broker.delete(queue)

    assert len(waits) == 2
    assert all(wait is not None and 30 <= wait <= 60 for wait in waits)
