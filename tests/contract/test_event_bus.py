"""`EventBus`: what every bus must do, over each of them; then what only a broker can do to us."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from app.adapters.amqp_consumer import REASON_HEADER
from app.adapters.bus_inprocess import InProcessBus
from app.adapters.bus_rabbitmq import RabbitBus
from app.domain.errors import Unavailable
from app.domain.events import Event, LinkChanged, LinksMissed
from app.domain.link import Slug
from app.ports import MAX_ATTEMPTS
from app.wire import (
    ATTEMPT_HEADER,
    CACHE_QUEUE,
    DEAD_QUEUE,
    EVENTS_EXCHANGE,
    INVALIDATIONS_EXCHANGE,
    retry_queue,
)
from tests.servers.rabbitmq import PrivateRabbit

RETRY_DELAYS_S: Any = (0.02, 0.04)
QUEUES = [CACHE_QUEUE, DEAD_QUEUE, *(retry_queue(delay) for delay in RETRY_DELAYS_S)]


class Broker:
    """What stands outside of the adapter: looks into queues and breaks things."""

    def __init__(self, server: PrivateRabbit, channel: aio_pika.abc.AbstractChannel) -> None:
        self.server = server
        self.channel = channel

    async def delete(self, *queues: str) -> None:
        for queue in queues:
            await self.channel.queue_delete(queue)

    async def send(self, body: bytes, queue: str = CACHE_QUEUE, **headers: Any) -> None:
        exchange = await self.channel.get_exchange(EVENTS_EXCHANGE, ensure=False)
        await exchange.publish(aio_pika.Message(body, headers=headers), queue)

    async def take(self, queue: str) -> list[aio_pika.abc.AbstractIncomingMessage]:
        messages = []
        source = await self.channel.get_queue(queue, ensure=False)
        while (message := await source.get(no_ack=True, fail=False)) is not None:
            messages.append(message)
        return messages


@pytest.fixture
async def broker(rabbitmq: PrivateRabbit) -> AsyncIterator[Broker]:
    """Without queues: each test finds them as new."""
    connection = await aio_pika.connect(rabbitmq.url)
    channel = await connection.channel(on_return_raises=True)
    await _delete_all(channel)
    yield Broker(rabbitmq, channel)
    await connection.close()


async def _delete_all(channel: aio_pika.abc.AbstractChannel) -> None:
    for queue in QUEUES:
        await channel.queue_delete(queue)


MakeBus = Callable[[], Awaitable[Any]]


@pytest.fixture
async def make_rabbit(broker: Broker) -> AsyncIterator[MakeBus]:
    """Makes one more process's bus, connected."""
    buses: list[RabbitBus] = []

    async def make() -> RabbitBus:
        bus = RabbitBus(broker.server.url, retry_delays_s=RETRY_DELAYS_S, random=lambda: 0.1)
        buses.append(bus)
        await until(lambda: is_up(bus))
        return bus

    yield make
    await asyncio.gather(*(bus.aclose() for bus in buses))


@pytest.fixture
async def make_inprocess() -> AsyncIterator[MakeBus]:
    """In one process there is only one."""
    bus = InProcessBus(retry_delays_s=RETRY_DELAYS_S)

    async def make() -> InProcessBus:
        return bus

    yield make
    await bus.aclose()


@pytest.fixture(params=["inprocess", pytest.param("rabbit", marks=pytest.mark.services)])
def make_bus(request: pytest.FixtureRequest) -> MakeBus:
    return request.getfixturevalue(f"make_{request.param}")


async def until(condition: Callable[[], Any], *, within_s: float = 10.0) -> None:
    """Wait until *condition* (or what it awaits) is true."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        result = condition()
        if await result if isinstance(result, Awaitable) else result:
            return
        assert asyncio.get_running_loop().time() < deadline, f"not within {within_s} s"
        await asyncio.sleep(0.005)


async def is_up(bus: Any) -> bool:
    try:
        await bus.ping()
    except Unavailable:
        return False
    return True


async def is_empty(bus: Any) -> bool:
    return not any((await bus.depths()).values())


def changed(n: int, version: int = 1) -> LinkChanged:
    return LinkChanged(Slug(f"slug{n:05}"), version)


class Handler:
    """Remembers every call; does what *behave* says first."""

    def __init__(self, behave: Callable[[Sequence[Event]], Any] = lambda events: None) -> None:
        self.calls: list[list[Event]] = []
        self.running = 0
        self.most_running = 0
        self._behave = behave

    @property
    def seen(self) -> list[Event]:
        return list(itertools.chain.from_iterable(self.calls))

    async def __call__(self, events: Sequence[Event]) -> None:
        self.calls.append(list(events))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            result = self._behave(events)
            if isinstance(result, Awaitable):
                await result
        finally:
            self.running -= 1


class Listener:
    def __init__(self) -> None:
        self.gaps = 0
        self.changes: list[LinkChanged] = []

    def on_changes(self, changes: Sequence[LinkChanged]) -> None:
        self.changes.extend(changes)

    def on_gap(self) -> None:
        self.gaps += 1


def failing(error: Callable[[], BaseException], *, on: Event, times: int = 10**9) -> Handler:
    """Raises as long as *on* is among the events, the first *times* times."""
    left = itertools.count(times, -1)

    def behave(events: Sequence[Event]) -> None:
        if on in events and next(left) > 0:
            raise error()

    return Handler(behave)


# --- every bus: work -------------------------------------------------------------------


async def test_what_is_published_is_handled(make_bus: MakeBus) -> None:
    """Hand events to the consumers; return, aligned, which the broker has taken on."""
    bus, handler = await make_bus(), Handler()
    await bus.consume(handler)
    events = [changed(1, 2**53 - 1), LinksMissed((Slug("a-b"), Slug("c_d"))), changed(2)]

    assert list(await bus.publish(events)) == [True] * 3
    await until(lambda: len(handler.seen) == 3)
    assert set(handler.seen) == set(events)
    await until(lambda: is_empty(bus))


async def test_publishing_nothing(make_bus: MakeBus) -> None:
    assert list(await (await make_bus()).publish([])) == []


async def test_events_wait_for_a_consumer(make_bus: MakeBus) -> None:
    """Taken on means that it reaches a consumer, also one that comes later."""
    publisher, handler = await make_bus(), Handler()
    assert all(await publisher.publish([changed(n) for n in range(450)]))
    assert (await publisher.depths())[CACHE_QUEUE] == 450

    await (await make_bus()).consume(handler)
    await until(lambda: len(handler.seen) == 450)
    assert set(handler.seen) == {changed(n) for n in range(450)}


async def test_batches_are_bounded_and_one_at_a_time(make_bus: MakeBus) -> None:
    """Batches of at most 200 events; they fill while the handler is busy."""
    bus, handler = await make_bus(), Handler(lambda events: asyncio.sleep(0.1))
    assert all(await bus.publish([changed(n) for n in range(700)]))
    await bus.consume(handler)

    await until(lambda: len(handler.seen) == 700)
    sizes = [len(call) for call in handler.calls]
    assert max(sizes) <= 200
    assert max(sizes) > 50
    assert handler.most_running == 1


async def test_a_lone_event_is_not_kept_waiting(make_bus: MakeBus) -> None:
    """An edit shows on the other processes within milliseconds."""
    bus, handler = await make_bus(), Handler()
    await bus.consume(handler)
    await until(lambda: is_up(bus))
    loop = asyncio.get_running_loop()
    waits = []
    for n in range(20):
        start = loop.time()
        await bus.publish([changed(n)])
        await until(lambda n=n: len(handler.seen) > n)
        waits.append(loop.time() - start)

    assert sorted(waits)[len(waits) // 2] < 0.1  # some 5 ms on an idle machine


@pytest.mark.services
async def test_two_consumers_share_the_work(make_rabbit: MakeBus) -> None:
    """Events go to one consumer among many."""
    publisher, *others = [await make_rabbit() for _ in range(3)]
    handlers = [Handler(lambda events: asyncio.sleep(0.02)) for _ in others]
    for bus, handler in zip(others, handlers, strict=True):
        await bus.consume(handler)
        await until(lambda bus=bus: is_up(bus))
    assert all(await publisher.publish([changed(n) for n in range(600)]))

    await until(lambda: sum(len(h.seen) for h in handlers) >= 600)
    assert {e for h in handlers for e in h.seen} == {changed(n) for n in range(600)}
    assert all(h.seen for h in handlers)


async def test_unavailable_pauses_and_gives_the_same_batch_again(make_bus: MakeBus) -> None:
    """For as long as it takes; nothing else is taken meanwhile and no attempt is used up."""
    bus = await make_bus()
    is_broken = True

    def behave(events: Sequence[Event]) -> None:
        if is_broken:
            raise Unavailable("redis", "is down")

    handler = Handler(behave)
    await bus.consume(handler)
    await bus.publish([changed(1)])
    await until(lambda: handler.calls)
    await bus.publish([changed(n) for n in range(2, 6)])
    await until(lambda: len(handler.calls) >= 4)
    assert all(call == handler.calls[0] for call in handler.calls)

    is_broken = False
    await until(lambda: set(handler.seen) == {changed(n) for n in range(1, 6)})
    await until(lambda: is_empty(bus))


async def test_a_failed_batch_comes_back_alone_and_later(make_bus: MakeBus) -> None:
    """Any other exception gives each of its events again alone."""
    bus, handler = await make_bus(), failing(ValueError, on=changed(3), times=1)
    assert all(await bus.publish([changed(n) for n in range(5)]))
    await bus.consume(handler)

    failed_size = 0
    await until(lambda: handler.seen.count(changed(3)) == 2)
    failed = next(call for call in handler.calls if changed(3) in call)
    failed_size = len(failed)
    await until(lambda: len(handler.seen) == 5 + failed_size)
    assert all(handler.seen.count(event) == 2 for event in failed)
    again = handler.calls[handler.calls.index(failed) + 1 :]
    assert sum(len(call) == 1 for call in again) >= failed_size
    await until(lambda: is_empty(bus))


async def test_what_always_fails_is_parked_and_others_flow(make_bus: MakeBus) -> None:
    """After MAX_ATTEMPTS it is parked with the dead letters."""
    bus, handler = await make_bus(), failing(ValueError, on=changed(1))
    await bus.consume(handler)
    await bus.publish([changed(1)])
    await bus.publish([changed(n) for n in range(2, 50)])

    await until(lambda: _depth(bus, DEAD_QUEUE, 1))
    assert handler.seen.count(changed(1)) == MAX_ATTEMPTS
    assert {changed(n) for n in range(2, 50)} <= set(handler.seen)
    assert sum((await bus.depths()).values()) == 1


async def test_a_handler_may_raise_anything(make_bus: MakeBus) -> None:
    """Even a cancellation of its own does not end consuming."""
    bus = await make_bus()
    handler = failing(asyncio.CancelledError, on=changed(1), times=1)
    await bus.consume(handler)
    await bus.publish([changed(1)])

    await until(lambda: handler.seen.count(changed(1)) == 2)
    await bus.publish([changed(2)])
    await until(lambda: changed(2) in handler.seen)


async def _depth(bus: Any, queue: str, depth: int) -> bool:
    return (await bus.depths()).get(queue) == depth


# --- every bus: fan-out ----------------------------------------------------------------


async def test_announcements_reach_every_listener(make_bus: MakeBus) -> None:
    """Tell every listening gateway; `on_gap` is called at the start."""
    listeners = [Listener(), Listener(), Listener()]
    buses = [await make_bus(), await make_bus()]
    await buses[0].listen(listeners[0])
    await buses[1].listen(listeners[1])
    await buses[1].listen(listeners[2])
    await until(lambda: all(listener.gaps == 1 for listener in listeners))

    changes = [changed(n, n + 1) for n in range(2500)]
    await buses[0].announce(changes)
    await until(lambda: all(len(listener.changes) == 2500 for listener in listeners))
    assert all(sorted(listener.changes, key=str) == sorted(changes, key=str) for listener in listeners)
    assert all(listener.gaps == 1 for listener in listeners)


async def test_announcing_to_nobody(make_bus: MakeBus) -> None:
    bus = await make_bus()
    await bus.announce([changed(1)])
    await bus.announce([])


async def test_a_listener_that_raises_harms_nobody(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    """It must not raise; if it does, the others and the next announcement still come."""

    class Broken(Listener):
        def on_changes(self, changes: Sequence[LinkChanged]) -> None:
            super().on_changes(changes)
            raise ValueError("mistake")

    bus, broken, sound = await make_bus(), Broken(), Listener()
    await bus.listen(broken)
    await bus.listen(sound)
    await until(lambda: broken.gaps and sound.gaps)
    await bus.announce([changed(1)])
    await bus.announce([changed(2)])

    await until(lambda: len(sound.changes) == len(broken.changes) == 2)
    assert "listener raised" in caplog.text


# --- every bus: the end ----------------------------------------------------------------


async def test_ping(make_bus: MakeBus) -> None:
    """Return if the bus can publish and consumes; Unavailable once it is closed."""
    bus = await make_bus()
    await bus.ping()
    await bus.consume(Handler())
    await until(lambda: is_up(bus))

    await bus.aclose()
    with pytest.raises(Unavailable):
        await bus.ping()
    assert list(await bus.publish([changed(1)])) == [False]


async def test_closing_finishes_the_current_batch(make_bus: MakeBus) -> None:
    """Stop consuming (the current batch is finished), then disconnect."""
    bus = await make_bus()
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(events: Sequence[Event]) -> None:
        begun.set()
        await release.wait()

    handler = Handler(slow)
    await bus.consume(handler)
    await bus.publish([changed(1)])
    await begun.wait()
    await bus.publish([changed(2)])
    closing = asyncio.create_task(bus.aclose())
    await asyncio.sleep(0.05)
    assert not closing.done()

    release.set()
    await closing
    assert handler.calls == [[changed(1)]]
    assert handler.running == 0


async def test_closing_during_a_pause_is_quick(make_bus: MakeBus) -> None:
    """A paused batch is not the current one."""
    bus, handler = await make_bus(), failing(lambda: Unavailable("redis", "down"), on=changed(1))
    await bus.consume(handler)
    await bus.publish([changed(1)])
    await until(lambda: len(handler.calls) == 3)

    async with asyncio.timeout(1):
        await bus.aclose()


async def test_closing_what_was_never_used() -> None:
    await InProcessBus().aclose()
    await RabbitBus("amqp://guest:guest@127.0.0.1:1/").aclose()


# --- in this process -------------------------------------------------------------------


async def test_inprocess_is_bounded() -> None:
    """Answers False for what no longer fits."""
    bus = InProcessBus(max_events=3)

    assert list(await bus.publish([changed(n) for n in range(5)])) == [True] * 3 + [False] * 2
    assert list(await bus.publish([changed(9)])) == [False]
    await bus.consume(Handler())
    await until(lambda: is_empty(bus))
    assert list(await bus.publish([changed(9)])) == [True]
    await bus.aclose()


async def test_inprocess_waits_as_told_between_attempts() -> None:
    """Later and later; the last delay repeats."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    bus, handler = InProcessBus(sleep=sleep), failing(ValueError, on=changed(1))
    await bus.consume(handler)
    await bus.publish([changed(1)])
    await until(lambda: bus.parked)

    assert slept == [1, 10, 60, 60, 60]
    assert bus.parked[0].event == changed(1)
    assert bus.parked[0].reason.startswith("ValueError")
    await bus.aclose()


async def test_inprocess_pause_grows_to_five_seconds() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))

    bus = InProcessBus(sleep=sleep)
    await bus.consume(failing(lambda: Unavailable("redis", "down"), on=changed(1), times=9))
    await bus.publish([changed(1)])
    await until(lambda: is_empty(bus) if len(slept) == 9 else False)

    assert slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]
    await bus.aclose()


# --- RabbitMQ: messages ----------------------------------------------------------------

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
    await until(lambda: _depth(bus, DEAD_QUEUE, len(POISON)), within_s=2)
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
    await until(lambda: _depth(bus, DEAD_QUEUE, 1))

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
        await until(lambda: _depth(bus, DEAD_QUEUE, 1))
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


# --- RabbitMQ: faults ------------------------------------------------------------------


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
    """0.2 s doubling to 15 s, each times a random number."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    bus = RabbitBus("amqp://127.0.0.1:1/", sleep=sleep, random=lambda: 0.5)
    bus.start()
    await until(lambda: len(slept) >= 9)
    await bus.aclose()

    assert slept[:9] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 7.5, 7.5]


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
    """The broker cancels the consumer; it declares the queue anew and consumes again."""
    bus, handler = await make_rabbit(), Handler()
    await bus.consume(handler)
    await until(lambda: is_up(bus))
    await broker.delete(CACHE_QUEUE)

    await until(lambda: _publish_timed(bus, changed(1)), within_s=5)
    await until(lambda: changed(1) in handler.seen, within_s=5)


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


@pytest.mark.services
async def test_nothing_confirmed_is_lost_when_the_broker_dies(make_rabbit: MakeBus, broker: Broker) -> None:
    """The ledger: everything that was answered with True is handled, whatever died between."""
    bus, worker, handler = await make_rabbit(), await make_rabbit(), Handler()
    await worker.consume(handler)
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
    broker.server.kill()
    assert not await _publish_timed(bus, changed(next(numbers)))
    await asyncio.to_thread(broker.server.start)
    before = len(confirmed)
    await until(lambda: len(confirmed) > before + 100, within_s=8)
    is_publishing = False
    await asyncio.gather(*publishers)

    await until(lambda: confirmed <= set(handler.seen), within_s=10)
    await until(lambda: is_empty(bus))


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
