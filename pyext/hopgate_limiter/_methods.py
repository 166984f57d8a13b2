"""The methods of `Limiter` that are Python functions: coroutines, and context managers over `acquire`."""

from typing import TYPE_CHECKING

from hopgate_limiter._completions import peek_async as look_async
from hopgate_limiter._completions import refund_async as give_back_async
from hopgate_limiter._completions import submit
from hopgate_limiter._native import Decision, Limiter
from hopgate_limiter._waiting import acquire_local_async, acquire_unqueued_async, refused

if TYPE_CHECKING:
    from hopgate_limiter import Key, Rates

# The key of a limiter that is used without one.
NO_KEY = ""


class Slot:
    """
    Waits for a slot of its key at each entry; made by `Limiter.slot`.

    It keeps nothing between entries: it may be entered again, inside of itself too, and by several tasks and
    threads at once. Each entry takes units of its own. The target of `as` is the decision.
    """

    __slots__ = ("__weakref__", "_cost", "_key", "_limiter", "_rates", "_timeout")

    def __init__(
        self, limiter: Limiter, key: "Key", cost: int, timeout: float | None, rates: "Rates | None" = None
    ) -> None:
        if not isinstance(limiter, Limiter):
            raise TypeError(f"limiter must be Limiter, not {type(limiter).__name__}")
        self._limiter = limiter
        self._key = key
        self._cost = cost
        self._timeout = timeout
        self._rates = rates

    def __enter__(self) -> Decision:
        return _admitted(
            self._limiter.acquire(self._key, self._cost, timeout=self._timeout, rates=self._rates)
        )

    def __exit__(self, *exception: object) -> None:
        """Leave: the slot is used."""

    async def __aenter__(self) -> Decision:
        return _admitted(
            await self._limiter.acquire_async(self._key, self._cost, timeout=self._timeout, rates=self._rates)
        )

    async def __aexit__(self, *exception: object) -> None:
        """Leave: the slot is used."""


def _admitted(decision: Decision) -> Decision:
    if not decision:
        raise refused(decision)
    return decision


async def hit_async(
    self: Limiter, key: "Key" = NO_KEY, cost: int = 1, *, rates: "Rates | None" = None
) -> Decision:
    """As `hit`, for asyncio: while it waits for Redis, other tasks run."""
    decision = submit(self, key, cost, rates)
    if not isinstance(decision, Decision):
        decision = await decision
    self._report(key, decision)
    return decision


async def peek_async(
    self: Limiter, key: "Key" = NO_KEY, cost: int = 1, *, rates: "Rates | None" = None
) -> Decision:
    """As `peek`, for asyncio: while it waits for Redis, other tasks run."""
    return await look_async(self, key, cost, rates)


async def refund_async(
    self: Limiter, key: "Key" = NO_KEY, cost: int = 1, *, rates: "Rates | None" = None
) -> None:
    """As `refund`, for asyncio: while it waits for Redis, other tasks run."""
    await give_back_async(self, key, cost, rates)


async def acquire_async(
    self: Limiter,
    key: "Key" = NO_KEY,
    cost: int = 1,
    *,
    timeout: float | None = None,  # noqa: ASYNC109
    rates: "Rates | None" = None,
) -> Decision:
    """As `acquire`, for asyncio. The slot is taken when the call is first awaited."""
    if self._is_shared or rates is not None:
        return await acquire_unqueued_async(self, key, cost, timeout, rates)
    return await acquire_local_async(self, key, cost, timeout)


def slot(
    self: Limiter,
    key: "Key" = NO_KEY,
    cost: int = 1,
    *,
    timeout: float | None = None,
    rates: "Rates | None" = None,
) -> Slot:
    """
    Return a context manager, plain and async, that waits for `cost` units whenever it is entered.

        async with limiter.slot("alice", timeout=2.0):
            ...

    Entering raises RateLimitExceeded if the slot starts after the timeout, and ValueError as `acquire`.
    """
    return Slot(self, key, cost, timeout, rates)


def enter(self: Limiter) -> Limiter:
    """
    Wait for one unit of the key `""`: a limiter without keys is one bucket.

    Leaving closes nothing; to close a shared limiter at the end use `contextlib.closing`.
    """
    slot(self, NO_KEY).__enter__()
    return self


def leave(self: Limiter, *exception: object) -> None:
    pass


async def enter_async(self: Limiter) -> Limiter:
    await slot(self, NO_KEY).__aenter__()
    return self


async def leave_async(self: Limiter, *exception: object) -> None:
    pass


def install() -> None:
    """Make them methods of `Limiter`: a native class has no coroutine functions of its own."""
    methods = {
        "hit_async": hit_async,
        "peek_async": peek_async,
        "refund_async": refund_async,
        "acquire_async": acquire_async,
        "slot": slot,
        "__enter__": enter,
        "__exit__": leave,
        "__aenter__": enter_async,
        "__aexit__": leave_async,
    }
    for name, method in methods.items():
        method.__name__ = name
        method.__qualname__ = f"Limiter.{name}"
        method.__module__ = "hopgate_limiter"
        setattr(Limiter, name, method)
