"""`EventBus`: the contract, run on every bus."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest

from app.adapters.memory.bus import InProcessBus
from app.adapters.rabbitmq.bus import RabbitBus
from app.domain.errors import Unavailable
from app.domain.events import Event, LinkChanged, LinksMissed, WorkQueue, origin_of, with_origin
from app.domain.link import Slug
from app.domain.origin import Origin
from app.ports import MAX_ATTEMPTS
from app.wire import CACHE_QUEUE, CLICKS_QUEUE, DEAD_QUEUE, dead_queue
from tests.contract.bus_parties import (
    Handler,
    Listener,
    MakeBus,
    changed,
    counted,
    failing,
    has_depth,
    has_handled,
    is_empty,
    is_up,
    until,
)

# --- every bus: work -------------------------------------------------------------------


async def test_published_events_are_handled(make_bus: MakeBus) -> None:
    """`publish` returns, aligned, which events are confirmed; consumers receive those."""
    bus, handler = await make_bus(), Handler()
    await bus.consume(WorkQueue.CACHE, handler)
    events = [changed(1, 2**53 - 1), LinksMissed((Slug("a-b"), Slug("c_d"))), changed(2)]

    assert list(await bus.publish(events)) == [True] * 3
    await until(lambda: len(handler.seen) == 3)
    assert set(handler.seen) == set(events)
    await until(lambda: is_empty(bus))


async def test_events_keep_their_origins(make_bus: MakeBus) -> None:
    """Also through a retry; an announcement has that of its first change."""
    origin = Origin(2**100, 2**60, at=1.5, tracestate="a=1", baggage="b=2")
    tried: set[Event] = set()
    handled: list[Event] = []
    heard: list[Origin | None] = []

    async def handle(events: Sequence[Event]) -> None:
        if not tried.issuperset(events):
            tried.update(events)
            raise ValueError("once more")
        handled.extend(events)

    class Noting(Listener):
        def on_changes(self, changes: Sequence[LinkChanged]) -> None:
            heard.extend(change.origin for change in changes)
            super().on_changes(changes)

    bus, listener = await make_bus(), Noting()
    await bus.listen(listener)
    await bus.consume(WorkQueue.CACHE, handle)
    await until(lambda: is_up(bus))
    await until(lambda: listener.gaps)
    events = [with_origin(changed(1), origin), changed(2), LinksMissed((Slug("a"),), origin=origin)]
    await bus.publish(events)
    await until(lambda: len(handled) == 3)
    await bus.announce([with_origin(changed(1), origin)])
    await until(lambda: heard)

    assert Counter(map(origin_of, handled)) == {origin: 2, None: 1}
    assert heard == [origin]


async def test_publish_of_nothing(make_bus: MakeBus) -> None:
    assert list(await (await make_bus()).publish([])) == []


async def test_events_wait_for_a_consumer(make_bus: MakeBus) -> None:
    """A confirmed event reaches a consumer, also one that starts later."""
    publisher, handler = await make_bus(), Handler()
    for start in range(0, 450, 90):
        assert all(await publisher.publish([changed(start + n) for n in range(90)]))
    assert (await publisher.depths())[CACHE_QUEUE] == 450

    await (await make_bus()).consume(WorkQueue.CACHE, handler)
    await until(lambda: len(handler.seen) == 450)
    assert set(handler.seen) == {changed(n) for n in range(450)}


async def test_batches_are_bounded_and_never_concurrent(make_bus: MakeBus) -> None:
    """Batches of at most 200 events; they fill while the handler is busy."""
    bus, handler = await make_bus(), Handler(lambda events: asyncio.sleep(0.1))
    for start in range(0, 700, 100):
        assert all(await bus.publish([changed(start + n) for n in range(100)]))
    await bus.consume(WorkQueue.CACHE, handler)

    await until(lambda: len(handler.seen) == 700)
    sizes = [len(call) for call in handler.calls]
    assert max(sizes) <= 200
    assert max(sizes) > 50
    assert handler.most_running == 1


async def test_lone_event_is_handled_at_once(make_bus: MakeBus) -> None:
    """An edit shows on the other processes within milliseconds."""
    bus, handler = await make_bus(), Handler()
    await bus.consume(WorkQueue.CACHE, handler)
    await until(lambda: is_up(bus))
    loop = asyncio.get_running_loop()
    waits = []
    for n in range(20):
        start = loop.time()
        await bus.publish([changed(n)])
        await until(partial(has_handled, handler, n))
        waits.append(loop.time() - start)

    assert sorted(waits)[len(waits) // 2] < 0.1  # some 5 ms on an idle machine


@pytest.mark.services
async def test_two_consumers_share_the_work(make_rabbit: MakeBus) -> None:
    """Events go to one consumer among many."""
    publisher, *others = [await make_rabbit() for _ in range(3)]
    handlers = [Handler(lambda events: asyncio.sleep(0.02)) for _ in others]
    for bus, handler in zip(others, handlers, strict=True):
        await bus.consume(WorkQueue.CACHE, handler)
        await until(partial(is_up, bus))
    for first in range(0, 600, 50):  # no more at once than a busy machine confirms in time
        assert all(await publisher.publish([changed(n) for n in range(first, first + 50)]))

    await until(lambda: sum(len(h.seen) for h in handlers) >= 600)
    assert {e for h in handlers for e in h.seen} == {changed(n) for n in range(600)}
    assert all(h.seen for h in handlers)


async def test_unavailable_handler_gets_the_same_batch_again(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    """It is repeated until it succeeds, before any other batch, and counts as no attempt."""
    bus = await make_bus()
    is_broken = True

    def behave(events: Sequence[Event]) -> None:
        if is_broken:
            raise Unavailable("redis", "is down")

    handler = Handler(behave)
    await bus.consume(WorkQueue.CACHE, handler)
    await bus.publish([changed(1)])
    await until(lambda: handler.calls)
    await bus.publish([changed(n) for n in range(2, 6)])
    await until(lambda: len(handler.calls) >= 4)
    assert all(call == handler.calls[0] for call in handler.calls)

    is_broken = False
    await until(lambda: set(handler.seen) == {changed(n) for n in range(1, 6)})
    await until(lambda: is_empty(bus))
    assert f"consumer {CACHE_QUEUE} paused for 0.1 s: redis is unavailable: is down" in caplog.text
    await until(lambda: f"consumer {CACHE_QUEUE} resumed:" in caplog.text)


async def test_failed_events_are_retried_one_by_one(make_bus: MakeBus) -> None:
    """After any other exception each event of the batch is retried alone."""
    bus, handler = await make_bus(), failing(ValueError, on=changed(3), times=1)
    assert all(await bus.publish([changed(n) for n in range(5)]))
    await bus.consume(WorkQueue.CACHE, handler)

    failed_size = 0
    await until(lambda: handler.seen.count(changed(3)) == 2)
    failed = next(call for call in handler.calls if changed(3) in call)
    failed_size = len(failed)
    await until(lambda: len(handler.seen) == 5 + failed_size)
    assert all(handler.seen.count(event) == 2 for event in failed)
    again = handler.calls[handler.calls.index(failed) + 1 :]
    assert sum(len(call) == 1 for call in again) >= failed_size
    await until(lambda: is_empty(bus))


async def test_failing_event_is_dead_lettered_and_others_flow(make_bus: MakeBus) -> None:
    """After `MAX_ATTEMPTS`."""
    bus, handler = await make_bus(), failing(ValueError, on=changed(1))
    await bus.consume(WorkQueue.CACHE, handler)
    await bus.publish([changed(1)])
    await bus.publish([changed(n) for n in range(2, 50)])

    await until(lambda: has_depth(bus, DEAD_QUEUE, 1))
    assert handler.seen.count(changed(1)) == MAX_ATTEMPTS
    assert {changed(n) for n in range(2, 50)} <= set(handler.seen)
    assert sum((await bus.depths()).values()) == 1


async def test_handler_error_of_any_kind_is_survived(make_bus: MakeBus) -> None:
    """Even a `CancelledError` of its own does not end consuming."""
    bus = await make_bus()
    handler = failing(asyncio.CancelledError, on=changed(1), times=1)
    await bus.consume(WorkQueue.CACHE, handler)
    await bus.publish([changed(1)])

    await until(lambda: handler.seen.count(changed(1)) == 2)
    await bus.publish([changed(2)])
    await until(lambda: changed(2) in handler.seen)


# --- every bus: clicks -----------------------------------------------------------------


async def test_clicks_and_cache_events_have_separate_consumers(make_bus: MakeBus) -> None:
    """Blocked or failing clicks do not delay changes."""
    bus, links, is_open = await make_bus(), Handler(), asyncio.Event()
    clicks = Handler(lambda events: is_open.wait())
    await bus.consume(WorkQueue.CACHE, links)
    await bus.consume(WorkQueue.CLICKS, clicks)

    assert list(await bus.publish([counted(1), changed(1), counted(2)])) == [True] * 3

    await until(lambda: links.seen == [changed(1)])
    is_open.set()
    await until(lambda: len(clicks.seen) == 2)
    assert sorted(clicks.seen, key=repr) == [counted(1), counted(2)]
    await until(lambda: is_empty(bus))


async def test_failing_clicks_have_their_own_dead_letters(make_bus: MakeBus) -> None:
    bus, handler = await make_bus(), failing(ValueError, on=counted(1))
    await bus.consume(WorkQueue.CLICKS, handler)
    await bus.publish([counted(1), counted(2)])

    await until(lambda: has_depth(bus, dead_queue(CLICKS_QUEUE), 1))
    assert handler.seen.count(counted(1)) == MAX_ATTEMPTS
    assert counted(2) in handler.seen
    assert (await bus.depths())[DEAD_QUEUE] == 0


# --- every bus: fan-out ----------------------------------------------------------------


async def test_announcements_reach_every_listener(make_bus: MakeBus) -> None:
    """`on_gap` is called once, at the start."""
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


async def test_announcement_without_listeners(make_bus: MakeBus) -> None:
    bus = await make_bus()
    await bus.announce([changed(1)])
    await bus.announce([])


async def test_raising_listener_does_not_stop_announcements(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    """The other listeners and the next announcement are not affected."""

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
    """It returns while the bus can publish and consume, and raises once it is closed."""
    bus = await make_bus()
    await bus.ping()
    await bus.consume(WorkQueue.CACHE, Handler())
    await until(lambda: is_up(bus))

    await bus.aclose()
    with pytest.raises(Unavailable):
        await bus.ping()
    assert list(await bus.publish([changed(1)])) == [False]


async def test_close_finishes_the_current_batch(make_bus: MakeBus) -> None:
    """Later batches are not started."""
    bus = await make_bus()
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(events: Sequence[Event]) -> None:
        begun.set()
        await release.wait()

    handler = Handler(slow)
    await bus.consume(WorkQueue.CACHE, handler)
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


async def test_close_during_a_pause_is_quick(make_bus: MakeBus) -> None:
    """A paused batch is not waited for."""
    bus, handler = await make_bus(), failing(lambda: Unavailable("redis", "down"), on=changed(1))
    await bus.consume(WorkQueue.CACHE, handler)
    await bus.publish([changed(1)])
    await until(lambda: len(handler.calls) == 3)

    async with asyncio.timeout(1):
        await bus.aclose()


async def test_close_of_an_unused_bus() -> None:
    await InProcessBus().aclose()
    await RabbitBus("amqp://guest:guest@127.0.0.1:1/").aclose()
