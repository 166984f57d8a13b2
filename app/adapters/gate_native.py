"""`Gate` over the native limiter: a decision costs less than a microsecond, shared or not."""

from __future__ import annotations

from collections.abc import Mapping

from hopgate_limiter import Limiter, Rate, RedisSync, client_key

from app import wire
from app.ports import Counted, Policy, Refusal

# A part of the burst that each process admits before Redis was asked: nobody waits for it.
_UNASKED_PART = 8
# What is given back after a look-up must come back to the bucket it was taken from. Through
# Redis it would be a second message for everything that is found, so each process counts alone.
_COUNTED_ALONE = frozenset({Policy.NOT_FOUND, Policy.ANONYMOUS})


class NativeGate:
    """
    One limiter for each policy; with Redis, processes keep most of them together.

    Clients are told apart by address (an IPv6 /64 counts as one) or by the id of their API key.
    Shared, a process decides from tokens that Redis has leased to it. Of a client it does not
    know yet it admits up to an eighth of the burst first and has it debited at once. So all
    processes together stay within `burst + rate · t`, and an eighth of the burst for each of
    them. Without Redis each goes on at its share of the rate.
    """

    def __init__(
        self, limits: Mapping[Policy, str], *, redis_url: str | None = None, max_clients: int = 200_000
    ) -> None:
        """
        Prepare the limiters. Nothing is connected yet.

        Args:
            limits: what each policy allows, as in "100/s burst 200".
            redis_url: where processes meet; each counts alone if None.
            max_clients: how many are told apart at once, for each policy; the rest share one bucket.

        Raises:
            ValueError: a limit cannot be read, or the URL.
        """
        self._limiters = {
            policy: Limiter(
                limits[policy],
                max_keys=max_clients,
                on_full="shared_bucket",
                sync=None
                if redis_url is None or policy in _COUNTED_ALONE
                else _sync(policy, limits[policy], redis_url),
            )
            for policy in Policy
        }

    def admit(self, policy: Policy, client: str) -> bool:
        """See `Gate.admit`."""
        # An IPv4 address and the id of an API key are their own key.
        return self._limiters[policy].allow(_network(client) if ":" in client else client)

    def refund(self, policy: Policy, client: str) -> None:
        """See `Gate.refund`. Clients beyond `max_clients` get nothing back."""
        self._limiters[policy].refund(_network(client) if ":" in client else client)

    def counted(self, policy: Policy) -> Counted:
        """See `Gate.counted`."""
        stats = self._limiters[policy].stats()
        return Counted(stats.allowed, stats.denied)

    def refusal(self, policy: Policy, client: str) -> Refusal:
        """See `Gate.refusal`."""
        decision = self._limiters[policy].peek(_network(client) if ":" in client else client)
        return Refusal(decision.retry_after, decision.headers())

    def close(self) -> None:
        """Give back what is held on lease. Blocks for up to three of Redis's timeouts."""
        for limiter in self._limiters.values():
            limiter.close()


def _sync(policy: Policy, limit: str, redis_url: str) -> RedisSync:
    unasked = min(rate.burst for rate in Rate.parse(limit)) // _UNASKED_PART
    return RedisSync(
        redis_url, prefix=wire.limit_prefix(policy), cold="optimistic", optimistic=max(1, unasked)
    )


def _network(client: str) -> str:
    try:
        return client_key(client)
    except ValueError:  # a peer without an address
        return client
