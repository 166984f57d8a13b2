"""
The doors of the core: `LinkStore`, `LinkReplica`, `LinkCache`, `EventBus`, `ClickSpool`, `Gate`.

Services speak only to these. Each docstring is the contract, and the suites in
`tests/contract/` hold every adapter to it. All adapters translate what their drivers raise
into `Unavailable`; nothing else leaves them.

Truth moves one way: store → event → cache. The cache never feeds the store.

All of them in one file, long as it is: reading it is how one gets to know the house.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from app.domain.events import ClicksCounted, Event, LinkChanged
from app.domain.link import Link, LinkFields, NewLink, Resolution, Slug

# --- LinkStore -------------------------------------------------------------------------


# A file is imported once, however much later it is given again.
IMPORT_SCOPE = "import"


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """
    Names a request so that it takes effect once, however often it is sent.

    `scope` is who sent it (an API key's id, or `IMPORT_SCOPE`), `key` what they called it,
    `fingerprint` a digest of what it asked for.
    """

    scope: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """A change that the caches still have to hear of. The row leaves once it was confirmed."""

    id: int
    change: LinkChanged


@dataclass(frozen=True, slots=True)
class Added:
    """
    `links` is aligned with what was asked for; None where the slug was taken.

    `events` holds one entry for each link that was stored.
    """

    links: tuple[Link | None, ...]
    events: tuple[OutboxEvent, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """The same request was served before; these are the links as they are now."""

    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class RequestMismatch:
    """The idempotency key was used before, for something else. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The link after the change, and the event the change left in the outbox."""

    link: Link
    event: OutboxEvent


@dataclass(frozen=True, slots=True)
class VersionMismatch:
    """The link had moved on; `current` is what it is now. Nothing was changed."""

    current: Link


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, newest first. `next_after` continues it; None at the end."""

    links: tuple[Link, ...]
    next_after: int | None


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """How much the caches still have to hear: rows, and the age of the oldest in seconds."""

    rows: int
    oldest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key at rest. `secret_hash` is SHA-256 of a secret with at least 250 bits."""

    key_id: str
    name: str
    secret_hash: bytes
    scopes: frozenset[str]
    created_at: datetime
    revoked_at: datetime | None = None


class LinkStore(Protocol):
    """
    The truth: links, the outbox of their changes, idempotent requests and API keys.

    Every method is one transaction: it happened entirely, or not at all. Every change of a
    link writes its outbox row in that same transaction. All reads see every change that
    was acknowledged before the call (no replica answers here).

    Raises (every method): Unavailable.
    """

    async def add(
        self, new: Sequence[NewLink], *, now: datetime, request: IdempotentRequest | None = None
    ) -> Added | Replayed | RequestMismatch:
        """
        Store *new* links at version 1; a slug that is taken, even by a removed link, is skipped.

        Two entries of *new* with the same slug: the first wins. With a *request* it is all
        or nothing: if one slug is taken, no link is stored, every entry of the answer is None
        and the request is not remembered. Concurrent calls with the same *request*: one
        stores, the others see `Replayed`.
        """
        ...

    async def get(self, slug: Slug) -> Link | None:
        """Return the link, removed ones included (see `Link.removed_at`)."""
        ...

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Link]:
        """Return the links that exist, removed ones included. At most 1,000 slugs."""
        ...

    async def resolve(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """Return `Resolution.of` each link that exists. At most 1,000 slugs."""
        ...

    async def page(self, *, after: int | None, limit: int) -> Page:
        """Return up to *limit* links that are not removed, newest first, continuing *after*."""
        ...

    async def update(
        self, slug: Slug, fields: LinkFields, *, expected_version: int, now: datetime
    ) -> Changed | VersionMismatch | None:
        """Replace the fields if the link is at *expected_version*; None if absent or removed."""
        ...

    async def remove(
        self, slug: Slug, *, expected_version: int | None, now: datetime
    ) -> Changed | VersionMismatch | None:
        """Mark the link removed, for ever. None if absent or removed already."""
        ...

    async def touch(self, slugs: Sequence[Slug]) -> Sequence[Changed]:
        """Raise the version of those that exist, removed ones included, changing nothing else."""
        ...

    async def take_events(self, *, limit: int, lease_s: float) -> Sequence[OutboxEvent]:
        """
        Lease up to *limit* outbox rows that are due; nobody else gets them for *lease_s*.

        A row written by `add`, `update`, `remove` or `touch` is due after a grace of
        `OUTBOX_GRACE_S`, so that the process that wrote it can deliver it first. A work set,
        not a cursor: a row that commits late is not passed over.
        """
        ...

    async def drop_events(self, ids: Sequence[int]) -> None:
        """Forget outbox rows that were delivered. Unknown ids are no error."""
        ...

    async def outbox_depth(self) -> OutboxDepth:
        """Return how many rows wait, due or not."""
        ...

    async def forget_requests(self, *, before: datetime) -> int:
        """Forget idempotent requests made before *before*, but no batch of an import; return how many."""
        ...

    async def fold_clicks(self, counted: ClicksCounted, *, now: datetime) -> bool:
        """
        Add *counted* to the totals and hours of its slugs, once, however often it is given.

        False: it was folded before, and not forgotten since. Changes no link: no version is
        raised and no outbox row written.
        """
        ...

    async def hourly_clicks(self, slug: Slug, *, since: datetime, until: datetime) -> Mapping[datetime, int]:
        """Return the clicks of each hour that begins in [*since*, *until*) and has any."""
        ...

    async def forget_batches(self, *, before: datetime) -> int:
        """Forget which batches of clicks were folded before *before*; return how many."""
        ...

    async def lease_visits(self, slug: Slug) -> int | None:
        """
        Take visits of the link's `max_visits` for the caller, who may give that many redirects.

        An eighth of what is left, at least one and at most `MAX_VISITS_A_LEASE`; 0 if none is
        left, or the link is removed or absent. None: it has no limit. What all callers hold and
        have spent never exceeds the limit that was in force when they leased. Changes no link: no
        version is raised and no outbox row written. Where the outcome is unknown, visits may be
        lost; so do not ask again for the same ones.
        """
        ...

    async def return_visits(self, slug: Slug, visits: int) -> None:
        """
        Give back *visits* that were leased and not spent. Never do it twice, whatever the outcome.

        An unknown slug is no error.
        """
        ...

    async def add_key(self, key: ApiKey) -> None:
        """Store *key*; its id is new."""
        ...

    async def get_key(self, key_id: str) -> ApiKey | None:
        """Return the key, revoked ones included."""
        ...

    async def list_keys(self) -> Sequence[ApiKey]:
        """Return all keys, oldest first, revoked ones included."""
        ...

    async def revoke_key(self, key_id: str, *, now: datetime) -> bool:
        """Revoke the key; False if there is none. Revoking twice keeps the first time."""
        ...

    async def ping(self) -> None:
        """Return if the store answers and its schema is not older than this code."""
        ...

    async def aclose(self) -> None:
        """Let go of every connection. Further calls are errors."""
        ...


OUTBOX_GRACE_S = 2.0
# What the death of a process can cost a link, for good.
MAX_VISITS_A_LEASE = 64

# --- LinkReplica -----------------------------------------------------------------------

REPLICA_LAG_S = 5.0


class LinkReplica(Protocol):
    """
    Copies of the store that may lag, by at most `REPLICA_LAG_S`. Good for redirects alone.

    What a copy says is shown if it is no older than every change that the process has heard of;
    it proves nothing else, and is never written to a cache that others read.
    """

    async def resolve(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """
        Return those of the links that are live, as one copy has them. Of all others: ask the store.

        At most 1,000 slugs. Never raises. Empty if there is no copy that is known to be current
        enough, or it does not answer in time. Links that it shows as gone or not yet valid are left
        out like those that it does not know, as that may have changed.
        """
        ...


# --- LinkCache -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CachePage:
    """Slugs of a cache that is looked through. `next_cursor` goes on, 0 at the end; `total` is about all."""

    slugs: tuple[Slug, ...]
    next_cursor: int
    total: int


class LinkCache(Protocol):
    """
    A shared cache of resolutions in which an older version never replaces a newer one.

    Raises (every method): Unavailable.
    """

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """Return what is cached, without misses and entries that cannot be read. At most 1,000 slugs."""
        ...

    async def put(self, resolutions: Sequence[Resolution]) -> int:
        """
        Write each resolution unless the cache holds the same or a newer version of it.

        Returns how many were written. Absent ones (version 0) live 5–15 s and lose to any
        real link; gone ones live long enough (10 min) to outlast every late write.
        """
        ...

    async def scan(self, cursor: int) -> CachePage:
        """
        Return some of the slugs held, absent ones included, beginning with cursor 0.

        Who follows `next_cursor` to its end meets every slug that was held all the while, some
        of them twice.
        """
        ...

    async def forget(self, slugs: Sequence[Slug]) -> None:
        """Drop what is held of *slugs*, whatever its version. For repairs: nothing guards them then."""
        ...

    async def ping(self) -> None:
        """Return if the cache answers."""
        ...

    async def aclose(self) -> None:
        """Let go of every connection."""
        ...


# --- EventBus --------------------------------------------------------------------------

EventHandler = Callable[[Sequence[Event]], Awaitable[None]]


class InvalidationListener(Protocol):
    """What a gateway process does when the caches change under it. Must not block or raise."""

    def on_changes(self, changes: Sequence[LinkChanged]) -> None:
        """These links are now at least at these versions."""
        ...

    def on_gap(self) -> None:
        """Changes may have been missed: whatever is held may be old."""
        ...


class EventBus(Protocol):
    """
    Carries events to one consumer among many (work), and changes to every gateway (fan-out).

    Delivery is at least once and in any order; handlers compare versions. The bus connects,
    and connects again, by itself.
    """

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        """
        Hand *events* to the consumers; return, aligned, which the broker has taken on.

        True means durable: it will reach a consumer though everything restarts (as far as
        the technology can: the in-process bus lives as long as its process). False means
        that it may or may not arrive. Never raises, and never takes longer than 2 s.
        """
        ...

    async def announce(self, changes: Sequence[LinkChanged]) -> None:
        """Tell every listening gateway, best effort. Raises Unavailable."""
        ...

    async def listen(self, listener: InvalidationListener) -> None:
        """Start calling *listener*; `on_gap` is called at the start and after every reconnect."""
        ...

    async def consume(self, handler: EventHandler) -> None:
        """
        Start feeding *handler* batches of at most 200 cache events; acknowledged when it returns.

        `Unavailable` from the handler pauses consumption and gives the batch again, for as
        long as it takes. Any other exception gives each of its events again alone, later and
        later; after `MAX_ATTEMPTS` it is parked with the dead letters. Bytes that are no
        event are parked at once.
        """
        ...

    async def consume_clicks(self, handler: EventHandler) -> None:
        """Do the same with `ClicksCounted`, which have a queue, a batch and retries of their own."""
        ...

    async def ping(self) -> None:
        """Return if the bus can publish and, where asked to, consumes. Raises Unavailable."""
        ...

    async def aclose(self) -> None:
        """Stop consuming (the current batch is finished), then disconnect."""
        ...


MAX_ATTEMPTS = 6

# --- ClickSpool ------------------------------------------------------------------------


class ClickSpool(Protocol):
    """
    Keeps batches of clicks on this machine's disk while the bus takes none, in order.

    Never raises: what cannot be kept is refused, what cannot be read is left out.
    """

    async def append(self, counted: ClicksCounted) -> bool:
        """Keep *counted*, through a crash of the process or the machine; False if there is no room."""
        ...

    async def oldest(self, limit: int) -> Sequence[ClicksCounted]:
        """Return up to *limit* batches, the oldest first. Empty: nothing is kept."""
        ...

    async def drop(self, count: int) -> None:
        """Forget the *count* oldest; after a crash they may come again."""
        ...

    async def aclose(self) -> None:
        """Let go; what is kept will be found by the next process with the same folder."""
        ...


# --- Gate ------------------------------------------------------------------------------


class Policy(StrEnum):
    """What is being limited; each has its own rate."""

    REDIRECT = "redirect"
    API = "api"
    ANONYMOUS = "anonymous"  # API calls whose key nobody has found yet, by address
    CREATE = "create"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was turned away: seconds until one would be admitted, and the HTTP headers."""

    retry_after_s: float
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Counted:
    """How many requests a gate has let through and turned away since it was made."""

    admitted: int
    refused: int


class Gate(Protocol):
    """Decides who may pass. Answers at once: no I/O, no waiting."""

    def admit(self, policy: Policy, client: str) -> bool:
        """Count one request of *client*; False if it is over the limit (then it is not counted)."""
        ...

    def refund(self, policy: Policy, client: str) -> None:
        """Take back that a request of *client* was just counted."""
        ...

    def counted(self, policy: Policy) -> Counted:
        """Return how often `admit` said yes and no; what was taken back was a yes."""
        ...

    def refusal(self, policy: Policy, client: str) -> Refusal:
        """Say how *client* stands: `retry_after_s` is 0 if a request would be admitted. Counts nothing."""
        ...
