"""The limiters to compare, each as a function from a key to its decision."""

import asyncio
from collections.abc import Callable
from functools import partial

Ask = Callable[[str], object]
"""Ask for one unit of a key."""

UNLIMITED, HOURLY = "admitted", "refused"
"""Two settings: every call is admitted (10⁸ a minute), or every call but the first is refused (1 an hour)."""


ADMITTED = "1000/h burst 100000000"
"""Never short, yet a key stays in debt for 3.6 s: no key of a run is idle and evicted."""


def ours(setting: str) -> Ask:
    """`Limiter.allow`."""
    from hopgate_limiter import Limiter

    return Limiter(ADMITTED if setting == UNLIMITED else "1/h", max_keys=2_000_000).allow


def ours_hit(setting: str) -> Ask:
    """`Limiter.hit`."""
    from hopgate_limiter import Limiter

    return Limiter(ADMITTED if setting == UNLIMITED else "1/h", max_keys=2_000_000).hit


def _limits(strategy: str, setting: str) -> Ask:
    import limits
    from limits.storage import MemoryStorage

    item = limits.parse("100000000/minute" if setting == UNLIMITED else "1/hour")
    limiter = limits.strategies.STRATEGIES[strategy](MemoryStorage())
    return partial(limiter.hit, item)


def limits_fixed(setting: str) -> Ask:
    """The fastest strategy of limits."""
    return _limits("fixed-window", setting)


def limits_moving(setting: str) -> Ask:
    """The exact strategy of limits."""
    return _limits("moving-window", setting)


def limits_counter(setting: str) -> Ask:
    """The approximate sliding window of limits."""
    return _limits("sliding-window-counter", setting)


def limits_hit_and_stats(setting: str) -> Ask:
    """The calls for the fields of one `Decision`: the result, the remaining units, and the reset time."""
    import limits
    from limits.storage import MemoryStorage

    item = limits.parse("100000000/minute" if setting == UNLIMITED else "1/hour")
    limiter = limits.strategies.FixedWindowRateLimiter(MemoryStorage())
    return lambda key: (limiter.hit(item, key), limiter.get_window_stats(item, key))


def _throttled(algorithm: str, setting: str) -> Ask:
    from datetime import timedelta

    from throttled import MemoryStore, Throttled, per_duration

    # The burst equals the limit of a window; by default the store keeps only 1024 keys.
    quota = (
        per_duration(timedelta(minutes=1), 10**8, burst=10**8)
        if setting == UNLIMITED
        else per_duration(timedelta(hours=1), 1, burst=1)
    )
    store = MemoryStore(options={"MAX_SIZE": 2_000_000})
    limiter = Throttled(using=algorithm, quota=quota, store=store)
    return limiter.limit


def throttled_gcra(setting: str) -> Ask:
    """throttled-py, GCRA."""
    return _throttled("gcra", setting)


def throttled_bucket(setting: str) -> Ask:
    """throttled-py, token bucket."""
    return _throttled("token_bucket", setting)


def pyrate_gcra(setting: str) -> Ask:
    """One bucket per key, as in its documentation."""
    from pyrate_limiter import (
        GCRA,
        BucketFactory,
        Duration,
        InMemoryStateStore,
        Limiter,
        MonotonicClock,
        Rate,
        RateItem,
        StateBucket,
    )

    rate = Rate(10**8, Duration.MINUTE) if setting == UNLIMITED else Rate(1, Duration.HOUR)
    clock = MonotonicClock()

    class PerKey(BucketFactory):
        def __init__(self) -> None:
            self.buckets: dict[str, StateBucket] = {}

        def wrap_item(self, name: str, weight: int = 1) -> RateItem:
            return RateItem(name, clock.now(), weight=weight)

        def get(self, item: RateItem) -> StateBucket:
            bucket = self.buckets.get(item.name)
            if bucket is None:
                store = InMemoryStateStore()
                bucket = self.buckets[item.name] = StateBucket([rate], GCRA(), store, clock)
            return bucket

    limiter = Limiter(PerKey())
    return lambda key: limiter.try_acquire(key, blocking=False)


def aiolimiter_bucket(setting: str) -> Ask:
    """An `AsyncLimiter` per key; driven without an event loop, since an admitted call never waits."""
    from aiolimiter import AsyncLimiter

    limiters: dict[str, AsyncLimiter] = {}
    loop = asyncio.new_event_loop()

    async def ask(key: str) -> None:
        limiter = limiters.get(key)
        if limiter is None:
            limiter = limiters[key] = AsyncLimiter(10**8, 60)
        await limiter.acquire()

    def drive(key: str) -> None:
        asyncio._set_running_loop(loop)
        try:
            ask(key).send(None)
        except StopIteration:
            pass
        finally:
            asyncio._set_running_loop(None)

    if setting != UNLIMITED:
        raise ValueError(f"aiolimiter waits and never refuses: it has no figure for {setting!r}")
    return drive


RIVALS: dict[str, tuple[Callable[[str], Ask], Callable[[str], Ask]]] = {
    "limits, fixed window": (limits_fixed, ours),
    "limits, sliding counter": (limits_counter, ours),
    "limits, moving window": (limits_moving, ours),
    "throttled-py, GCRA": (throttled_gcra, ours),
    "throttled-py, token bucket": (throttled_bucket, ours),
    "PyrateLimiter, GCRA": (pyrate_gcra, ours),
    "aiolimiter": (aiolimiter_bucket, ours),
    "limits, fixed window + stats": (limits_hit_and_stats, ours_hit),
}
"""The rivals of `allow` and of `hit`."""

PACKAGES = ["limits", "throttled-py", "pyrate-limiter", "aiolimiter"]
