"""
A rate limiter: exact, bounded in memory, and fast; in one process, or shared through Redis.

    limiter = Limiter("10/s burst 20; 1000/h")
    if not limiter.allow(client_key("198.51.100.7")):
        ...

Every class is final, immutable from outside and safe to share between threads. No call does I/O or blocks
unless its documentation says so. Times are seconds as float for people and nanoseconds as int (`_ns`) where
exactness matters. Errors are ValueError (an invalid value), OverflowError (a valid value that does not fit)
and TypeError; their messages name the argument and the value.
"""

from collections.abc import Callable, Iterable
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, Protocol, TypeAlias, final, runtime_checkable
from uuid import UUID

from hopgate_limiter._native import _CompletionQueue, _Request

__all__ = [
    "Clock",
    "CostTooLargeError",
    "Decision",
    "Key",
    "Limiter",
    "ManualClock",
    "Rate",
    "RateLimitExceeded",
    "Rates",
    "RedisSync",
    "Reservation",
    "Seconds",
    "Slot",
    "Stats",
    "__version__",
    "client_key",
]

__version__: str

Seconds: TypeAlias = float
"""A duration or a delay. Never a date."""

Key: TypeAlias = str | bytes | int | UUID | IPv4Address | IPv6Address | tuple["Key", ...]
"""
The subject of a limit. Keys of different types are different keys: `"1"`, `b"1"` and `1` are three, and an
address is not its text. A tuple is one key of several parts, tuples in it at most 16 deep: `("a", "b")`,
`("ab",)`, `"a,b"` and `(("a", "b"),)` are four. `True` is 1. Equal keys are one key in all processes that
share a limit.

The empty text is a key like any other, and the one that calls without a key use: `limiter.hit()` counts all
calls in one bucket. None is no key.

A limiter stores a 64-bit hash of the key under a random seed, not the key. Two of n keys share a hash with a
probability below n² / 2⁶⁵ (a million keys: one in 36 million); that admits less, never more.
"""

@final
class Rate:
    """
    `limit` units per period, at most `burst` at once.

    In any span of Δ a token bucket admits at most burst + Δ · limit / period: with the default burst that is
    up to twice the limit in the first period. Use a sliding window where that is too much.

    `str(rate)` is what `Rate.parse` reads: "10/s burst 20". Rates are ordered by period, then limit, burst
    and name.
    """

    def __new__(
        cls,
        limit: int,
        per: str | Seconds | timedelta,
        *,
        burst: int | None = None,
        name: str = "default",
    ) -> Rate:
        """
        Make a rate.

        Args:
            limit: units per period, 1 to 2⁶³ − 1.
            per: the period: a unit with or without a number before it ("s", "10s", "500ms", "5 minutes",
                "week", see `parse`), seconds, or a timedelta. Rounded to a nanosecond.
            burst: most units at once, 1 to 2⁶³ − 1; `limit` if None. Sliding windows take none.
            name: shown in decisions and headers; 1 to 64 printable ASCII characters without quotes and
                backslashes. The rates of one limiter need different names: those without one are then named
                after their numbers ("100/s", "100/s burst 5").

        Raises:
            ValueError: a number below 1, an unknown unit, a bad name.
            OverflowError: a number of 2⁶³ or more, more than 4096 units per nanosecond, or an empty burst
                that would take 2⁶³ ns (292 years) to fill up.
        """

    @staticmethod
    def parse(spec: str) -> tuple[Rate, ...]:
        """
        Rates from text: "10/s burst 20; 1000 per 5 hours".

        A rate is LIMIT/PERIOD or LIMIT per PERIOD, and `burst N` after it if that is not the limit. A period
        is a unit with or without a number before it: ns, us, ms, s, min (or m), h, d, w, month (30 days), y
        (365 days), or spelled out ("5 minutes"). `;`, `,` and `|` separate rates. Case and spaces do not
        matter. Numbers may have a fraction; a limit with one is read as the whole numbers that say the same:
        "0.5/s" is "1/2s", with a burst of 1.

        Each is named after its text without the burst: "10/s", "1000/5hours".

        Raises:
            ValueError: a clause that cannot be read, which the message names.
            OverflowError: as the constructor.
        """

    @property
    def limit(self) -> int:
        """Units per period."""

    @property
    def period_ns(self) -> int:
        """Length of the period in nanoseconds."""

    @property
    def burst(self) -> int:
        """Most units admitted at once."""

    @property
    def name(self) -> str:
        """Name shown in decisions and headers."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: Rate, /) -> bool: ...
    def __le__(self, other: Rate, /) -> bool: ...
    def __gt__(self, other: Rate, /) -> bool: ...
    def __ge__(self, other: Rate, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __reduce__(self) -> tuple[object, tuple[object, ...]]: ...
    @staticmethod
    def _restore(limit: int, period_ns: int, burst: int, name: str) -> Rate: ...

Rates: TypeAlias = str | Rate | Iterable[str | Rate]
"""Rates for one call: text for `Rate.parse`, a rate, or several of these."""

@final
class Decision:
    """The decision about one call. True if it is admitted. Attributes are converted when they are read."""

    @property
    def allowed(self) -> bool:
        """Whether the call is admitted."""

    @property
    def limit(self) -> int:
        """Units per period of the rate named by `policy`."""

    @property
    def remaining(self) -> int:
        """The largest cost that would be admitted right now, after this call: 0 to the smallest burst."""

    @property
    def cost(self) -> int:
        """Units asked for."""

    @property
    def retry_after(self) -> Seconds:
        """
        Seconds until the same call is admitted if no other comes first: exact to the nanosecond, and minimal.

        0.0 if it was admitted, inf if the cost is above the most that can be admitted at once.
        If the table was full and `on_full` is "deny", this is an estimate: the shortest time in which a rate
        refills.
        """

    @property
    def reset_after(self) -> Seconds:
        """Time until the key equals a new one, under all rates."""

    @property
    def policy(self) -> str:
        """Name of the rate that refused for longest or, if none did, of the one with the least left."""

    @property
    def source(self) -> Literal["local", "lease", "redis", "negative-cache", "fallback", "shadow"]:
        """
        The origin of the decision.

        "local": this process alone. "lease": this process, from tokens that Redis has leased to it.
        "redis": Redis. "negative-cache": this process, repeating a refusal by Redis of the same cost or less;
        it lasts a lease's lifetime at most, and `retry_after` may be too short for a larger cost.
        "fallback": this process, because Redis does not reply. "shadow": shadow mode, instead of a refusal.
        """

    def headers(
        self,
        *,
        style: Literal["ietf", "legacy", "both"] = "ietf",
        redirect: bool = False,
        jitter: int = 0,
    ) -> dict[str, str]:
        """
        Headers for the response.

        "ietf" gives `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11). A rate is
        announced as q = burst per w = seconds in which an empty burst fills up, since that holds in every
        such window; w is left out below one second. t is `retry_after` if refused, else `reset_after`,
        rounded up.
        "legacy" gives `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds from now).
        A refused call also gets `Retry-After`: whole seconds, rounded up, at least 1; none if it can never
        succeed.

        Args:
            redirect: the response is a 3xx. An exhausted quota is then not announced, because clients may
                wait before they follow the redirect.
            jitter: seconds added to the wait of a refused client. Draw it at random, so that clients refused
                at once do not retry at once.
        """

    def _fields(self, style: str, redirect: bool) -> list[tuple[bytes, bytes]]: ...
    def __bool__(self, /) -> bool: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __reduce__(self) -> tuple[object, tuple[object, ...]]: ...
    @staticmethod
    def _restore(
        allowed: bool,
        cost: int,
        remaining: int,
        retry_after_ns: int | None,
        reset_after_ns: int,
        source: str,
        rates: tuple[Rate, ...],
        tightest: int,
    ) -> Decision: ...

@final
class Limiter:
    """
    Decides whether calls are admitted. All rates must admit a call; a refused call changes nothing.

    Time is the system's monotonic clock: steps of the wall clock do not matter. With `sync`, several
    processes share the limits (see `RedisSync`); `close` then gives back the tokens on lease at
    its end.
    """

    def __new__(
        cls,
        *rates: Rate | str,
        algorithm: Literal["gcra", "sliding_log", "sliding_window"] = "gcra",
        max_keys: int = 1_000_000,
        max_bytes: int | None = None,
        on_full: Literal["deny", "shared_bucket", "evict_idle"] = "evict_idle",
        precision: int = 16,
        shadow: bool = False,
        clock: Clock | None = None,
        sync: RedisSync | None = None,
        on_decision: Callable[[Key, Decision], object] | None = None,
    ) -> Limiter:
        """
        Make a limiter.

        Args:
            rates: at least one; text is read by `Rate.parse`. All must admit a call.
            algorithm:
                "gcra": token bucket by the Generic Cell Rate Algorithm (ITU-T I.371). In any span of Δ at
                    most burst + Δ · limit / period. 16 bytes of state per key and rate.
                "sliding_log": at most `limit` in any half-open window (t − period, t], and every call that
                    fits is admitted. 16 bytes of state per admitted instant, so for small limits.
                "sliding_window": the same bound from `precision` buckets. The oldest bucket counts in full,
                    so up to one bucket's width longer. 8 bytes of state per bucket.
            max_keys: most keys stored, 1 to 2³². Memory grows with the keys in use, up to this. A large
                table is split into up to 64 shards of equal size, so about its last 2 % may stay unused.
            max_bytes: most memory for keys and their states; as many keys are stored as fit if each takes the
                most that it can. That is 32 bytes for "gcra" and one rate, about twice 16 · `limit` for
                "sliding_log", about 1.5 kB for shared limits, whose keys are hashed beyond 256 bytes.
            on_full: the policy for a new key without room. Idle keys (with the state of a new key) are
                evicted as new ones arrive. A key in debt is never evicted.
                "deny": the call is refused.
                "shared_bucket": the key shares one bucket with all keys without room (one bucket per shard).
                "evict_idle": the same, after examining more slots for an idle key.
            precision: buckets per window, 1 to 1024, for "sliding_window".
            shadow: decide and count as usual, but admit every call.
            clock: the time source instead of the system's monotonic clock: a `ManualClock` in tests, or an
                object of your own that satisfies `Clock`. One of your own is not for shared limits.
            sync: share the limits with other processes. Not for "sliding_log".
            on_decision: called with the key and the decision after each call that takes units, by the thread
                that made it (for a decision of Redis under asyncio, in the event loop). No lock is held.
                Callers wait for it, so it should only count; what it raises goes to `sys.unraisablehook`, and
                the decision stands. A caller that waits reports once.

        Raises:
            ValueError: no rate, two of one name, a burst on a sliding window, a number out of range, an
                unknown word, a `sync` that another limiter has, a clock of your own for shared limits.
            TypeError: a clock without `now_ns`, an `on_decision` that cannot be called.
            OverflowError: a number too large; a shared rate holds at most 2³² units and 35 years.
        """

    def allow(self, key: Key = "", cost: int = 1, *, rates: Rates | None = None) -> bool:
        """
        Take `cost` units if they are there. The fastest call: it makes no object.

        Args:
            key: without one, the key is the empty text: one bucket for all calls.
            cost: 0 to 2⁶³ − 1 units. 0 is always admitted and changes nothing.
            rates: see `hit`.

        Raises:
            ValueError, OverflowError: a cost out of range. TypeError: not a key, not a cost.
        """

    def hit(self, key: Key = "", cost: int = 1, *, rates: Rates | None = None) -> Decision:
        """
        Take `cost` units if they are there, and return the full decision.

        With shared limits this and `allow` may wait for Redis, for at most three times its `timeout`, while
        other threads run; in an event loop use `hit_async`.

        Args:
            rates: use these for this call, as for a customer with a limit of its own: as many as the limiter
                has and in the same order; for sliding windows with the same periods. Use the same rates at
                every call for a key, in all processes: its debt is kept as time, and cut to the most that the
                rates in use admit.

        Raises:
            ValueError, OverflowError: a cost out of range, rates that cannot be used here.
            TypeError: not a key, not a cost, no rates.
        """

    async def hit_async(self, key: Key = "", cost: int = 1, *, rates: Rates | None = None) -> Decision:
        """As `hit`, for asyncio: while it waits for Redis, other tasks run."""

    def peek(self, key: Key = "", cost: int = 1, *, rates: Rates | None = None) -> Decision:
        """
        Return the decision that `hit` would make now. Takes nothing and is not counted.

        With shared limits it asks Redis, by one message, as `hit` with a cost of 0 does; `remaining` is what
        is left there and what this process holds on lease. While Redis is away the source is "fallback".
        With `cold="optimistic"` no call waits: it says what this process knows, as "lease" or "local".
        """

    async def peek_async(self, key: Key = "", cost: int = 1, *, rates: Rates | None = None) -> Decision:
        """As `peek`, for asyncio: while it waits for Redis, other tasks run."""

    def hit_many(self, items: Iterable[tuple[Key, int]], *, rates: Rates | None = None) -> list[Decision]:
        """
        Several hits at one instant, in order, for the cost of one call.

        All items are read first: a bad one raises before any unit is taken. Requests to Redis share one
        pipeline.

        Args:
            items: pairs of a key and a cost.
            rates: see `hit`; those of all items.
        """

    def acquire(
        self, key: Key = "", cost: int = 1, *, timeout: Seconds | None = None, rates: Rates | None = None
    ) -> Decision:
        """
        Wait for `cost` units; other threads run meanwhile.

        Callers of one key are served in the order of their calls, each in its own slot; a small cost does
        not overtake a large one. A caller that is interrupted gives its slot back, and those behind it move
        up. `configure`, `reset` and `refund` move the callers up, too.
        Shared limits and callers with `rates` have no queue: they sleep for `retry_after` and try again, in
        no order.

        Args:
            timeout: the longest wait in seconds, unlimited if None. It is compared before waiting: if the
                slot starts later, the call is refused at once and takes nothing.
            rates: see `hit`.

        Raises:
            ValueError: a cost that never fits (`CostTooLargeError`), or a timeout below 0.
        """

    async def acquire_async(
        self,
        key: Key = "",
        cost: int = 1,
        *,
        timeout: Seconds | None = None,  # noqa: ASYNC109
        rates: Rates | None = None,
    ) -> Decision:
        """As `acquire`, for asyncio. The slot is taken when the call is first awaited."""

    def slot(
        self, key: Key = "", cost: int = 1, *, timeout: Seconds | None = None, rates: Rates | None = None
    ) -> Slot:
        """
        Return a context manager, plain and async, that waits for `cost` units whenever it is entered.

            async with limiter.slot("alice", timeout=2.0):
                ...

        Entering raises RateLimitExceeded if the slot starts after the timeout, and ValueError as `acquire`.
        """

    def reserve(
        self, key: Key = "", cost: int = 1, *, max_wait: Seconds | None = None, rates: Rates | None = None
    ) -> Reservation:
        """
        Take the first free slot for `cost` units; the caller waits for it.

        Its time is a promise: it does not move when others go. Only `configure` and `reset` can let it start
        earlier; nothing lets it start later.

        Args:
            max_wait: the longest wait in seconds, unlimited if None.
            rates: see `hit`. The slot is measured by them, also when it is given back, behind all slots that
                are taken.

        Raises:
            RateLimitExceeded: the slot starts more than `max_wait` seconds from now.
            ValueError: the cost never fits (a `CostTooLargeError`, which is both), or the limits are shared:
                Redis keeps no slots in the future. Use `acquire`.
        """

    def _reserve(
        self, key: Key, cost: int, timeout: Seconds | None
    ) -> tuple[Decision, Reservation | None]: ...
    def refund(self, key: Key = "", cost: int = 1, *, rates: Rates | None = None) -> None:
        """
        Give back `cost` units that were just taken and not used. A key never holds more than a new one.

        Call it soon: units that have been refilled meanwhile would be counted twice. Windows give back their
        oldest hits. A key without state gets no refund: it is as good as new.

        With shared limits the units go back into this process's lease while it lasts, and otherwise to
        Redis: one message, for whose reply the call waits. A second one follows if another process has just
        given back units of the same key, or if this process has not used the key lately. With
        `cold="optimistic"` no call waits: a refund that Redis does not confirm is logged.

        Args:
            rates: those by which the units were taken.

        Raises:
            ConnectionError: Redis is away and only it has the units, or it has not confirmed the refund in
                time. Calls that were admitted without Redis get their units back without it.
        """

    async def refund_async(self, key: Key = "", cost: int = 1, *, rates: Rates | None = None) -> None:
        """As `refund`, for asyncio: while it waits for Redis, other tasks run."""

    def reset(self, key: Key = "") -> None:
        """
        Forget the key: it is new again.

        With shared limits this is for all processes, once Redis has the request; tokens on lease stay. A lost
        request is not repeated.
        """

    def configure(self, *rates: Rate | str) -> None:
        """
        Change the rates, for all keys at once.

        A rate continues the one of the same name, else the one at the same position; others start anew.
        Units spent stay spent: a looser rate refuses no call that the old one would have admitted, and a
        tighter one cuts the debt to the most that it admits. Slots that are taken start as early as a looser
        rate allows, and callers that wait for them wake up. Takes time proportional to the number of keys,
        during which other threads wait. Shared limits continue by position; configure all processes alike.

        Raises:
            ValueError: as the constructor; then nothing has changed.
        """

    def stats(self) -> Stats:
        """The counters since the limiter was made."""

    def ping(self) -> None:
        """
        Ask Redis whether it serves these limits: it is reachable, and permits what they need.

        It blocks for a few of Redis's timeouts at most, while other threads run. Does nothing for a limiter
        that is not shared.

        Raises:
            ConnectionError: it does not; the message says why.
        """

    def close(self) -> None:
        """
        Give back the tokens on lease and disconnect from Redis, within three of its timeouts.

        Later calls are decided as if Redis were down. Does nothing for a limiter that is not shared.
        """

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The rates in force."""

    def __enter__(self) -> Limiter:
        """
        Wait for one unit of the key `""`: a limiter without keys is one bucket.

        Leaving closes nothing; to close a shared limiter at the end use `contextlib.closing`.
        """

    def __exit__(self, *exception: object) -> None: ...
    async def __aenter__(self) -> Limiter: ...
    async def __aexit__(self, *exception: object) -> None: ...
    @property
    def _is_shared(self) -> bool: ...
    @property
    def _c_api(self) -> object: ...
    def _submit_peek(
        self,
        key: Key,
        cost: int,
        queue: _CompletionQueue,
        call_id: int,
        rates: Rates | None = None,
    ) -> Decision | None: ...
    def _submit_refund(
        self,
        key: Key,
        cost: int,
        queue: _CompletionQueue,
        call_id: int,
        rates: Rates | None = None,
    ) -> bool | None: ...
    def _is_replying(self, waited: Seconds) -> bool: ...
    def _peek_fallback(self, key: Key, cost: int) -> Decision: ...
    @property
    def _longest_sleep(self) -> Seconds | None: ...
    @property
    def _now_ns(self) -> int: ...
    def _submit(
        self,
        key: Key,
        cost: int,
        queue: _CompletionQueue,
        call_id: int,
        rates: Rates | None = None,
    ) -> Decision | None: ...
    def _try_hit(self, key: Key, cost: int, rates: Rates | None = None) -> Decision: ...
    def _report(self, key: Key, decision: Decision) -> None: ...
    @property
    def _reply_timeout(self) -> Seconds: ...
    def _decide_fallback(self, key: Key, cost: int) -> Decision: ...
    def _collect(self, limit: int = 256) -> list[_Request]: ...
    def _complete(self, request: _Request, reply: list[int] | None) -> None: ...
    def _ledger(self) -> tuple[int, int, int, int]: ...

@final
class Slot:
    """
    Waits for a slot of its key at each entry; made by `Limiter.slot`.

    It keeps nothing between entries: it may be entered again, inside of itself too, and by several tasks and
    threads at once. Each entry takes units of its own. The target of `as` is the decision.
    """

    def __init__(
        self, limiter: Limiter, key: Key, cost: int, timeout: Seconds | None, rates: Rates | None = None
    ) -> None: ...
    def __enter__(self) -> Decision: ...
    def __exit__(self, *exception: object) -> None: ...
    async def __aenter__(self) -> Decision: ...
    async def __aexit__(self, *exception: object) -> None: ...

@final
class Reservation:
    """
    A slot taken in advance, made by `Limiter.reserve`.

    As a context manager, plain or async, it waits for the slot, which may then move up as in `acquire`. If
    the wait is interrupted, it is cancelled. It is entered once, by one task or thread. RuntimeError if it
    was used or cancelled before, or is cancelled during the wait.

        with limiter.reserve("alice", max_wait=2.0):
            ...
    """

    @property
    def delay(self) -> Seconds:
        """Seconds until the slot starts; 0.0 once it has."""

    def cancel(self) -> None:
        """
        Give the slot back.

        Callers that wait behind it move up. A slot that `reserve` has promised to another caller does not
        move: the room before it is free again once that slot has been used or given back. The second call
        does nothing.
        """

    @property
    def _id(self) -> int: ...
    def _wait_for(self) -> None: ...
    def _left(self) -> Seconds: ...
    def _serve(self) -> None: ...
    @property
    def _longest_sleep(self) -> Seconds | None: ...
    def __enter__(self) -> Reservation: ...
    def __exit__(self, *exception: object) -> None: ...
    async def __aenter__(self) -> Reservation: ...
    async def __aexit__(self, *exception: object) -> None: ...

class RateLimitExceeded(Exception):
    """No slot within the longest wait."""

    decision: Decision
    """The refusal, with the time of the next slot."""

    def __init__(self, decision: Decision) -> None: ...

class CostTooLargeError(RateLimitExceeded, ValueError):
    """The cost is above the most that can be admitted at once: it never fits, however long the wait."""

@final
class Stats:
    """The counters of a limiter since it was made."""

    @property
    def allowed(self) -> int:
        """Calls admitted."""

    @property
    def denied(self) -> int:
        """Calls refused; in shadow mode, calls that would have been refused."""

    @property
    def keys(self) -> int:
        """Keys stored now."""

    @property
    def evicted_idle(self) -> int:
        """Idle keys evicted, which changes no decision."""

    @property
    def evicted_live(self) -> int:
        """Keys evicted in debt: always 0, the engine never does that."""

    @property
    def overflowed(self) -> int:
        """Calls decided by a shared bucket because there was no room for the key."""

    @property
    def lease_hits(self) -> int:
        """Calls decided from tokens held on lease."""

    @property
    def remote_calls(self) -> int:
        """Requests sent to Redis, each for one key."""

    @property
    def redis_errors(self) -> int:
        """Requests without a reply in time, and failed attempts to reach Redis: each one counts."""

    @property
    def held(self) -> int:
        """Tokens held on lease now, over all keys."""

    @property
    def max_overshoot(self) -> int:
        """`RedisSync.overshoot_bound` for the number of live processes; the largest of all rates."""

    @property
    def last_error(self) -> str | None:
        """Why Redis last failed or refused to serve; None if it never did. Stays after Redis is back."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __reduce__(self) -> tuple[object, tuple[object, ...]]: ...
    @staticmethod
    def _restore(
        allowed: int,
        denied: int,
        keys: int,
        evicted_idle: int,
        evicted_live: int,
        overflowed: int,
        lease_hits: int,
        remote_calls: int,
        redis_errors: int,
        held: int,
        max_overshoot: int,
        last_error: str | None,
    ) -> Stats: ...

@final
class RedisSync:
    """
    Limits that several processes share through Redis 7 or later (or Valkey).

    Calls are decided in the process, from tokens that Redis has leased to it and *debited before*: so in
    "strict" mode all processes together never admit more than the rates, with any number of processes and any
    loss of messages, processes and connections. A background thread requests tokens before they run out; a
    call on a busy key costs as much as without Redis.

        limiter = Limiter("100/s burst 200", sync=RedisSync("redis://localhost/1", prefix="rl:api:"))

    While Redis does not serve them, calls are decided by `on_error`. That is logged through `logging`, as
    "hopgate_limiter": one warning when it begins, with the reason, and one when it ends.

    An unknown outcome counts as the one that admits less: if Redis may have granted tokens and the reply was
    lost, they are not used.
    """

    def __new__(
        cls,
        url: str,
        *,
        prefix: str = "rl:",
        mode: Literal["strict", "leased", "every_hit"] = "strict",
        max_outstanding: float = 0.25,
        lease_ttl: Seconds = 0.5,
        max_lease: int | None = None,
        cold: Literal["sync", "optimistic"] = "sync",
        optimistic: int | None = None,
        on_error: Literal["share", "deny", "allow"] = "share",
        timeout: Seconds = 0.25,
        fresh: Literal["full", "empty"] = "full",
        require: bool = False,
    ) -> RedisSync:
        """
        Set how limits are shared. The first call that needs Redis connects.

        Args:
            url: `redis://[user:password@]host[:port][/db]`, with an IPv6 address in brackets; `rediss://`
                for TLS; `redis+cluster://` and `rediss+cluster://` with any node of a cluster;
                `redis+sentinel://[user:password@]host[:port],host[:port]/name[/db]` and
                `rediss+sentinel://` with the sentinels of a primary; `redis+unix://[user:password@]/path`.
                `valkey`, `valkeys` and `unix` are synonyms. A character with a meaning, such as @ or / in a
                password, is percent-encoded.
                Parameters, after a `?`, are named as in redis-py: `db`, which wins over the path;
                `username` and `password`, unless they stand before the host; `protocol`, 2 or 3;
                `sentinel_username` and `sentinel_password`; and with TLS `ssl_ca_certs` (otherwise the
                system's authorities, or the file named by SSL_CERT_FILE), `ssl_certfile` and `ssl_keyfile`
                (a certificate of the client, and its key unless it is in the same file). These are files in
                PEM form; they are read again for each connection. Certificates are always checked.
            prefix: the prefix of all keys in Redis. Each limiter needs its own, the same in all processes.
                Use a Redis that does not evict keys by memory pressure (or a database of it with volatile
                eviction off): an evicted key loses its limit.
            mode:
                "strict": at most `burst + Δ · limit / period` over all processes. As many tokens as may be on
                    lease are held back from the burst; one call can take at most the rest.
                "leased": the whole burst can be leased, so up to `max_outstanding` more can be admitted.
                "every_hit": Redis decides each call, at one round trip. Concurrent calls share pipelines.
            max_outstanding: most tokens of a key that may be on lease, over all processes: a number (int), or
                a part of the smallest burst (float, rounded down). With 0 every call needs Redis.
            lease_ttl: lifetime of a lease, 0.001 to 60 s. An idle one is given back after half of it.
            max_lease: most tokens that one process requests at once; by default `max_outstanding`.
            cold: how a call without tokens on lease is decided.
                "sync": it waits for Redis.
                "optimistic": it never waits. Each process admits up to `optimistic` units of a key before
                    their debit, and refuses more until Redis has replied.
            optimistic: see there; 1 by default.
            on_error: how calls are decided while Redis is down, once the lease is spent or has expired.
                "share": by this process, from its share of the rate (by the number of live processes) and an
                    empty bucket. Its admissions are debited when Redis is back.
                "deny": all calls are refused. "allow": all calls are admitted.
            timeout: the timeout of a reply, 0.001 to 60 s. Should be several times the usual round trip.
            fresh: the start of a key without state in Redis: "full", or "empty" so that a Redis that has lost
                its data does not give every key a burst.
            require: making the limiter connects, and raises ConnectionError unless Redis serves it.

        Raises:
            ValueError: an unknown word, a number out of range. (A URL that cannot be read is refused by
                `Limiter`.)
        """

    def __reduce__(self) -> tuple[object, tuple[object, ...]]: ...
    def overshoot_bound(self, rate: Rate, nodes: int) -> int:
        """
        By how many units `nodes` processes together can exceed `burst + Δ · limit / period`.

        0 in "strict" and "every_hit" mode with `cold="sync"`. It holds while Redis replies and loses no
        write, and with on_error="deny" also while it is down.
        """

@final
class ManualClock:
    """
    A clock that moves only by `advance` and `set`; several limiters may share it.

    Callers that wait for a slot sleep until it is moved.
    """

    def __new__(cls, now_ns: int = 0) -> ManualClock: ...
    def __reduce__(self) -> tuple[object, tuple[object, ...]]: ...
    @property
    def now_ns(self) -> int:
        """The time of the clock, 0 to 2⁶⁴ − 1 ns."""

    def advance(self, ns: int, /) -> None:
        """Move forward. Stops at 2⁶⁴ − 1."""

    def set(self, ns: int, /) -> None:
        """Set the time. If it is earlier, time stands still for limiters until the clock has caught up."""

@runtime_checkable
class Clock(Protocol):
    """
    A time source of your own, for `Limiter(clock=...)`; `ManualClock` is one, too.

        class WallClock:
            @property
            def now_ns(self) -> int:
                return time.time_ns()

    It is read at each call, by the thread that makes it and with no lock held. A limiter ignores a clock that
    goes back, and one that raises: the error goes to `sys.unraisablehook`, and time stands still. Callers
    that wait read it again at least every 20 ms.
    """

    @property
    def now_ns(self) -> int:
        """Nanoseconds since a fixed start, 0 to 2⁶⁴ − 1."""

def client_key(address: str | None, *, v6_prefix: int = 64) -> str:
    """
    The key for a client's address.

    An IPv4 address is returned as it is. An IPv6 address becomes its network ("2001:db8::/64"), because one
    customer commonly owns a whole /64 (RFC 6177); limit a wider tier with `v6_prefix=48`. An IPv4 address
    mapped into IPv6 becomes the IPv4 address; brackets and a zone ("[fe80::1%eth0]") are dropped.

    The peer of a Unix socket has no address: None becomes "unix:". That, "unix:/path" and "testclient", the
    peer of Starlette's test client, are keys as they are; all peers of such a socket are one client.

    Args:
        address: an address without a port. Take it from the connection, not from a client's header.
        v6_prefix: 1 to 128 bits.

    Raises:
        ValueError: not an address, or a prefix out of range.
    """
