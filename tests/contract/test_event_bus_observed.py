"""`EventBus`: what it tells of deliveries, queues and times; run on every bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from app.domain.events import Event, LinkChanged, WorkQueue
from app.domain.link import Slug
from app.ports import MAX_ATTEMPTS, QueueDepth
from app.wire import CACHE_QUEUE, CLICKS_QUEUE, DEAD_QUEUE
from tests.contract.bus_parties import (
    QUEUES,
    Listener,
    MakeBus,
    changed,
    counted,
    failing,
    has_depth,
    until,
)


class Observer:
    def __init__(self) -> None:
        self.ages: list[float] = []
        self.retries = self.parks = 0
        self.failures: list[Exception] = []

    def received(self, age_s: float) -> None:
        self.ages.append(age_s)

    def handled(self, events: int, *, stale: int, took_s: float) -> None:
        raise AssertionError("the handler's caller notifies of this")

    def failed(self, error: Exception) -> None:
        self.failures.append(error)

    def retried(self, events: int) -> None:
        self.retries += events

    def parked(self, events: int) -> None:
        self.parks += events


async def test_observer_is_notified_of_ages_retries_and_dead_letters(make_bus: MakeBus) -> None:
    """The age is that of the change, however late it was published, also after a retry."""
    bus, handler, observer = await make_bus(), failing(ValueError, on=changed(1)), Observer()
    committed_at = time.time() - 1_000
    await bus.consume(WorkQueue.CACHE, handler, observer)

    await bus.publish([LinkChanged(changed(1).slug, 1, committed_at), changed(2)])

    await until(lambda: has_depth(bus, DEAD_QUEUE, 1))
    await until(lambda: (observer.retries, observer.parks) == (MAX_ATTEMPTS, 1))
    # The handler's caller notifies of its failures.
    assert observer.failures == []
    old = [age for age in observer.ages if age > 500]
    assert len(old) == MAX_ATTEMPTS
    assert all(999 < age < 1_100 for age in old)
    assert len(observer.ages) == len(handler.seen)
    assert all(0 <= age < 100 for age in observer.ages if age not in old)


async def test_depths_tell_ready_from_unacknowledged(make_bus: MakeBus) -> None:
    bus, is_open = await make_bus(), asyncio.Event()
    refused = failing(ValueError, on=changed(1))

    async def handler(events: Sequence[Event]) -> None:
        await is_open.wait()
        await refused(events)

    await bus.consume(WorkQueue.CACHE, handler)
    await bus.publish([counted(1), counted(2), *map(changed, range(5))])

    async def has(queue: str, depth: QueueDepth) -> bool:
        return (await bus.queue_depths()).get(queue) == depth

    # The in-process bus takes up to a batch for its consumer, as RabbitMQ does.
    await until(lambda: has(CACHE_QUEUE, QueueDepth(0, 5)))
    assert (await bus.queue_depths())[CLICKS_QUEUE].ready == 2
    is_open.set()
    await until(lambda: has(DEAD_QUEUE, QueueDepth(1)))
    await until(lambda: has(CACHE_QUEUE, QueueDepth(0, 0)))
    assert (await bus.queue_depths()).keys() == set(QUEUES)


async def test_announced_changes_keep_the_time_of_their_commit(make_bus: MakeBus) -> None:
    bus, listener = await make_bus(), Listener()
    await bus.listen(listener)
    await until(lambda: listener.gaps == 1)

    await bus.announce([LinkChanged(Slug("one"), 1, 1_900_000_000.5), LinkChanged(Slug("other"), 2)])

    await until(lambda: len(listener.changes) == 2)
    assert [change.committed_at for change in listener.changes] == [1_900_000_000.5, None]
