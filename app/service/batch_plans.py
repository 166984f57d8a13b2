"""
What a batch of items does to the links that the store has: pure, item by item, in order.

Each item sees what the items before it have done. An external id stays taken until the end of the batch
that frees it, because a database checks it row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from app.domain import domains, utm
from app.domain.domains import Domain
from app.domain.errors import FieldError, HopgateError, InvalidInput
from app.domain.link import Link, LinkFields, Slug
from app.domain.link_key import split_key
from app.domain.reach import EVERYTHING, Reach
from app.ports import Batch, ExternalIdTaken, Found, Reusable, VersionMismatch, Wanted
from app.service.links import IsAlias, Removed, SlugTaken

# The present fields of a link and those wanted → the latter in canonical form, as `app.domain.rules.edited`.
Edited = Callable[[LinkFields, LinkFields], LinkFields]


@dataclass(frozen=True, slots=True)
class Fault:
    """An item that could not be read, or breaks a rule; nothing was done with it."""

    error: HopgateError


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """
    A link to store, its fields checked.

    Without a `slug` it gets a random one. `named` are the fields that the client sent; `names_domain`: and
    the domain. `reuse`: an equal link that is there already will do.
    """

    fields: LinkFields
    slug: Slug | None
    named: frozenset[str]
    domain: Domain
    names_domain: bool = False
    reuse: bool = False
    expires_in: timedelta | None = None

    def wanted(self, reach: Reach) -> Reusable:
        """Return what may stand for it within *reach*, if it has `reuse`."""
        return Reusable(self.fields, self.domain.domain_id, reach.owner)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditItem:
    """
    Fields of a link to replace; of this `version` only, if there is one. No slug: no link can have it.

    `owner`: as `LinkStore.update` takes it.
    """

    slug: Slug | None
    patch: Mapping[str, Any]
    version: int | None = None
    expires_in: timedelta | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalItem:
    """A link to remove; of this `version` only, if there is one. No slug: no link can have it."""

    slug: Slug | None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """The link was stored as new, or was changed."""

    link: Link
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """The link is there already as it was asked for; nothing was changed."""

    link: Link


@dataclass(frozen=True, slots=True)
class Taken:
    """The link was removed."""

    link: Link


@dataclass(frozen=True, slots=True)
class SlugFixed:
    """The link of this external id has another slug or domain, and keeps it."""

    link: Link


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such link."""


# What became of one item.
ItemOutcome = (
    Stored
    | Kept
    | Taken
    | Fault
    | SlugTaken
    | ExternalIdTaken
    | SlugFixed
    | VersionMismatch
    | Removed
    | IsAlias
    | Missing
)


def succeeded(outcome: ItemOutcome) -> bool:
    """Return whether the item has its effect."""
    return isinstance(outcome, Stored | Kept | Taken)


@dataclass(slots=True)
class _Links:
    """The links as the items so far leave them; `drawn` are new slugs that are random."""

    by_slug: dict[Slug, Link]
    by_external_id: dict[str, Link]
    added: dict[Slug, Link] = field(default_factory=dict)
    changed: dict[Slug, tuple[Link, int]] = field(default_factory=dict)
    drawn: set[Slug] = field(default_factory=set)

    @classmethod
    def of(cls, found: Found) -> _Links:
        return cls(dict(found.links), dict(found.external_ids))

    def add(self, link: Link) -> None:
        self.added[link.slug] = link
        self._hold(link)

    def change(self, link: Link) -> None:
        if link.slug in self.added:
            self.added[link.slug] = link
        else:
            replaced = self.changed[link.slug][1] if link.slug in self.changed else link.version - 1
            self.changed[link.slug] = (link, replaced)
        self._hold(link)

    def batch(self, answer: bytes) -> Batch:
        return Batch(added=list(self.added.values()), changed=list(self.changed.values()), answer=answer)

    def _hold(self, link: Link) -> None:
        self.by_slug[link.slug] = link
        external_id = link.fields.external_id
        if external_id is not None and link.removed_at is None:
            self.by_external_id[external_id] = link


@dataclass(slots=True)
class Planned:
    """What a batch does: the outcome of each item, in order, and what is to be written."""

    outcomes: list[ItemOutcome]
    links: _Links


class Creates:
    """
    Links to store.

    Args:
        upserts: an item whose external id a link has changes that link.
        choice: picks one character of a string, unpredictably.
        edited: see `Edited`.
        reach: links beyond it are neither changed nor reused.
        owner: of links that are new.
    """

    def __init__(
        self,
        items: Sequence[NewItem | Fault],
        *,
        upserts: bool,
        choice: Callable[[str], str],
        edited: Edited,
        reach: Reach = EVERYTHING,
        owner: str | None = None,
    ) -> None:
        self._reach = reach
        self._owner = owner
        self._items = items
        self._upserts = upserts
        self._choice = choice
        self._edited = edited

    def wanted(self) -> Wanted:
        """Return what `plan` has to know."""
        items = [item for item in self._items if isinstance(item, NewItem)]
        ids = (item.fields.external_id for item in items)
        return Wanted(
            slugs=list(dict.fromkeys(item.slug for item in items if item.slug is not None)),
            external_ids=list(dict.fromkeys(one for one in ids if one is not None)),
            reusable=list(dict.fromkeys(item.wanted(self._reach) for item in items if item.reuse)),
            locks=self._upserts,
        )

    def plan(self, found: Found, now: datetime) -> Planned:
        """Decide over each item."""
        links, reusable = _Links.of(found), dict(found.reusable)
        return Planned([self._one(item, links, reusable, now) for item in self._items], links)

    def _one(
        self, item: NewItem | Fault, links: _Links, reusable: dict[Reusable, Link], now: datetime
    ) -> ItemOutcome:
        if isinstance(item, Fault):
            return item
        external_id = item.fields.external_id
        holder = links.by_external_id.get(external_id) if external_id is not None else None
        if holder is not None and self._upserts and self._reach.holds(holder):
            return self._update(item, holder, links, now)
        try:
            self._reach.check_domain(item.domain)
        except InvalidInput as error:
            return Fault(error)
        wanted = item.wanted(self._reach) if item.reuse else None
        if wanted in reusable:
            return Kept(reusable[wanted])
        taken = ExternalIdTaken(holder) if holder is not None else _taken(item, links)
        if taken is not None:
            return taken
        name = item.slug or domains.generate(item.domain, self._choice)
        fields = _expiring(item.fields, item.expires_in, now)
        link = Link(slug=name, fields=fields, version=1, created_at=now, updated_at=now, owner=self._owner)
        links.add(link)
        if item.slug is None:
            links.drawn.add(name)
        if wanted is not None:
            reusable[wanted] = link
        return Stored(link, is_new=True)

    def _update(self, item: NewItem, holder: Link, links: _Links, now: datetime) -> ItemOutcome:
        is_elsewhere = item.names_domain and split_key(holder.slug)[0] != item.domain.domain_id
        if is_elsewhere or (item.slug is not None and item.slug != holder.slug):
            return SlugFixed(holder)
        fields = _expiring(item.fields, item.expires_in, now)
        named = item.named | {"expires_at"} if item.expires_in is not None else item.named
        patch = {name: getattr(fields, name) for name in named}
        if all(getattr(holder.fields, name) == value for name, value in patch.items()):
            return Kept(holder)
        return _edit(holder, patch, links, now, self._edited)


def _taken(item: NewItem, links: _Links) -> SlugTaken | None:
    holder = links.by_slug.get(item.slug) if item.slug is not None else None
    return None if holder is None else SlugTaken(holder)


class Edits:
    """Links to change."""

    def __init__(
        self, items: Sequence[EditItem | Fault], *, edited: Edited, reach: Reach = EVERYTHING
    ) -> None:
        self._items = items
        self._edited = edited
        self._reach = reach

    def wanted(self) -> Wanted:
        """Return what `plan` has to know."""
        items = [item for item in self._items if isinstance(item, EditItem)]
        ids = (item.patch.get("external_id") for item in items)
        return Wanted(
            slugs=list(dict.fromkeys(item.slug for item in items if item.slug is not None)),
            external_ids=list(dict.fromkeys(one for one in ids if isinstance(one, str))),
            locks=True,
        )

    def plan(self, found: Found, now: datetime) -> Planned:
        """Decide over each item."""
        links = _Links.of(found)
        return Planned([self._one(item, links, now) for item in self._items], links)

    def _one(self, item: EditItem | Fault, links: _Links, now: datetime) -> ItemOutcome:
        if isinstance(item, Fault):
            return item
        current = _current(item.slug, item.version, links, self._reach)
        if not isinstance(current, Link):
            return current
        if item.owner is not None:
            current = replace(current, owner=item.owner or None)
        patch = item.patch
        if item.expires_in is not None:
            patch = {**patch, "expires_at": now + item.expires_in}
        return _edit(current, patch, links, now, self._edited)


class Removals:
    """Links to remove."""

    def __init__(self, items: Sequence[RemovalItem | Fault], *, reach: Reach = EVERYTHING) -> None:
        self._items = items
        self._reach = reach

    def wanted(self) -> Wanted:
        """Return what `plan` has to know."""
        items = [item for item in self._items if isinstance(item, RemovalItem)]
        names = dict.fromkeys(item.slug for item in items if item.slug is not None)
        return Wanted(slugs=list(names), locks=True)

    def plan(self, found: Found, now: datetime) -> Planned:
        """Decide over each item."""
        links = _Links.of(found)
        return Planned([self._one(item, links, now) for item in self._items], links)

    def _one(self, item: RemovalItem | Fault, links: _Links, now: datetime) -> ItemOutcome:
        if isinstance(item, Fault):
            return item
        current = _current(item.slug, item.version, links, self._reach)
        if not isinstance(current, Link):
            return current
        removed = replace(current, removed_at=now, updated_at=now, version=current.version + 1)
        links.change(removed)
        return Taken(removed)


def _current(
    name: Slug | None, version: int | None, links: _Links, reach: Reach
) -> Link | Missing | Removed | IsAlias | VersionMismatch:
    link = links.by_slug.get(name) if name is not None else None
    if link is None or not reach.holds(link):
        return Missing()
    if link.alias_of is not None:
        return IsAlias(link)
    if link.removed_at is not None:
        return Removed(link)
    return link if version is None or version == link.version else VersionMismatch(link)


def _edit(
    current: Link, patch: Mapping[str, Any], links: _Links, now: datetime, edited: Edited
) -> ItemOutcome:
    try:
        fields = edited(current.fields, utm.patched(current.fields, patch))
    except InvalidInput as error:
        return Fault(error)
    external_id = fields.external_id
    if external_id is not None and external_id != current.fields.external_id:
        holder = links.by_external_id.get(external_id)
        if holder is not None and holder.slug != current.slug:
            return ExternalIdTaken(holder)
    link = replace(current, fields=fields, version=current.version + 1, updated_at=now)
    links.change(link)
    return Stored(link)


def _expiring(fields: LinkFields, expires_in: timedelta | None, now: datetime) -> LinkFields:
    return fields if expires_in is None else replace(fields, expires_at=now + expires_in)


# Fields that restrict when, or how often, a link redirects, or that tie it to one purpose; and what few have.
_RESTRICTING = ("valid_from", "expires_at", "max_visits", "external_id", "expired_url", "robots")


def check_reusable(item: NewItem) -> None:
    """
    Check that any link with the fields of *item* is as good as a new one.

    Raises:
        InvalidInput: *item* names a slug or a restriction.
    """
    errors = [
        FieldError(name, "reuse_restricted", "excludes reuse")
        for name in _RESTRICTING
        if getattr(item.fields, name) is not None and not (name == "expires_at" and item.expires_in)
    ]
    if item.slug is not None:
        errors.append(FieldError("slug", "reuse_restricted", "excludes reuse"))
    if not item.fields.enabled:
        errors.append(FieldError("enabled", "reuse_restricted", "excludes reuse unless it is true"))
    if item.expires_in is not None:
        errors.append(FieldError("expires_in", "reuse_restricted", "excludes reuse"))
    if errors:
        raise InvalidInput(errors)
