"""`RateLimiter` over the native limiter: a decision takes less than a microsecond, shared or not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, Self, assert_never

from hopgate_limiter import Decision, Limiter, Rate, RedisSync, client_key

from app import wire
from app.ports import Counted, Policy, Refusal

# Each process admits this fraction of the burst before it has a lease: no request waits for Redis.
_UNLEASED_FRACTION = 8
# No request waits for Redis, so a silent one is detected early.
_REDIS_TIMEOUT_S = 0.05
# How many IPv6 /64 have the budget of one /48.
_NETWORKS = 4
# What shared limits hold is a little more.
_MOST_OWN, _LONGEST_OWN_NS = 1_000_000_000, 366 * 86_400 * 10**9
# Of keys with a rate of their own, which each call names; what one admits before its first lease follows.
_OWN = Rate(1000, "s", burst=80)
_BY_ADDRESS = (Policy.REDIRECT, Policy.ANONYMOUS, Policy.NOT_FOUND)
_WITH_ALGORITHM = re.compile(
    r"(?P<rates>.*\S)\s+(?P<algorithm>token[ _-]bucket|gcra|sliding[ _-]window)\s*",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Limit:
    """What a setting says: rates, and how they are counted."""

    rates: tuple[Rate, ...]
    algorithm: Literal["gcra", "sliding_window"] = "gcra"

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read *text*: rates, and an algorithm for all of them: "10/s burst 20; 600 per minute token_bucket".

        The algorithm is token_bucket, which is the default, or sliding_window.

        Raises:
            ValueError, OverflowError: it cannot be read; the message says what is accepted.
        """
        found = _WITH_ALGORITHM.fullmatch(text)
        rates = text if found is None else found["rates"]
        is_window = found is not None and found["algorithm"].lower().startswith("sliding")
        try:
            return cls(Rate.parse(rates), "sliding_window" if is_window else "gcra")
        except ValueError as error:
            raise ValueError(f"{error}; token_bucket or sliding_window may follow the last rate") from None

    def wide(self) -> Self:
        """Return the limit of a whole IPv6 /48."""
        rates = [
            Rate(
                rate.limit * _NETWORKS,
                f"{rate.period_ns}ns",
                burst=rate.burst * _NETWORKS,
                name=rate.name,
            )
            for rate in self.rates
        ]
        return replace(self, rates=tuple(rates))


def read_own_rate(text: str) -> str:
    """
    Return the rate *text* of a single key in canonical form, such as "100/min burst 20".

    Raises:
        ValueError, OverflowError: it cannot be read, or is more than one rate.
    """
    rates = Rate.parse(text)
    if len(rates) != 1:
        raise ValueError("must be one rate")
    [rate] = rates
    if max(rate.limit, rate.burst) > _MOST_OWN or rate.period_ns > _LONGEST_OWN_NS:
        raise ValueError(f"must admit at most {_MOST_OWN:,} at once, and within at most 366 days")
    # As the limiter that it is given to takes it.
    Limiter(rate)
    return str(rate)


@lru_cache(maxsize=4096)
def _own_rate(text: str) -> Rate:
    return Rate.parse(text)[0]


class NativeRateLimiter:
    """
    One limiter for each policy; with Redis, most of them are shared by all processes.

    A client is an address (an IPv6 /64 counts as one) or the id of an API key. The owner of an IPv6 /48
    has 65,536 networks of that size, so all of them together have the budget of `_NETWORKS` clients. In
    6to4 that is one IPv4 address; all clients of one Teredo server share a /64. A shared limiter
    decides from tokens that Redis has leased to its process. For a new client it admits up to an
    eighth of the burst before the first lease, and debits it at once. So all processes together
    admit at most `burst + rate · t`, plus an eighth of the burst for each of them. While Redis is
    unavailable, each process continues at its share of the rate.
    """

    def __init__(
        self, limits: Mapping[Policy, str], *, redis_url: str | None = None, max_clients: int = 200_000
    ) -> None:
        """
        Prepare the limiters without connecting.

        Args:
            limits: the limit of each policy, for `Limit.parse`, as in "100/s burst 200".
            redis_url: shares limits between processes; None: each process counts alone.
            max_clients: buckets for each policy; clients beyond that share one.

        Raises:
            ValueError, OverflowError: a limit or the URL cannot be parsed.
        """
        self._limiters: dict[Policy, Limiter] = {}
        # By /48. Only limits that count by address have one.
        self._wide: dict[Policy, Limiter] = {}
        for policy in Policy:
            own, wide = limiters(policy, limits[policy], redis_url=redis_url, max_clients=max_clients)
            self._limiters[policy] = own
            if wide is not None:
                self._wide[policy] = wide
        self._redis_url, self._max_clients = redis_url, max_clients
        # Most services have no key with a rate of its own.
        self._own: Limiter | None = None

    def admit(self, policy: Policy, client: str, cost: int = 1, *, rate: str | None = None) -> bool:
        if rate is not None:
            return self._of_own().allow(client, cost, rates=[_own_rate(rate)])
        # An IPv4 address and the id of an API key are keys as they are.
        if ":" not in client:
            # The fastest call has no second argument.
            limiter = self._limiters[policy]
            return limiter.allow(client) if cost == 1 else limiter.allow(client, cost)
        network, wide = _networks(client)
        wider = self._wide.get(policy)
        if wide is None or wider is None:
            return self._limiters[policy].allow(network, cost)
        # The wide limit first: what is counted as admitted is then admitted by both.
        if not wider.allow(wide, cost):
            return False
        if self._limiters[policy].allow(network, cost):
            return True
        _refund(wider, wide, cost)
        return False

    def refund(self, policy: Policy, client: str) -> None:
        """Clients beyond `max_clients` get no refund."""
        if ":" not in client:
            _refund(self._limiters[policy], client)
            return
        network, wide = _networks(client)
        _refund(self._limiters[policy], network)
        limiter = self._wide.get(policy)
        if wide is not None and limiter is not None:
            _refund(limiter, wide)

    def counted(self, policy: Policy) -> Counted:
        stats = self._limiters[policy].stats()
        if policy is Policy.API and self._own is not None:
            own = self._own.stats()
            return Counted(
                stats.allowed + own.allowed,
                stats.denied + own.denied,
                stats.keys + own.keys,
                stats.held + own.held,
            )
        wide = self._wide.get(policy)
        refused = stats.denied + (wide.stats().denied if wide is not None else 0)
        return Counted(stats.allowed, refused, stats.keys, stats.held)

    def refusal(self, policy: Policy, client: str, cost: int = 1, *, rate: str | None = None) -> Refusal:
        if rate is not None:
            return _refusal(self._of_own().peek(client, cost, rates=[_own_rate(rate)]))
        if ":" not in client:
            return _refusal(self._limiters[policy].peek(client, cost))
        network, wide = _networks(client)
        refusal = _refusal(self._limiters[policy].peek(network, cost))
        limiter = self._wide.get(policy)
        if wide is None or limiter is None:
            return refusal
        return max(_refusal(limiter.peek(wide, cost)), refusal, key=lambda one: one.retry_after_s)

    def functions(self, policy: Policy) -> tuple[object, object | None]:
        """Return the limiters of *policy*, own and wide, for an extension module that decides as `admit`."""
        wide = self._wide.get(policy)
        return self._limiters[policy]._c_api, None if wide is None else wide._c_api  # noqa: SLF001

    def close(self) -> None:
        """Return all leased tokens to Redis. Blocks for up to three of Redis's timeouts."""
        own = () if self._own is None else (self._own,)
        for limiter in (*self._limiters.values(), *self._wide.values(), *own):
            limiter.close()

    def _of_own(self) -> Limiter:
        if self._own is None:
            # Whatever the setting counts by, these keys have token buckets.
            url = self._redis_url
            self._own = Limiter(
                _OWN,
                max_keys=self._max_clients,
                on_full="shared_bucket",
                sync=None if url is None else _sync(wire.limit_prefix("own"), [_OWN], url),
            )
        return self._own


def _refund(limiter: Limiter, key: str, cost: int = 1) -> None:
    # While Redis is away a refund may be impossible: the client waits for its next unit, no request fails.
    with suppress(ConnectionError):
        limiter.refund(key, cost)


def limiters(
    policy: Policy, text: str, *, redis_url: str | None, max_clients: int
) -> tuple[Limiter, Limiter | None]:
    """
    Make the limiter of *policy* and, if it counts by address, that of an IPv6 /48, without connecting.

    Raises:
        ValueError, OverflowError: *text* or the URL cannot be parsed, or does not fit what is shared.
    """
    url = redis_url if _is_shared(policy) else None

    def limiter(limit: Limit, prefix: str) -> Limiter:
        return Limiter(
            *limit.rates,
            algorithm=limit.algorithm,
            max_keys=max_clients,
            on_full="shared_bucket",
            sync=None if url is None else _sync(prefix, limit.rates, url),
        )

    limit = Limit.parse(text)
    own = limiter(limit, wire.limit_prefix(policy))
    if policy not in _BY_ADDRESS:
        return own, None
    # The limiter has told rates of one name apart.
    wide = replace(limit, rates=own.rates).wide()
    return own, limiter(wide, wire.wide_limit_prefix(policy))


def _is_shared(policy: Policy) -> bool:
    match policy:
        case Policy.REDIRECT | Policy.API | Policy.CREATE | Policy.BULK:
            return True
        case Policy.NOT_FOUND | Policy.ANONYMOUS:
            # Refunded after most look-ups, to the bucket that was debited. Through Redis that would be
            # a second message for every hit.
            return False
        case _:
            assert_never(policy)


def _sync(prefix: str, rates: Sequence[Rate], redis_url: str) -> RedisSync:
    unleased = min(rate.burst for rate in rates) // _UNLEASED_FRACTION
    return RedisSync(
        redis_url, prefix=prefix, cold="optimistic", optimistic=max(1, unleased), timeout=_REDIS_TIMEOUT_S
    )


def _refusal(decision: Decision) -> Refusal:
    return Refusal(decision.retry_after, decision.headers())


@lru_cache(maxsize=4096)
def _networks(client: str) -> tuple[str, str | None]:
    """Return the keys of *client*, which has a colon: its /64, and its /48 if it is an IPv6 address."""
    try:
        network = client_key(client)
    except ValueError:  # a peer without an IP address
        return client, None
    return network, client_key(client, v6_prefix=48) if ":" in network else None
