"""`BatchStore`: many changes of links in one transaction, decided from what the store has at that moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from app.domain.link import Link, LinkFields, Slug
from app.domain.link_key import DEFAULT_ID
from app.ports.idempotency import IdempotentRequest
from app.ports.links import Changed, RequestMismatch


@dataclass(frozen=True, slots=True)
class Reusable:
    """Any link of the domain with this id that has these fields, and this owner if it is not None."""

    fields: LinkFields
    domain: int = DEFAULT_ID
    owner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """
    What a batch reads before it decides.

    Links under `slugs`, removed ones included; links that have `external_ids`, without removed ones; and
    for each of `reusable` the oldest link of the domain that has these fields, is unrestricted and neither
    removed nor blocked, and has no external id. `locks`: links under `slugs` and `external_ids` may be
    changed, so no other call changes them meanwhile. Calls that ask for the same reusable link wait for each
    other.
    """

    slugs: Sequence[Slug] = ()
    external_ids: Sequence[str] = ()
    reusable: Sequence[Reusable] = ()
    locks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the store has of what is `Wanted`; what is not there is left out."""

    links: Mapping[Slug, Link] = field(default_factory=dict)
    external_ids: Mapping[str, Link] = field(default_factory=dict)
    reusable: Mapping[Reusable, Link] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """
    What a batch writes: the final state of each link, each slug once.

    `added` are new links. `changed` are links that were found under a lock, each with the version that
    was found. `answer` is kept with the request.
    """

    added: Sequence[Link] = ()
    changed: Sequence[tuple[Link, int]] = ()
    answer: bytes = b""


@dataclass(frozen=True, slots=True)
class Answered:
    """The same request was served before, with this `Batch.answer`."""

    answer: bytes


# Runs in another thread than the event loop's, and several times if other writers interfere: it must be
# pure but for what it notes of its last call. None: nothing is written, and the request not recorded.
Decide = Callable[[Found], Batch | None]


class BatchStore(Protocol):
    """Changes of many links. Raises (every method): Unavailable."""

    async def write_batch(
        self, wanted: Wanted, decide: Decide, *, now: datetime, request: IdempotentRequest | None = None
    ) -> Sequence[Changed] | Answered | RequestMismatch:
        """
        Read what is *wanted*, and write what *decide* makes of it, each link with an outbox row.

        One transaction: all of the batch is stored, with its *request*, or none of it. The result of the
        last call of *decide* is the one that was written. Of concurrent calls with the same *request* one
        stores, the others return `Answered`. *now* is when the request was recorded.

        Raises:
            Contended: others were faster at every attempt. Nothing was stored.
        """
        ...
