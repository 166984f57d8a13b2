"""`Gate` over the native limiter: a decision costs less than a microsecond."""

from __future__ import annotations

from collections.abc import Mapping

from hopgate_limiter import Limiter, client_key

from app.ports import Policy, Refusal


class NativeGate:
    """
    One limiter for each policy, in the memory of this process.

    Clients are told apart by address (an IPv6 /64 counts as one) or by the id of their API key.
    """

    def __init__(self, limits: Mapping[Policy, str], *, max_clients: int = 200_000) -> None:
        """
        Prepare the limiters.

        Args:
            limits: what each policy allows, as in "100/s burst 200".
            max_clients: how many are told apart at once, for each policy; the rest share one bucket.

        Raises:
            ValueError: a limit cannot be read.
        """
        self._limiters = {
            policy: Limiter(limits[policy], max_keys=max_clients, on_full="shared_bucket")
            for policy in Policy
        }

    def admit(self, policy: Policy, client: str) -> bool:
        """See `Gate.admit`."""
        # An IPv4 address and the id of an API key are their own key.
        return self._limiters[policy].allow(_network(client) if ":" in client else client)

    def refund(self, policy: Policy, client: str) -> None:
        """See `Gate.refund`. Clients beyond `max_clients` get nothing back."""
        self._limiters[policy].refund(_network(client) if ":" in client else client)

    def refusal(self, policy: Policy, client: str) -> Refusal:
        """See `Gate.refusal`."""
        decision = self._limiters[policy].peek(_network(client) if ":" in client else client)
        return Refusal(decision.retry_after, decision.headers())


def _network(client: str) -> str:
    try:
        return client_key(client)
    except ValueError:  # a peer without an address
        return client
