"""`ClickStore` adds clicks up; `ClickSpool` keeps batches on disk while the bus is unavailable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from app.domain.events import ClicksCounted, Counted
from app.domain.link import Slug


class ClickStore(Protocol):
    """
    Click totals and clicks by the hour. Changes no link: no version, no outbox row.

    Raises (every method): Unavailable.
    """

    async def add_clicks(self, counted: ClicksCounted, *, now: datetime) -> bool:
        """
        Add *counted* to the totals and hours of its slugs, once per `batch`, without slugs that no link has.

        False: this batch was added before, and `forget_batches` has not forgotten it since.
        """
        ...

    async def hourly_clicks(self, slug: Slug, *, since: datetime, until: datetime) -> Mapping[datetime, int]:
        """Return the clicks of each hour that begins in [*since*, *until*) and has any."""
        ...

    async def forget_batches(self, *, before: datetime) -> int:
        """Delete the ids of batches that were added before *before*; return how many."""
        ...


class ClickSpool(Protocol):
    """
    A first-in, first-out queue of click batches on the local disk.

    Never raises: a batch that does not fit is refused, an unreadable one is skipped.
    """

    @property
    def kept_bytes(self) -> int:
        """The size of what is kept, as far as this process knows it."""
        ...

    async def append(self, counted: Counted) -> bool:
        """Keep *counted*, across a crash of the process or the machine; False if there is no room."""
        ...

    async def oldest(self, limit: int) -> Sequence[Counted]:
        """Return up to *limit* batches, oldest first. Empty if none is kept."""
        ...

    async def drop(self, count: int) -> None:
        """Delete the *count* oldest; after a crash they may be returned again."""
        ...

    async def aclose(self) -> None:
        """Close the files. The next process with the same folder finds what is kept."""
        ...
