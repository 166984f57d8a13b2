"""`RateLimiter`: which requests pass, by policy and client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Policy(StrEnum):
    """The kind of request that is limited; each has its own rate."""

    REDIRECT = "redirect"
    API = "api"
    ANONYMOUS = "anonymous"  # API calls whose key is not verified yet, by address
    CREATE = "create"
    BULK = "bulk"  # items of batches
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a refused client stands: seconds until a request is admitted, and the HTTP headers."""

    retry_after_s: float
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Counted:
    """
    How many requests a rate limiter has admitted and refused since it was made.

    `clients`: that it knows now. `leased`: tokens that it holds now, of those that processes share.
    """

    admitted: int
    refused: int
    clients: int = 0
    leased: int = 0


class RateLimiter(Protocol):
    """Admits or refuses requests. Answers at once: no I/O, no waiting."""

    def admit(self, policy: Policy, client: str, cost: int = 1, *, rate: str | None = None) -> bool:
        """
        Count *cost* requests of *client*; False if they are over the limit (then none is counted).

        Args:
            rate: of this client, in place of the policy's; the same at each call.
        """
        ...

    def refund(self, policy: Policy, client: str) -> None:
        """Take back one request of *client* that was just counted."""
        ...

    def counted(self, policy: Policy) -> Counted:
        """Return how often `admit` admitted and refused; a refunded request counts as admitted."""
        ...

    def refusal(self, policy: Policy, client: str, cost: int = 1, *, rate: str | None = None) -> Refusal:
        """
        Return how *client* stands. Counts nothing.

        `retry_after_s` is 0 if *cost* requests would be admitted, and infinite if they never are at once.
        """
        ...
