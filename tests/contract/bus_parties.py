"""Handlers and listeners for an `EventBus` under test, and direct access to its broker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import aio_pika

from app.domain.errors import Unavailable
from app.domain.events import ClicksCounted, Event, LinkChanged
from app.domain.link import Slug
from app.wire import CACHE_QUEUE, EVENTS_EXCHANGE, WORK_QUEUES, dead_queue, retry_queue
from tests.servers.rabbitmq import PrivateRabbit

RETRY_DELAYS_S: Any = (0.02, 0.04)
QUEUES = [
    queue
    for work in WORK_QUEUES
    for queue in (work, dead_queue(work), *(retry_queue(delay, work) for delay in RETRY_DELAYS_S))
]

MakeBus = Callable[[], Awaitable[Any]]


class Broker:
    """The broker without the adapter: reads and deletes queues, sends any message."""

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


def counted(n: int) -> ClicksCounted:
    return ClicksCounted(f"{n:032x}", datetime(2030, 1, 31, 12, tzinfo=UTC), {Slug("abc"): n + 1})


async def until(condition: Callable[[], Any], *, within_s: float = 60.0) -> None:
    """Wait until *condition* (or what it awaits) is true."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        result = condition()
        if await result if isinstance(result, Awaitable) else result:
            return
        assert asyncio.get_running_loop().time() < deadline, f"not within {within_s} s"
        await asyncio.sleep(0.005)


def has_handled(handler: Handler, more_than: int) -> bool:
    """Has *handler* got more than so many events?"""
    return len(handler.seen) > more_than


def was_called(handler: Handler, more_than: int) -> bool:
    """Was *handler* called more than so many times?"""
    return len(handler.calls) > more_than


async def is_up(bus: Any) -> bool:
    try:
        await bus.ping()
    except Unavailable:
        return False
    return True


async def publish_timed(bus: Any, event: Event) -> bool:
    """Publish one event, which must never take longer than 2 s."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    (taken,) = await bus.publish([event])
    assert loop.time() - start < 2.0
    return bool(taken)


async def is_empty(bus: Any) -> bool:
    return not any((await bus.depths()).values())


async def has_depth(bus: Any, queue: str, depth: int) -> bool:
    return (await bus.depths()).get(queue) == depth


def changed(n: int, version: int = 1) -> LinkChanged:
    return LinkChanged(Slug(f"slug{n:05}"), version)


class Handler:
    """Records every call, then runs *behave*."""

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
    """Return a handler that raises for batches with *on*, the first *times* times."""
    left = itertools.count(times, -1)

    def behave(events: Sequence[Event]) -> None:
        if on in events and next(left) > 0:
            raise error()

    return Handler(behave)
