"""`VisitStore` counts visits by what they look like; `Agents` and `Places` read what a request tells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import Agent, Place, ValueVisits

# Of a sketch, or None for an empty one, and hashes of visitors: the sketch that has them as well.
Merge = Callable[[bytes | None, Collection[int]], bytes]


@dataclass(frozen=True, slots=True)
class PeriodVisits:
    """The visits of one kind in the period that begins at `start`."""

    start: datetime
    kind: str
    visits: int


class VisitStore(Protocol):
    """
    Visits by hour and value. Changes no link: no version, no outbox row.

    Raises (every method): Unavailable.
    """

    async def add_visits(self, described: Sequence[VisitsDescribed], *, now: datetime, merge: Merge) -> int:
        """
        Add *described* to the hours of their links and totals, each `batch` once.

        What is much is added by parts. If one fails, those before are added, and repeating the call is safe.

        Totals are those of all links, of their domains and of the tags that they have at that time.

        Of links without `analytics` nothing is added, by any slug that they have or had. Beyond `MAX_VALUES`
        values of a dimension in an hour of a link, further ones are added to `OTHER`.
        *merge* is called for the sketch of each link's day (UTC); it may block.

        Return how many had been added before, and `ClickStore.forget_batches` has not forgotten since.
        """
        ...

    async def roll_up_visits(self, *, since: datetime, until: datetime) -> bool:
        """
        Add the hours of totals up for one day (UTC) that begins and ends in [*since*, *until*).

        Of many totals a call adds up a part.

        Other methods answer the same before and after that, but sooner: of a day with more than
        `MAX_DAY_VALUES` values of a dimension, those beyond are in `OTHER` from then on.

        False: there is no such day that has visits and is not added up.
        """
        ...

    async def visit_values(
        self, slug: Slug, *, since: datetime, until: datetime, limit: int
    ) -> Sequence[ValueVisits]:
        """
        Return the visits of *slug*, a link or a total, in hours that begin in [*since*, *until*).

        Those are the visits of each slug that the link has or had.

        Of each dimension the *limit* values with the most visits, most first, then by value; `OTHER` comes
        last, with the visits of all others, if there are any.
        """
        ...

    async def visit_kinds(
        self, slug: Slug, *, starts: Sequence[datetime], until: datetime
    ) -> Sequence[PeriodVisits]:
        """
        Return the visits of *slug*, a link or a total, by period and kind, in the order of both.

        Args:
            starts: the first hour of each period, in their order, at least one; a period ends where the next
                one begins.
            until: the end of the last one.
        """
        ...

    async def visitor_sketches(self, slug: Slug, *, first: date, last: date) -> Sequence[bytes]:
        """Return the sketches of visitors of *slug*, a link or a total, from *first* to *last* (UTC)."""
        ...

    async def forget_visits(self, *, before: datetime, limit: int) -> int:
        """Delete up to *limit* counts and sketches from before *before*; return how many."""
        ...


class VisitorKeyStore(Protocol):
    """
    The keys that visitors are hashed with, one for each day (UTC).

    Raises (every method): Unavailable.
    """

    async def visitor_key(self, day: date, proposed: bytes) -> bytes:
        """Return the key that visitors of *day* are hashed with: *proposed*, unless there is one."""
        ...

    async def forget_visitor_keys(self, *, before: date) -> None:
        """Delete the keys of days before *before*: no program can hash an address of then any more."""
        ...


class Agents(Protocol):
    """Reads the header `User-Agent`. Never raises."""

    def agent(self, user_agent: str) -> Agent:
        """Return what *user_agent* tells."""
        ...


class Places(Protocol):
    """Knows where addresses are. Never raises."""

    def place(self, client: str) -> Place:
        """Return where *client* is, an address or an IPv6 network."""
        ...
