"""The verbs on links: create, read, list, change, remove, invalidate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app.domain import rules, slug
from app.domain.errors import FieldError, InvalidInput, Unavailable
from app.domain.link import Link, LinkFields, NewLink, Slug
from app.ports import (
    Added,
    Changed,
    IdempotentRequest,
    LinkStore,
    Page,
    Replayed,
    RequestMismatch,
    VersionMismatch,
)

# 57^7 slugs: even with 10⁹ links one try in 2,000 collides, so five in a row do not happen.
_TRIES = 5
# Edits without If-Match that lose the race to others this often give up.
_EDIT_TRIES = 8


# Takes over committed changes and their outbox rows. Must neither raise nor take long.
Deliver = Callable[[Sequence[Changed]], Awaitable[None]]


async def leave_to_relay(changes: Sequence[Changed]) -> None:
    """Deliver nothing: the rows are in the outbox, and a relay sweeps it."""


@dataclass(frozen=True, slots=True)
class Created:
    """The link as stored; `replayed` if the same request had made it before."""

    link: Link
    replayed: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """One link of a batch, checked (see `app.domain.rules`); without a slug it gets a random one."""

    fields: LinkFields
    slug: Slug | None = None


@dataclass(frozen=True, slots=True)
class BatchCreated:
    """The links of a batch, aligned with its drafts; None where the slug was taken."""

    links: tuple[Link | None, ...]
    replayed: bool


@dataclass(frozen=True, slots=True)
class SlugTaken:
    """Somebody has that slug, or had it: `link` is theirs."""

    link: Link


@dataclass(frozen=True, slots=True)
class Removed:
    """There was such a link, and there will be none again."""

    link: Link


class Links:
    """
    What API and command line do with links.

    Args:
        deliver: called with each change after its commit.
        clock: the present time, timezone-aware UTC.
        choice: picks one character of a string, unpredictably.
        own_hosts: hosts no target may point to; see `app.domain.target`.
    """

    def __init__(
        self,
        store: LinkStore,
        deliver: Deliver,
        *,
        clock: Callable[[], datetime],
        choice: Callable[[str], str],
        own_hosts: Collection[str],
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._clock = clock
        self._choice = choice
        self._own_hosts = own_hosts

    async def create(
        self, fields: LinkFields, *, custom_slug: str | None = None, request: IdempotentRequest | None = None
    ) -> Created | SlugTaken | RequestMismatch:
        """
        Store a new link, under *custom_slug* or a random one.

        Raises:
            InvalidInput: a rule of `app.domain` is broken.
            Unavailable: it may or may not have been stored; ask again with the same *request*.
        """
        now = self._clock()
        fields, wanted = self._checked_draft(fields, custom_slug, now)
        for _ in range(1 if wanted else _TRIES):
            name = wanted or slug.generate(self._choice)
            outcome = await self._store.add([NewLink(slug=name, fields=fields)], now=now, request=request)
            if isinstance(outcome, RequestMismatch):
                return outcome
            if isinstance(outcome, Replayed):
                return Created(outcome.links[0], replayed=True)
            link = outcome.links[0]
            if link is not None:
                await self._deliver(_changes(outcome))
                return Created(link, replayed=False)
        taken = await self._store.get(name)
        if taken is None:  # links are never deleted, so this cannot be
            raise Unavailable("store", f"{_TRIES} random slugs in a row were taken")
        return SlugTaken(taken)

    async def create_many(self, drafts: Sequence[Draft], *, request: IdempotentRequest) -> BatchCreated:
        """
        Store *drafts*, already checked, in one transaction; those whose slug is taken are left out.

        Doing it again with the same *request* stores nothing and returns the same links.

        Raises:
            InvalidInput: *request* was used before for something else.
            Unavailable: it may or may not have been done; ask again with the same *request*.
        """
        now = self._clock()
        wanted = [draft.slug for draft in drafts if draft.slug is not None]
        taken: set[Slug] = set()
        for _ in range(_TRIES):
            names = self._names(drafts, taken)
            new = [
                NewLink(slug=name, fields=draft.fields)
                for name, draft in zip(names, drafts, strict=True)
                if name is not None
            ]
            if not new:
                return BatchCreated((None,) * len(drafts), replayed=False)
            # Whatever it holds, the store says first whether the request was served before.
            outcome = await self._store.add(new, now=now, request=request)
            if isinstance(outcome, RequestMismatch):
                message = "was used before, for other links: a file was imported under other rules"
                raise InvalidInput([FieldError("request", "idempotency_key_reused", message)])
            if isinstance(outcome, Replayed):
                return BatchCreated(_aligned(drafts, outcome.links), replayed=True)
            if outcome.events:
                await self._deliver(_changes(outcome))
                stored = iter(outcome.links)
                return BatchCreated(
                    tuple(next(stored) if name is not None else None for name in names), replayed=False
                )
            # With a request the store takes all or nothing: leave out what somebody has.
            taken = set(await self._store.get_many(wanted))
        raise Unavailable("store", f"others took slugs of the batch {_TRIES} times in a row")

    async def get(self, name: Slug) -> Link | Removed | None:
        """
        Return the link.

        Raises:
            Unavailable: the store did not answer.
        """
        link = await self._store.get(name)
        return Removed(link) if link is not None and link.removed_at is not None else link

    async def page(self, *, after: int | None, limit: int) -> Page:
        """
        Return one page of the links that are not removed, newest first.

        Raises:
            Unavailable: the store did not answer.
        """
        return await self._store.page(after=after, limit=limit)

    async def change(
        self, name: Slug, patch: Mapping[str, Any], *, expected_version: int | None = None
    ) -> Link | VersionMismatch | Removed | None:
        """
        Replace the fields of `LinkFields` that *patch* names.

        Args:
            expected_version: change only this version; None changes whichever is current.

        Raises:
            InvalidInput: the link would break a rule.
            Unavailable: it may or may not have been changed.
        """
        for _ in range(_EDIT_TRIES):
            current = await self._store.get(name)
            if current is None:
                return None
            if current.removed_at is not None:
                return Removed(current)
            if expected_version is not None and current.version != expected_version:
                return VersionMismatch(current)
            fields = rules.checked(replace(current.fields, **patch), own_hosts=self._own_hosts)
            outcome = await self._store.update(
                name, fields, expected_version=current.version, now=self._clock()
            )
            if isinstance(outcome, Changed):
                await self._deliver([outcome])
                return outcome.link
            if isinstance(outcome, VersionMismatch) and expected_version is not None:
                return outcome
        raise Unavailable("store", f"{_EDIT_TRIES} edits of {name} lost the race to others")

    async def remove(
        self, name: Slug, *, expected_version: int | None = None
    ) -> Link | VersionMismatch | Removed | None:
        """
        Remove the link for ever; its slug is not given out again.

        Raises:
            Unavailable: it may or may not have been removed.
        """
        outcome = await self._store.remove(name, expected_version=expected_version, now=self._clock())
        if isinstance(outcome, Changed):
            await self._deliver([outcome])
            return outcome.link
        if outcome is not None:
            return outcome
        link = await self._store.get(name)
        return Removed(link) if link is not None else None

    async def invalidate(self, names: Sequence[Slug]) -> Sequence[Slug]:
        """
        Make every cache read *names* again; return those that exist.

        Raises:
            Unavailable: some may have been invalidated.
        """
        changed = await self._store.touch(names)
        await self._deliver(changed)
        return [change.link.slug for change in changed]

    def _names(self, drafts: Sequence[Draft], taken: Collection[Slug]) -> list[Slug | None]:
        """Return a slug for each draft; None where it is taken, or an earlier draft wants it."""
        gone = set(taken)
        names: list[Slug | None] = []
        for draft in drafts:
            name = draft.slug or self._free_slug(gone)
            names.append(None if name in gone else name)
            gone.add(name)
        return names

    def _free_slug(self, taken: Collection[str]) -> Slug:
        while (name := slug.generate(self._choice)) in taken:
            pass
        return name

    def _checked_draft(
        self, fields: LinkFields, custom_slug: str | None, now: datetime
    ) -> tuple[LinkFields, Slug | None]:
        """Check slug and fields together, so that one answer names everything that is wrong."""
        errors: list[FieldError] = []
        wanted: Slug | None = None
        try:
            wanted = slug.parse(custom_slug) if custom_slug is not None else None
        except InvalidInput as error:
            errors += error.errors
        try:
            fields = rules.checked(fields, own_hosts=self._own_hosts)
            if fields.expires_at is not None and fields.expires_at <= now:
                errors.append(FieldError("expires_at", "time_past", "lies in the past"))
        except InvalidInput as error:
            errors += error.errors
        if errors:
            raise InvalidInput(errors)
        return fields, wanted


def _changes(added: Added) -> list[Changed]:
    """Put each link that was stored beside its event."""
    stored = {link.slug: link for link in added.links if link is not None}
    return [Changed(stored[event.change.slug], event) for event in added.events]


def _aligned(drafts: Sequence[Draft], links: Sequence[Link]) -> tuple[Link | None, ...]:
    """Put *links*, in their order but without those that were left out, beside their drafts."""
    chosen = {draft.slug for draft in drafts if draft.slug is not None}
    by_slug = {link.slug: link for link in links if link.slug in chosen}
    random = (link for link in links if link.slug not in chosen)
    return tuple(by_slug.pop(draft.slug, None) if draft.slug else next(random) for draft in drafts)
