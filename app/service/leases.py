"""The visits that this process has leased and not spent yet, by link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

# What `LeaseBook.take_visit` returns besides versions.
SPENT, EXHAUSTED = -1, 0


class LeaseBook(Protocol):
    """
    The visits in hand. The store has debited each of them.

    A link has at most one lease, made for a version of it or a later one. Times are monotonic seconds.
    """

    def take_visit(self, slug: str, version: int, spend: bool, now: float) -> int:  # noqa: FBT001 - native
        """
        Spend a visit of *slug*, which is at *version* or later; if not *spend*, only look for one.

        A lease of an earlier version is not spent: the limit may have changed since.

        Returns:
            `SPENT`; `EXHAUSTED`: no visit is left; or the version to make a lease for.
        """

    def add_visits(self, slug: str, version: int, visits: int, now: float, exhausted_until: float) -> bool:
        """
        Add *visits*, leased for *version*, to what is left.

        Args:
            exhausted_until: until then nothing is leased once all are spent.

        Returns:
            False: a lease for a later version is held, and nothing was added.
        """

    def drop_older_visits(self, slug: str, version: int) -> int | None:
        """Drop a lease made before *version*, and return what was left of it."""

    def idle_visits(self, used_before: float, now: float) -> Sequence[str]:
        """
        Return the slugs whose lease was last used at *used_before* or earlier.

        Without those that are known to be exhausted at *now*.
        """

    def drop_idle_visits(self, slug: str, used_before: float, now: float) -> int | None:
        """Drop the lease of *slug* if it is idle, and return what was left of it."""


@dataclass(slots=True)
class _Lease:
    version: int
    left: int
    used_at: float
    exhausted_until: float

    def is_idle(self, used_before: float, now: float) -> bool:
        # What is left goes back at once; that nothing is, is kept in mind.
        return self.used_at <= used_before and (self.left > 0 or self.exhausted_until <= now)


class Leases:
    """The book of a process without a data plane."""

    def __init__(self) -> None:
        self._held: dict[str, _Lease] = {}

    def take_visit(self, slug: str, version: int, spend: bool, now: float) -> int:  # noqa: FBT001 - see above
        """As `LeaseBook`."""
        held = self._held.get(slug)
        if held is None or held.version < version:
            return version
        if held.left > 0:
            held.left -= spend
            held.used_at = now
            return SPENT
        return EXHAUSTED if now < held.exhausted_until else held.version

    def add_visits(self, slug: str, version: int, visits: int, now: float, exhausted_until: float) -> bool:
        """As `LeaseBook`."""
        held = self._held.get(slug)
        if held is not None and held.version > version:
            return False
        left = visits + (held.left if held is not None else 0)
        self._held[slug] = _Lease(version, left, now, exhausted_until)
        return True

    def drop_older_visits(self, slug: str, version: int) -> int | None:
        """As `LeaseBook`."""
        held = self._held.get(slug)
        if held is None or held.version >= version:
            return None
        del self._held[slug]
        return held.left

    def idle_visits(self, used_before: float, now: float) -> Sequence[str]:
        """As `LeaseBook`."""
        return [slug for slug, held in self._held.items() if held.is_idle(used_before, now)]

    def drop_idle_visits(self, slug: str, used_before: float, now: float) -> int | None:
        """As `LeaseBook`."""
        held = self._held.get(slug)
        if held is None or not held.is_idle(used_before, now):
            return None
        del self._held[slug]
        return held.left
