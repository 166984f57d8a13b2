"""The speed of limiters that call Redis for every decision, with one or many concurrent callers."""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import cycle
from typing import NoReturn

from hopgate_limiter import Limiter, RedisSync

A_MINUTE = 100_000_000
"""The rate of each limiter: never short."""
MANY = 100
"""Decisions per call of `hit_many`."""

Ask = Callable[[str], object]
AskAsync = Callable[[str], Awaitable[object]]


@dataclass(frozen=True)
class Shape:
    """The number of callers and of keys."""

    title: str
    callers: int
    keys: int
    is_async: bool
    at_once: int = 1
    """Decisions per call of one caller."""

    def names(self) -> list[str]:
        """Return the keys, some of them in every caller's turn."""
        return [f"198.51.{number >> 8}.{number & 255}" for number in range(self.keys)]


SHAPES = (
    Shape("one task, one key", 1, 1, is_async=True),
    Shape("64 tasks, one key", 64, 1, is_async=True),
    Shape("64 tasks, 1,000 keys", 64, 1_000, is_async=True),
    Shape("one thread, one key", 1, 1, is_async=False),
    Shape("64 threads, one key", 64, 1, is_async=False),
    Shape("64 threads, 1,000 keys", 64, 1_000, is_async=False),
    Shape(f"one thread, {MANY} at once, one key", 1, 1, is_async=False, at_once=MANY),
    Shape(f"one thread, {MANY} at once, 1,000 keys", 1, 1_000, is_async=False, at_once=MANY),
)


def ours(url: str) -> Limiter:
    """Redis decides each call. The timeout is long, so that a busy machine causes no fallback."""
    sync = RedisSync(url, prefix="ours:", mode="every_hit", timeout=5.0)
    return Limiter(f"{A_MINUTE}/min burst {A_MINUTE}", max_keys=100_000, sync=sync)


def limits_async(url: str, strategy: str) -> AskAsync:
    """`limits.aio` over redis-py."""
    import limits
    import limits.aio

    storage = limits.storage.storage_from_string(f"async+{url}", implementation="redispy")
    limiter = getattr(limits.aio.strategies, strategy)(storage)
    item = limits.parse(f"{A_MINUTE}/minute")
    return lambda key: limiter.hit(item, strategy, key)


def limits_sync(url: str, strategy: str) -> Ask:
    """`limits` over redis-py."""
    import limits

    limiter = getattr(limits.strategies, strategy)(limits.storage.storage_from_string(url))
    item = limits.parse(f"{A_MINUTE}/minute")
    return lambda key: limiter.hit(item, strategy, key)


def throttled_async(url: str, algorithm: str) -> AskAsync:
    """throttled-py for asyncio."""
    from throttled.asyncio import RedisStore, Throttled, per_duration

    quota = per_duration(timedelta(minutes=1), A_MINUTE, burst=A_MINUTE)
    return Throttled(using=algorithm, quota=quota, store=RedisStore(url), key_prefix=algorithm).limit


def throttled_sync(url: str, algorithm: str) -> Ask:
    """throttled-py."""
    from throttled import RedisStore, Throttled, per_duration

    quota = per_duration(timedelta(minutes=1), A_MINUTE, burst=A_MINUTE)
    return Throttled(using=algorithm, quota=quota, store=RedisStore(url), key_prefix=algorithm).limit


RIVALS: dict[str, tuple[Callable[[str, str], AskAsync], Callable[[str, str], Ask], str]] = {
    "limits, fixed window": (limits_async, limits_sync, "FixedWindowRateLimiter"),
    "limits, moving window": (limits_async, limits_sync, "MovingWindowRateLimiter"),
    "throttled-py, GCRA": (throttled_async, throttled_sync, "gcra"),
    "throttled-py, token bucket": (throttled_async, throttled_sync, "token_bucket"),
}
"""The name of each rival, and how to make it for tasks and for threads."""


def _nobody(_key: str) -> NoReturn:
    raise RuntimeError("it is closed")


class Side:
    """One limiter with its event loop and connections, called in one shape for a time."""

    def __init__(self, shape: Shape, url: str, rival: str | None) -> None:
        self._shape = shape
        self._loop = asyncio.new_event_loop() if shape.is_async else None
        self._limiter = ours(url) if rival is None else None
        if rival is None:
            assert self._limiter is not None
            self._ask_async: AskAsync = self._limiter.hit_async
            self._ask: Ask = self._limiter.hit
        else:
            factory_async, factory, name = RIVALS[rival]
            if shape.is_async:
                self._ask_async = factory_async(url, name)
            else:
                self._ask = factory(url, name)

    def per_second(self, seconds: float) -> float:
        """Call for that time, and return decisions per second."""
        counts = [0] * self._shape.callers
        names = self._shape.names()
        start = time.perf_counter()
        until = start + seconds
        if self._loop is not None:
            self._loop.run_until_complete(self._tasks(counts, names, until))
        elif self._shape.at_once > 1:
            self._many(counts, names, until)
        else:
            self._threads(counts, names, until)
        elapsed = time.perf_counter() - start
        if self._limiter is not None and self._limiter.stats().redis_errors:
            raise RuntimeError("Redis did not reply: the figure would be wrong")
        return sum(counts) / elapsed

    def close(self) -> None:
        """Close the connections."""
        if self._limiter is not None:
            self._limiter.close()
        if self._loop is not None:
            self._loop.close()
        self._ask = self._ask_async = _nobody
        with warnings.catch_warnings():
            # The rivals have no common method to close; redis-py warns of open connections.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    async def _tasks(self, counts: list[int], names: list[str], until: float) -> None:
        ask, clock = self._ask_async, time.perf_counter

        async def caller(number: int) -> None:
            for key in cycle(names[number % len(names) :] + names[: number % len(names)]):
                await ask(key)
                counts[number] += 1
                if clock() >= until:
                    return

        await asyncio.gather(*map(caller, range(len(counts))))

    def _threads(self, counts: list[int], names: list[str], until: float) -> None:
        ask, clock = self._ask, time.perf_counter

        def caller(number: int) -> None:
            for key in cycle(names[number % len(names) :] + names[: number % len(names)]):
                ask(key)
                counts[number] += 1
                if clock() >= until:
                    return

        threads = [threading.Thread(target=caller, args=(number,)) for number in range(len(counts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _many(self, counts: list[int], names: list[str], until: float) -> None:
        keys = cycle(names)
        while time.perf_counter() < until:
            batch = [(next(keys), 1) for _ in range(self._shape.at_once)]
            if self._limiter is not None:
                self._limiter.hit_many(batch)
            else:
                for key, _ in batch:  # they have no batch call
                    self._ask(key)
            counts[0] += len(batch)


def compare(
    shape: Shape, url: str, rivals: Sequence[str], rounds: int, seconds: float
) -> dict[str, tuple[float, float]]:
    """Return (ours, theirs) in decisions per second for each rival: medians of alternating rounds."""
    sides: dict[str | None, Side] = {rival: Side(shape, url, rival) for rival in (None, *rivals)}
    try:
        for side in sides.values():
            side.per_second(seconds / 4)
        figures: dict[str | None, list[float]] = {rival: [] for rival in sides}
        for _ in range(rounds):
            for rival, side in sides.items():
                figures[rival].append(side.per_second(seconds))
    finally:
        for side in sides.values():
            side.close()
    median = {rival: statistics.median(values) for rival, values in figures.items()}
    return {rival: (median[None], median[rival]) for rival in rivals}
