"""Stops that end: cancellations that are lost, tasks that ignore them, and closes that hang."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, ClassVar

import pytest

from app.adapters.dispatcher import Dispatcher
from app.adapters.memory.queue import MemoryQueue
from app.adapters.rabbitmq import connection
from app.concurrency import stopping
from app.concurrency.background import running, serving
from app.concurrency.batches import Batches
from app.domain.events import LinkChanged
from app.domain.link import Slug
from app.ports import OutboxEvent, Unobserved
from app.service.outbox import OutboxPublisher

EVENT = LinkChanged(Slug("a"), 1)


@pytest.fixture(autouse=True)
async def short_bounds(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(stopping, "CANCEL_EVERY_S", 0.01)
    yield
    # A failed test must not hang in the teardown of its event loop.
    for stubborn in Stubborn.made:
        stubborn.losses = 0
    Stubborn.made.clear()


class Stubborn:
    """A task's work that loses its first *losses* cancellations."""

    made: ClassVar[list[Stubborn]] = []

    def __init__(self, losses: int) -> None:
        self.made.append(self)
        self.losses = losses
        self.started = asyncio.Event()
        self.has_ended = False

    async def work(self, *_: object) -> None:
        self.started.set()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if self.losses <= 0:
                    self.has_ended = True
                    raise
                self.losses -= 1


async def bounded(work: Awaitable[object], within_s: float = 5.0) -> None:
    """Fail, rather than hang, if *work* does not end."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=within_s)
    assert task.done(), "the stop waits for ever"
    task.result()


async def test_lost_cancellation_of_a_background_task_is_repeated():
    stubborn = Stubborn(losses=3)

    async def body() -> None:
        async with running("stubborn", stubborn.work()):
            await stubborn.started.wait()

    await bounded(body())

    assert stubborn.has_ended


async def test_background_task_that_ignores_cancellation_is_abandoned(monkeypatch, caplog):
    monkeypatch.setattr(stopping.stop, "__kwdefaults__", {"within_s": 0.05})
    stubborn = Stubborn(losses=1_000_000)

    async def body() -> None:
        async with running("stubborn", stubborn.work()):
            await stubborn.started.wait()

    await bounded(body())

    assert "stubborn did not end within 0.05 s" in caplog.text


async def test_close_that_hangs_is_cancelled_and_logged(caplog):
    stubborn = Stubborn(losses=2)

    assert not await stopping.close("bus", stubborn.work(), within_s=0.02)

    assert stubborn.has_ended
    assert "closing bus took longer than 0.02 s" in caplog.text


async def test_service_whose_close_hangs_lets_the_next_close(monkeypatch, caplog):
    monkeypatch.setattr(stopping.close, "__kwdefaults__", {"within_s": 0.02})
    closed = []

    class Service:
        def __init__(self, close: Callable[[], Awaitable[object]]) -> None:
            self._close = close

        async def run(self) -> None:
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            await self._close()

    async def note() -> None:
        closed.append("first")

    async def body() -> None:
        async with serving("first", Service(note)), serving("second", Service(asyncio.Event().wait)):
            pass

    await bounded(body())

    assert closed == ["first"]
    assert "closing second" in caplog.text


async def test_error_of_a_close_is_raised():
    async def fail() -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await stopping.close("spool", fail())


async def test_lost_cancellation_inside_the_outbox_publisher():
    """A task group cancels its tasks once, and waits for ever for one that lost it."""
    stubborn = Stubborn(losses=3)

    class Bus:
        publish = stubborn.work

    publisher = OutboxPublisher(None, Bus(), None)  # type: ignore[arg-type]
    publisher._unpublished.put_nowait(OutboxEvent(1, EVENT))

    async def body() -> None:
        async with running("outbox publisher", publisher.run()):
            await stubborn.started.wait()

    await bounded(body())

    assert stubborn.has_ended


async def test_lost_cancellation_of_a_batch_is_repeated():
    stubborn = Stubborn(losses=3)
    batches: Batches[str] = Batches(stubborn.work, max_under_way=1, max_batch=1)
    batches.add("a")
    await stubborn.started.wait()

    await bounded(batches.aclose())

    assert stubborn.has_ended


async def test_handler_that_loses_its_cancellation_is_stopped():
    stubborn = Stubborn(losses=3)
    dispatcher = Dispatcher("cache", stubborn.work, sleep=asyncio.sleep)

    async def settle(_: str | None) -> None:
        pass

    feeder = asyncio.create_task(dispatcher.dispatch([EVENT], settle))
    await stubborn.started.wait()

    await bounded(dispatcher.stop(feeder, timeout_s=0.02))

    assert feeder.done()


async def test_handler_of_the_embedded_queue_is_stopped():
    stubborn = Stubborn(losses=3)
    queue = MemoryQueue("cache", max_dead_letters=1, retry_delays_s=(1,), sleep=asyncio.sleep, wall=time.time)
    queue.consume(stubborn.work, Unobserved())
    queue.put([EVENT])
    await stubborn.started.wait()

    await bounded(queue.stop(timeout_s=0.02))

    assert stubborn.has_ended


async def test_failure_of_one_loop_stops_the_others():
    stubborn = Stubborn(losses=2)

    async def fail() -> None:
        await stubborn.started.wait()
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        await stopping.together([stubborn.work(), fail()], "loops")

    assert stubborn.has_ended


async def test_outlasted_task_ends_before_its_caller():
    release, ended = asyncio.Event(), []

    async def work() -> None:
        await release.wait()
        ended.append("work")

    async def caller() -> None:
        await stopping.outlast(asyncio.create_task(work()))

    task = asyncio.create_task(caller())
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()

    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["work"]


async def test_stop_at_each_step_of_a_task_with_wait_for():
    """`asyncio.wait_for` of Python 3.11 drops a cancellation that arrives with the result."""

    async def reply() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def ask_for_ever() -> None:
        while True:
            await asyncio.wait_for(reply(), 5)

    for steps in range(20):

        async def body(steps: int = steps) -> None:
            async with running("asking", ask_for_ever()):
                for _ in range(steps):
                    await asyncio.sleep(0)

        await bounded(body())


class FakeConnection:
    """A broker that answers every request at once."""

    def __init__(self, *_: object, **__: object) -> None:
        self.kwargs: dict[str, object] = {}

    async def connect(self) -> None:
        await asyncio.wait_for(asyncio.sleep(0), 5)

    async def close(self) -> None:
        await asyncio.sleep(0)


@pytest.mark.parametrize("losses", [0, 1, 3])
async def test_connection_is_closed_at_each_step_of_its_session(monkeypatch, losses):
    monkeypatch.setattr(connection, "Connection", FakeConnection)
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT_S", 0.05)

    async def patient(tasks: Iterable[asyncio.Task[Any]], what: str, *, within_s: float) -> bool:
        # On a busy machine, four cancellations can take longer than the close of a connection here.
        return await stopping.stop(tasks, what, within_s=max(within_s, 4.0))

    monkeypatch.setattr(connection, "stop", patient)
    for steps in range(12):
        stubborn = Stubborn(losses)

        async def session(_: object, ready: Callable[[], None], stubborn: Stubborn = stubborn) -> None:
            await asyncio.wait_for(asyncio.sleep(0), 5)
            ready()
            await stubborn.work()

        supervised = connection.SupervisedConnection("amqp://localhost", "test", session)
        supervised.start()
        for _ in range(steps):
            await asyncio.sleep(0)

        await bounded(supervised.aclose())

        assert stubborn.has_ended == stubborn.started.is_set()


async def test_failed_work_still_stops_the_process(monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(number))

    async def fail() -> None:
        raise ValueError("bug")

    with contextlib.suppress(ValueError):
        async with running("failing", fail()):
            await asyncio.sleep(0.01)

    assert killed == [signal.SIGTERM]
