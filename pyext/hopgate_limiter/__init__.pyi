"""
A rate limiter: exact, bounded in memory, and quick; alone, or shared by processes through Redis.

    limiter = Limiter("10/s burst 20; 1000/h")
    if not limiter.allow(client_key("198.51.100.7")):
        ...

Every class is final, immutable from outside and safe to share between threads. No call does I/O, and none
blocks but those that say so. Times are seconds as float where a person reads them and nanoseconds as int
(`_ns`) where exactness matters. Errors are ValueError (makes no sense), OverflowError (makes sense, does not
fit) and TypeError; their messages name the argument and the value.
"""

from collections.abc import Sequence
from datetime import timedelta
from math import inf
from typing import Literal, TypeAlias, final

from hopgate_limiter._native import _Mailbox, _Parcel

__all__ = [
    "Clock",
    "Decision",
    "Key",
    "Limiter",
    "ManualClock",
    "Rate",
    "RateLimitExceeded",
    "RedisSync",
    "Reservation",
    "Seconds",
    "Stats",
    "__version__",
    "client_key",
]

__version__: str

Seconds: TypeAlias = float
"""A duration or a delay. Never a date."""

Key: TypeAlias = str | bytes | int
"""
Who is limited. Keys of different types are different keys: `"1"`, `b"1"` and `1` do not meet.

A limiter remembers a 64-bit hash of the key under a random seed, not the key. Two of n remembered keys share
a budget with a probability below n² / 2⁶⁵ (a million keys: one in 36 million); that admits less, never more.
"""

@final
class Rate:
    """
    `limit` units per period, at most `burst` at once.

    In any span of Δ a token bucket admits at most burst + Δ · limit / period: with the default burst that is
    up to twice the limit in the first period. Use a sliding window where that is too much.
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
            per: the period: a unit with an optional whole number before it ("s", "10s", "500ms", "min", "h",
                "d"), seconds, or a timedelta. Rounded to a nanosecond.
            burst: most units at once, 1 to 2⁶³ − 1; `limit` if None. Sliding windows take none.
            name: shown in decisions and headers; 1 to 64 printable ASCII characters without quotes and
                backslashes. The rates of one limiter need different names.

        Raises:
            ValueError: a number below 1, an unknown unit, a bad name.
            OverflowError: a number of 2⁶³ or more, more than 4096 units per nanosecond, or an empty burst
                that would take 2⁶³ ns (292 years) to fill up.
        """

    @staticmethod
    def parse(spec: str) -> tuple[Rate, ...]:
        """
        Rates from text: clauses `LIMIT/PERIOD [burst N]` separated by `;`, as "10/s burst 20; 1000/h".

        Each is named after its clause without the burst: "10/s", "1000/h".

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
    def __hash__(self, /) -> int: ...

@final
class Decision:
    """The answer to one call. True if the call may go ahead. Attributes are converted when they are read."""

    @property
    def allowed(self) -> bool:
        """Whether the call may go ahead."""

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
        When the same call will be admitted if nothing else happens: exact to the nanosecond and minimal.

        0.0 if it was admitted now, inf if the cost is more than can ever be admitted at once.
        If the table was full and the policy is "deny", this is a guess: the shortest time in which a rate
        refills.
        """

    @property
    def reset_after(self) -> Seconds:
        """Time until the key is as good as new, for all rates."""

    @property
    def policy(self) -> str:
        """Name of the rate that refused for longest or, if none did, of the one with the least left."""

    @property
    def source(self) -> Literal["local", "lease", "redis", "negative-cache", "fallback", "shadow"]:
        """
        Who decided.

        "local": this process alone. "lease": this process, from tokens that Redis has leased to it.
        "redis": Redis. "negative-cache": this process, because Redis has refused lately, as much or less; it
        is asked again after the time of a lease at most, and `retry_after` may be too short for more.
        "fallback": this process, because Redis does not answer. "shadow": the limiter would have refused, but
        only watches.
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
            jitter: seconds added to the wait of a refused client. Draw it at random, so that many who were
                refused at once do not come back at once.
        """

    def __bool__(self, /) -> bool: ...

@final
class Limiter:
    """
    Decides who may go ahead. What all rates admit is admitted; a refused call changes nothing.

    Time is the system's monotonic clock: steps of the wall clock do not matter. With `sync`, several
    processes keep the limits together (see `RedisSync`); the context manager then gives back, at its end,
    what this one holds.
    """

    def __new__(
        cls,
        *rates: Rate | str,
        algorithm: Literal["gcra", "sliding_log", "sliding_window"] = "gcra",
        max_keys: int = 1_000_000,
        on_full: Literal["deny", "shared_bucket", "evict_idle"] = "evict_idle",
        precision: int = 16,
        shadow: bool = False,
        clock: Clock | None = None,
        sync: RedisSync | None = None,
    ) -> Limiter:
        """
        Make a limiter.

        Args:
            rates: at least one; text is read by `Rate.parse`. All must agree for a call to go ahead.
            algorithm:
                "gcra": token bucket by the Generic Cell Rate Algorithm (ITU-T I.371). In any span of Δ at
                    most burst + Δ · limit / period. 16 bytes of state per key and rate.
                "sliding_log": at most `limit` in any half-open window (t − period, t], and nothing refused
                    that would fit. 16 bytes of state per admitted instant, so for small limits.
                "sliding_window": the same bound from `precision` buckets. The oldest bucket counts in full,
                    so up to one bucket's width longer. 8 bytes of state per bucket.
            max_keys: most keys remembered, 1 to 2³². Memory grows with the keys in use, up to this. A large
                table is split into up to 64 shards of equal size, so about its last 2 % may stay unused.
            on_full: what happens to a new key when there is no room. A key that owes nothing (its state is
                the same as a new key's) leaves by itself as new ones arrive. One that still owes is never
                dropped.
                "deny": the new key is refused.
                "shared_bucket": it shares one bucket with all keys that found no room (one bucket per shard).
                "evict_idle": the same, after looking harder for a key that owes nothing.
            precision: buckets per window, 1 to 1024, for "sliding_window".
            shadow: decide and count as usual, but let every call through.
            clock: a clock to move by hand, for tests.
            sync: share the limits with other processes. Not for "sliding_log".

        Raises:
            ValueError: no rate, two of one name, a burst on a sliding window, a number out of range, an
                unknown word, a `sync` that another limiter has.
            OverflowError: a number too large; a shared rate holds at most 2³² units and 35 years.
        """

    def allow(self, key: Key, cost: int = 1, /) -> bool:
        """
        Take `cost` units if they are there. The fastest question: no object is made.

        Args:
            cost: 0 to 2⁶³ − 1 units. 0 is always admitted and changes nothing.

        Raises:
            ValueError, OverflowError: a cost out of range. TypeError: not a key, not a cost.
        """

    def hit(self, key: Key, cost: int = 1, *, rates: Sequence[Rate] | None = None) -> Decision:
        """
        Take `cost` units if they are there, and tell all about it.

        A shared limiter that must ask Redis sleeps meanwhile (other threads run), for at most three times
        its `timeout`; in an event loop use `hit_async`. So does `allow`.

        Args:
            rates: use these for this call: as many as the limiter has and in the same order; for sliding
                windows with the same periods. Give one key the same rates at every call: what it owes is
                kept as time, and cut to what the rates in use could have admitted. Not for shared limits.
        """

    async def hit_async(self, key: Key, cost: int = 1) -> Decision:
        """As `hit`, for asyncio: while Redis is asked, other tasks run."""

    def peek(self, key: Key, cost: int = 1) -> Decision:
        """
        What `hit` would answer now. Takes nothing and is not counted.

        Of shared limits it tells what this process knows, without asking; a key it knows nothing of is
        taken to be new.
        """

    def hit_many(self, items: Sequence[tuple[Key, int]]) -> list[Decision]:
        """
        Several hits at one instant, one after the other, for the price of one call.

        All items are read first: if one is bad, nothing has been taken. What has to be asked of Redis is
        asked in one pipeline.
        """

    def acquire(self, key: Key, cost: int = 1, *, timeout: Seconds | None = None) -> Decision:
        """
        Wait for `cost` units; other threads run meanwhile.

        Callers of one key are served in the order of their calls, each at a time of its own; a small cost
        does not overtake a large one. Interrupting the wait cancels as `Reservation.cancel` does.
        Shared limits know no queue: callers sleep as long as they are told and try again, in no order.

        Args:
            timeout: the longest wait in seconds, for ever if None. It is compared before waiting: if the turn
                would come later, or never, a refusal is returned at once and nothing is taken.
        """

    async def acquire_async(
        self,
        key: Key,
        cost: int = 1,
        *,
        timeout: Seconds | None = None,  # noqa: ASYNC109
    ) -> Decision:
        """As `acquire`, for asyncio. The turn is taken when the call is first awaited."""

    def reserve(self, key: Key, cost: int = 1, *, max_wait: Seconds = inf) -> Reservation:
        """
        Take the first free slot for `cost` units, and wait for it yourself.

        Raises:
            RateLimitExceeded: the slot starts more than `max_wait` seconds from now, or there will be none.
            ValueError: the limits are shared: Redis keeps no slots in the future. Use `acquire`.
        """

    def _reserve(
        self, key: Key, cost: int, timeout: Seconds | None
    ) -> tuple[Decision, Reservation | None]: ...
    def refund(self, key: Key, cost: int = 1) -> None:
        """
        Give back `cost` units that were just taken and not used. A key never holds more than a new one.

        Do it soon: units that have flowed back in the meantime would be counted twice. Windows give back
        their oldest hits. A key that is not remembered, or for which slots are reserved, gets nothing.
        With shared limits they go back into this process's lease, as far as it still counts; else they are
        gone.
        """

    def reset(self, key: Key) -> None:
        """
        Forget the key: it is new again.

        With shared limits it is for all processes, once Redis has been told; they keep what they hold. One
        that is lost on the way is not repeated.
        """

    def configure(self, *rates: Rate | str) -> None:
        """
        Change the rates, for all keys at once.

        A rate continues the one of the same name, else the one at the same position; others start anew.
        What was spent stays spent, so a looser rate never refuses what the old one would have admitted and a
        tighter one never remembers more than it could have admitted. Takes time proportional to the number
        of keys, during which other threads wait. Shared limits continue by position, and all processes
        should be given the same rates.

        Raises:
            ValueError: as the constructor; then nothing has changed.
        """

    def stats(self) -> Stats:
        """What has happened since the limiter was made."""

    def close(self) -> None:
        """
        Give back what is held on lease and stop asking Redis, within three of its timeouts.

        Calls are then decided as if Redis were away. A limiter that is not shared has nothing to stop.
        """

    def __enter__(self) -> Limiter: ...
    def __exit__(self, *exception: object) -> None: ...
    def _submit(self, key: Key, cost: int, mailbox: _Mailbox, ticket: int) -> Decision | None: ...
    @property
    def _patience(self) -> Seconds: ...
    def _decide_alone(self, key: Key, cost: int) -> Decision: ...
    def _collect(self, limit: int = 256) -> list[_Parcel]: ...
    def _deliver(self, parcel: _Parcel, reply: list[int] | None) -> None: ...
    def _ledger(self) -> tuple[int, int, int, int]: ...

@final
class Reservation:
    """
    A slot taken in advance, made by `Limiter.reserve`.

    As a context manager, plain or async, it waits for the slot. If the wait is interrupted, it is cancelled.

        with limiter.reserve("alice", max_wait=2.0):
            ...
    """

    @property
    def delay(self) -> Seconds:
        """How long until the slot starts; 0.0 once it has."""

    def cancel(self) -> None:
        """
        Give the slot back.

        The last slot of a key is then as if it had never been taken, except that a "sliding_window" may still
        make newcomers wait for it. One with others behind it moves nobody, because they have been told their
        times, and in a "gcra" bucket it stays empty. The second time does nothing.
        """

    @property
    def _is_real_time(self) -> bool: ...
    def __enter__(self) -> Reservation: ...
    def __exit__(self, *exception: object) -> None: ...
    async def __aenter__(self) -> Reservation: ...
    async def __aexit__(self, *exception: object) -> None: ...

class RateLimitExceeded(Exception):
    """No slot within the time the caller would wait."""

    decision: Decision
    """When there will be one."""

    def __init__(self, decision: Decision) -> None: ...

@final
class Stats:
    """What a limiter has done since it was made."""

    @property
    def allowed(self) -> int:
        """Calls admitted."""

    @property
    def denied(self) -> int:
        """Calls refused; in shadow mode, calls that would have been."""

    @property
    def keys(self) -> int:
        """Keys remembered now."""

    @property
    def evicted_idle(self) -> int:
        """Keys dropped because they owed nothing, which changes no decision."""

    @property
    def evicted_live(self) -> int:
        """Keys dropped although they owed something: always 0, the engine has no way to do it."""

    @property
    def overflowed(self) -> int:
        """Calls decided by a shared bucket because there was no room for the key."""

    @property
    def lease_hits(self) -> int:
        """Calls decided from tokens held on lease."""

    @property
    def remote_calls(self) -> int:
        """Requests sent to Redis, each about one key."""

    @property
    def redis_errors(self) -> int:
        """Requests that Redis did not answer in time, and failed attempts to reach it."""

    @property
    def held(self) -> int:
        """Tokens held on lease now, over all keys."""

    @property
    def max_overshoot(self) -> int:
        """`RedisSync.overshoot_bound` for the processes known now; the largest of all rates."""

@final
class RedisSync:
    """
    Limits that several processes keep together, through Redis 7 or later (or Valkey).

    Calls are decided in the process, from tokens that Redis has leased to it and *debited before*: so in
    "strict" mode all processes together never admit more than the rates, however many they are and whatever
    becomes of messages, processes and connections. A background thread fetches tokens before they run out;
    a call on a busy key costs what it costs without Redis.

        limiter = Limiter("100/s burst 200", sync=RedisSync("redis://localhost/1", prefix="rl:api:"))

    What is not known resolves to fewer admissions: if Redis may have granted tokens and the reply was lost,
    they are not used.
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
        timeout: Seconds = 0.05,
        fresh: Literal["full", "empty"] = "full",
    ) -> RedisSync:
        """
        Say how limits are shared. Nothing is connected before the first call that needs it.

        Args:
            url: `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS (certificates are checked
                against the system's, or the file named by SSL_CERT_FILE), `redis+unix:///path`,
                `redis+cluster://` and `rediss+cluster://` with any node of a cluster.
            prefix: what every key in Redis begins with. Each limiter needs its own, the same in all
                processes. Use a Redis that does not evict keys by memory pressure (or a database of it with
                volatile eviction off): an evicted key is a forgotten limit.
            mode:
                "strict": never more than `burst + Δ · limit / period` over all processes. The most that may
                    be out on lease is held back from the burst; one call can take no more than the rest.
                "leased": the whole burst can be leased, so up to `max_outstanding` more can be admitted.
                "every_hit": Redis decides each call, at one round trip. Concurrent calls share pipelines.
            max_outstanding: most tokens of a key that may be out on lease, over all processes: a number
                (int), or a part of the smallest burst (float, rounded down). With 0 every call asks Redis.
            lease_ttl: how long a lease lasts, 0.001 to 60 s. An idle one is given back after half of it.
            max_lease: most tokens one process asks for at once; by default as many as may be out.
            cold: what a call does that finds no token here.
                "sync": it waits for Redis.
                "optimistic": it never waits. Each process admits up to `optimistic` units of a key that it
                    has not had debited yet, and refuses while more are being asked for.
            optimistic: see there; 1 by default.
            on_error: who decides while Redis does not answer, once the lease is spent or has ended.
                "share": this process, at its share of the rate (by the processes last counted), from an
                    empty bucket. What it admits is debited when Redis is back.
                "deny": everything is refused. "allow": everything is admitted.
            timeout: how long Redis may take, 0.001 to 60 s. Should be several times the usual round trip.
            fresh: how a key starts of which Redis knows nothing: "full", or "empty" so that a Redis that has
                lost everything does not give every key a burst.

        Raises:
            ValueError: an unknown word, a number out of range. (A URL that cannot be read is refused by
                `Limiter`.)
        """

    def overshoot_bound(self, rate: Rate, nodes: int) -> int:
        """
        By how many units `nodes` processes together can exceed `burst + Δ · limit / period`.

        0 in "strict" and "every_hit" mode with `cold="sync"`. It holds while Redis answers and keeps what it
        was told, and with on_error="deny" also while it does not.
        """

@final
class ManualClock:
    """A clock that stands still until it is told to move; several limiters may share it."""

    def __new__(cls, now_ns: int = 0) -> ManualClock: ...
    @property
    def now_ns(self) -> int:
        """What the clock shows, 0 to 2⁶⁴ − 1 ns."""

    def advance(self, ns: int, /) -> None:
        """Move forward. Stops at 2⁶⁴ − 1."""

    def set(self, ns: int, /) -> None:
        """Show another time. If it is earlier, limiters stand still until the clock has caught up."""

Clock: TypeAlias = ManualClock

def client_key(address: str, *, v6_prefix: int = 64) -> str:
    """
    The key for a client's address.

    An IPv4 address is returned as it is. An IPv6 address becomes its network ("2001:db8::/64"), because one
    customer commonly owns a whole /64 (RFC 6177); limit a wider tier with `v6_prefix=48`. An IPv4 address
    mapped into IPv6 becomes the IPv4 address; brackets and a zone ("[fe80::1%eth0]") are dropped.

    Args:
        address: an address without a port. Take it from the connection, not from a header anyone can send.
        v6_prefix: 1 to 128 bits.

    Raises:
        ValueError: not an address, or a prefix out of range.
    """
