"""The operations on links: create, read, list, change, remove, invalidate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from app.concurrency.actors import reach
from app.domain import domains, rules, slug, utm
from app.domain.domains import Domain
from app.domain.errors import Contended, FieldError, InvalidInput
from app.domain.link import MAX_ALIASES, Link, LinkFields, NewLink, Slug
from app.domain.link_key import DEFAULT_ID, name_of
from app.domain.policy import WEB_ONLY, TargetPolicy
from app.domain.reach import EVERYTHING
from app.ports import (
    Added,
    Changed,
    ExternalIdTaken,
    IdempotentRequest,
    LinkStore,
    Page,
    Replayed,
    RequestMismatch,
    VersionMismatch,
)

# The one that every store has, before anything is known of its host.
_DEFAULT = Domain(domain_id=DEFAULT_ID, host="")
# Of 57^7 slugs, 10⁹ are 1 in 2,000: five collisions in a row do not happen.
_TRIES = 5
# An edit without If-Match gives up after losing this many races.
_EDIT_TRIES = 8


# Receives committed changes and their outbox rows. Must neither raise nor block.
Deliver = Callable[[Sequence[Changed]], Awaitable[None]]


# Receives new links under random slugs. Must neither raise nor block.
Appear = Callable[[Sequence[Link]], None]


async def leave_to_relay(changes: Sequence[Changed]) -> None:
    """Deliver nothing: a relay publishes the rows from the outbox."""


@dataclass(frozen=True, slots=True)
class Created:
    """The stored link; `replayed` if an earlier request with the same key created it."""

    link: Link
    replayed: bool


@dataclass(frozen=True, slots=True)
class SlugTaken:
    """
    The slug belongs to another link, which may be removed: `link`.

    `slug`: which of those that were asked for; None: that of the link.
    """

    link: Link
    slug: Slug | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """The link existed and was removed, or the slug was another one of `link` and is no longer."""

    link: Link


@dataclass(frozen=True, slots=True)
class IsAlias:
    """The slug is an alias of `link`. Changes name a link by its own slug; nothing was changed."""

    link: Link


class Links:
    """
    The operations on links, for API and command line.

    A link beyond the reach of the caller (`app.concurrency.actors`) is none; only `create` names it, as what
    has taken a slug or an external id.

    Args:
        deliver: called with each change after its commit.
        clock: the present time, timezone-aware UTC.
        choice: picks one character of a string, unpredictably.
        own_hosts: hosts no target may point to; see `app.domain.target`.
        policy: what the operator lets targets be.
        cool_down: how long after its removal a link's slug may be that of a new one; None: never.
    """

    def __init__(
        self,
        store: LinkStore,
        deliver: Deliver,
        *,
        clock: Callable[[], datetime],
        choice: Callable[[str], str],
        own_hosts: Collection[str],
        policy: TargetPolicy = WEB_ONLY,
        cool_down: timedelta | None = None,
    ) -> None:
        self._cool_down = cool_down
        self._store = store
        self._deliver = deliver
        self._clock = clock
        self._choice = choice
        self._own_hosts = own_hosts
        self._policy = policy

    async def create(
        self,
        fields: LinkFields,
        *,
        domain: Domain = _DEFAULT,
        expires_in: timedelta | None = None,
        custom_slug: str | None = None,
        lengths: slug.Lengths = slug.ORDINARY,
        aliases: Sequence[tuple[Domain, str]] = (),
        request: IdempotentRequest | None = None,
    ) -> Created | SlugTaken | ExternalIdTaken | RequestMismatch:
        """
        Store a new link, under *custom_slug* or a random one.

        Args:
            domain: where it is visited; none that is removed.
            expires_in: the time of `fields.expires_at`, from now on.
            lengths: of the custom slugs that the caller may choose.
            aliases: further slugs, each with its domain.

        Raises:
            InvalidInput: a rule of `app.domain` is broken.
            Unavailable: it may or may not have been stored; repeat it with the same *request*.
        """
        reach().check_domain(domain)
        now = self._clock()
        if expires_in is not None:
            fields = replace(fields, expires_at=now + expires_in)
        fields, wanted = checked_draft(
            fields,
            custom_slug,
            lengths,
            domain=domain,
            now=now,
            own_hosts=self._own_hosts,
            policy=self._policy,
        )
        others = checked_aliases(aliases, lengths, self._policy, wanted)
        for _ in range(1 if wanted else _TRIES):
            name = wanted or domains.generate(domain, self._choice)
            new = NewLink(slug=name, fields=fields, aliases=others)
            outcome = await self._store.add([new], now=now, request=request)
            if wanted and isinstance(outcome, Added) and outcome.links[0] is None:
                outcome = await self._take_over(new, now, request) or outcome
            if isinstance(outcome, RequestMismatch):
                return outcome
            if isinstance(outcome, Replayed):
                return Created(outcome.links[0], replayed=True)
            link = outcome.links[0]
            if link is not None:
                await self._deliver(_changes(outcome))
                return Created(link, replayed=False)
            refused = await self._holder(fields.external_id) or await self._taken(others)
            if refused is not None:
                return refused
        taken = await self._store.get(name)
        if taken is None:  # links are never deleted, so this cannot be
            raise Contended("store", f"{_TRIES} random slugs in a row were taken")
        return SlugTaken(taken, name)

    async def _take_over(
        self, new: NewLink, now: datetime, request: IdempotentRequest | None
    ) -> Added | Replayed | RequestMismatch | None:
        """Store *new* under the slug of a link that was removed long ago; None if that is not so."""
        if self._cool_down is None or not self._is_over(await self._store.get(new.slug), new.slug, now):
            return None
        before = now - self._cool_down
        return await self._store.add([new], now=now, request=request, removed_before=before)

    def _is_over(self, held: Link | None, name: Slug, now: datetime) -> bool:
        """Was the link *held*, whose slug is *name*, removed long enough ago?"""
        if self._cool_down is None or held is None or held.removed_at is None or held.slug != name:
            return False
        return held.removed_at < now - self._cool_down

    async def is_free(self, name: Slug) -> bool:
        """
        Return whether a new link may have the slug, as `create` would find it now.

        Raises:
            Unavailable: the store did not answer.
        """
        held = await self._store.get(name)
        return held is None or self._is_over(held, name, self._clock())

    async def _taken(self, names: Sequence[Slug]) -> SlugTaken | None:
        found = await self._store.get_many(names) if names else {}
        return next((SlugTaken(found[name], name) for name in names if name in found), None)

    async def _holder(self, external_id: str | None) -> ExternalIdTaken | None:
        if external_id is None:
            return None
        found = (await self._store.find_external([external_id])).get(external_id)
        return None if found is None else ExternalIdTaken(found)

    async def get(self, name: Slug) -> Link | Removed | None:
        """
        Return the link.

        Raises:
            Unavailable: the store did not answer.
        """
        link = await self._reached(name)
        return Removed(link) if link is not None and link.removed_at is not None else link

    async def get_many(self, names: Sequence[Slug]) -> Mapping[Slug, Link]:
        """
        Return the links of *names* that the key reaches and that are not removed, by their slugs.

        Raises:
            Unavailable: the store did not answer.
        """
        found = await self._store.get_many(names)
        return {
            name: link
            for name, link in found.items()
            if link.slug == name and link.removed_at is None and reach().holds(link)
        }

    async def _reached(self, name: Slug) -> Link | None:
        link = await self._store.get(name)
        return link if link is not None and reach().holds(link) else None

    async def page(self, *, after: int | None, limit: int) -> Page:
        """
        Return one page of the links that are not removed, newest first.

        Raises:
            Unavailable: the store did not answer.
        """
        return await self._store.page(after=after, limit=limit)

    async def change(
        self,
        name: Slug,
        patch: Mapping[str, Any],
        *,
        expires_in: timedelta | None = None,
        expected_version: int | None = None,
        owner: str | None = None,
    ) -> Link | VersionMismatch | ExternalIdTaken | Removed | IsAlias | None:
        """
        Replace the fields of `LinkFields`, and the UTM parameters, that *patch* names.

        Args:
            expires_in: the time of `expires_at`, from now on.
            owner: as `LinkStore.update` takes it.
            expected_version: change only this version; None changes whichever is current.

        Raises:
            InvalidInput: the link would break a rule.
            Unavailable: it may or may not have been changed.
        """
        for _ in range(_EDIT_TRIES):
            current = await self._reached(name)
            if current is None:
                return None
            if current.slug != name:
                return IsAlias(current)
            if current.removed_at is not None:
                return Removed(current)
            if expected_version is not None and current.version != expected_version:
                return VersionMismatch(current)
            now = self._clock()
            expiry = {} if expires_in is None else {"expires_at": now + expires_in}
            wanted = utm.patched(current.fields, {**patch, **expiry})
            fields = rules.edited(current.fields, wanted, own_hosts=self._own_hosts, policy=self._policy)
            outcome = await self._store.update(
                name, fields, expected_version=current.version, now=now, owner=owner
            )
            if isinstance(outcome, Changed):
                await self._deliver([outcome])
                return outcome.link
            if isinstance(outcome, ExternalIdTaken) or (
                isinstance(outcome, VersionMismatch) and expected_version is not None
            ):
                return outcome
        raise Contended("store", f"{_EDIT_TRIES} edits of {name_of(name)} lost the race to others")

    async def remove(
        self, name: Slug, *, expected_version: int | None = None
    ) -> Link | VersionMismatch | Removed | IsAlias | None:
        """
        Remove the link; its slug is not given out again. See `app.service.history.History.undo`.

        Raises:
            Unavailable: it may or may not have been removed.
        """
        outcome = await self._remove(name, expected_version)
        if isinstance(outcome, Changed):
            await self._deliver([outcome])
            return outcome.link
        if outcome is not None:
            return outcome
        link = await self._reached(name)
        if link is not None and link.slug != name:
            return IsAlias(link)
        return Removed(link) if link is not None else None

    async def _remove(self, name: Slug, expected_version: int | None) -> Changed | VersionMismatch | None:
        if reach() == EVERYTHING:
            return await self._store.remove(name, expected_version=expected_version, now=self._clock())
        for _ in range(_EDIT_TRIES):
            # The version that was looked at: a link that is handed over meanwhile has another one.
            current = await self._reached(name)
            if current is None or current.removed_at is not None:
                return None
            if expected_version not in (None, current.version):
                return VersionMismatch(current)
            now = self._clock()
            outcome = await self._store.remove(name, expected_version=current.version, now=now)
            if not isinstance(outcome, VersionMismatch):
                return outcome
        raise Contended("store", f"{_EDIT_TRIES} removals of {name_of(name)} lost the race to others")

    async def invalidate(self, names: Sequence[Slug]) -> Sequence[Slug]:
        """
        Make every cache read *names* again; return those that exist.

        Raises:
            Unavailable: some may have been invalidated.
        """
        found = await self._store.get_many(names)
        reached = {name: link for name, link in found.items() if reach().holds(link)}
        await self._deliver(await self._store.touch([link.slug for link in reached.values()]))
        return [name for name in names if name in reached]


def checked_draft(
    fields: LinkFields,
    custom_slug: str | None,
    lengths: slug.Lengths,
    *,
    domain: Domain,
    now: datetime,
    own_hosts: Collection[str],
    policy: TargetPolicy,
) -> tuple[LinkFields, Slug | None]:
    """
    Return a new link's fields in canonical form, and its slug if it has a *custom_slug*.

    Raises:
        InvalidInput: with every rule that slug and fields break.
    """
    errors: list[FieldError] = []
    wanted: Slug | None = None
    try:
        wanted = policy.free(domains.parse(domain, custom_slug, lengths)) if custom_slug is not None else None
    except InvalidInput as error:
        errors += error.errors
    try:
        fields = rules.checked(fields, own_hosts=own_hosts, policy=policy)
        if fields.expires_at is not None and fields.expires_at <= now:
            errors.append(FieldError("expires_at", "time_past", "lies in the past"))
    except InvalidInput as error:
        errors += error.errors
    if errors:
        raise InvalidInput(errors)
    return fields, wanted


def checked_aliases(
    aliases: Sequence[tuple[Domain, str]],
    lengths: slug.Lengths,
    policy: TargetPolicy,
    wanted: Slug | None = None,
) -> tuple[Slug, ...]:
    """
    Return the keys of *aliases*, which a link with the slug *wanted* may get.

    Raises:
        InvalidInput: with every rule that they break.
    """
    errors: list[FieldError] = []
    keys: dict[Slug, None] = {}
    for domain, text in aliases:
        try:
            reach().check_domain(domain)
            keys[policy.free(domains.parse(domain, text, lengths))] = None
        except InvalidInput as error:
            errors += (FieldError("aliases", one.code, one.message) for one in error.errors)
    if wanted in keys:
        errors.append(FieldError("aliases", "alias_same", "must not name the slug of the link"))
    if len(keys) > MAX_ALIASES:
        errors.append(FieldError("aliases", "aliases_too_many", f"must be {MAX_ALIASES} at most"))
    if errors:
        raise InvalidInput(errors)
    return tuple(keys)


def _changes(added: Added) -> list[Changed]:
    """Return each stored link with its event."""
    stored = {link.slug: link for link in added.links if link is not None}
    return [Changed(stored[event.change.slug], event) for event in added.events]
