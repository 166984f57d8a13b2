"""Further slugs of a link, and another slug for it: add, remove, rename (docs/adr/0025)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.concurrency.actors import reach
from app.domain import domains, slug
from app.domain.domains import Domain
from app.domain.errors import Contended, FieldError, InvalidInput
from app.domain.link import MAX_ALIASES, Link, Slug
from app.domain.link_key import name_of
from app.domain.policy import TargetPolicy
from app.ports import (
    AddressTaken,
    Changed,
    IdempotentRequest,
    LinkStore,
    Replayed,
    RequestMismatch,
    VersionMismatch,
)
from app.service.links import Deliver, IsAlias, Removed, SlugTaken

# A change without an expected version gives up after losing this many races.
_TRIES = 8


@dataclass(frozen=True, slots=True)
class NoAlias:
    """The link has no such alias."""


Outcome = Link | Replayed | VersionMismatch | SlugTaken | RequestMismatch | Removed | IsAlias | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The slug and the aliases that a link shall have."""

    to: Slug
    aliases: Sequence[Slug]


class Aliases:
    """
    The slugs of links, for API and command line. A link beyond the reach of the caller is none.

    Every operation names a link by its own slug, and returns it. Raises (every operation):
    Unavailable, if it may or may not have been changed.

    Args:
        as in `app.service.links.Links`.
    """

    def __init__(
        self,
        store: LinkStore,
        deliver: Deliver,
        *,
        clock: Callable[[], datetime],
        policy: TargetPolicy,
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._clock = clock
        self._policy = policy

    async def get(self, name: Slug) -> Link | Removed | None:
        """Return the link that has this slug or alias."""
        link = await self._reached(name)
        return Removed(link) if link is not None and link.removed_at is not None else link

    async def _reached(self, name: Slug) -> Link | None:
        link = await self._store.get(name)
        return link if link is not None and reach().holds(link) else None

    async def add(
        self, name: Slug, domain: Domain, text: str, lengths: slug.Lengths, *, expected_version: int | None
    ) -> Outcome:
        """
        Give the link the alias *text* at *domain*; one that it has already changes nothing.

        Raises:
            InvalidInput: the alias breaks a rule, or the link has as many as there may be.
        """
        reach().check_domain(domain)
        alias = self._policy.free(domains.parse(domain, text, lengths))

        def wanted(link: Link) -> _Wanted:
            if alias == link.slug:
                raise InvalidInput([FieldError("slug", "alias_same", "is the slug of the link itself")])
            if len(link.aliases) >= MAX_ALIASES and alias not in link.aliases:
                raise InvalidInput([FieldError("slug", "aliases_too_many", _TOO_MANY)])
            return _Wanted(link.slug, (*(one for one in link.aliases if one != alias), alias))

        return await self._change(name, wanted, expected_version, is_there=lambda link: alias in link.aliases)

    async def remove(
        self, name: Slug, alias: Slug | None, *, expected_version: int | None
    ) -> Outcome | NoAlias:
        """Take *alias* from the link; None is none that any link has. The slug stays taken."""
        link = await self.get(name)
        if isinstance(link, Link) and link.slug == name and alias not in link.aliases:
            return NoAlias()

        def wanted(link: Link) -> _Wanted:
            return _Wanted(link.slug, [one for one in link.aliases if one != alias])

        return await self._change(
            name, wanted, expected_version, is_there=lambda link: alias not in link.aliases
        )

    async def rename(
        self,
        name: Slug,
        domain: Domain,
        text: str,
        lengths: slug.Lengths,
        *,
        keep_old: bool,
        expected_version: int | None,
        request: IdempotentRequest | None = None,
    ) -> Outcome:
        """
        Give the link the slug *text* at *domain*.

        Args:
            keep_old: its former slug becomes an alias; otherwise that is gone, and stays taken.

        Raises:
            InvalidInput: the slug breaks a rule, or the link has as many aliases as there may be.
        """
        reach().check_domain(domain)
        new = self._policy.free(domains.parse(domain, text, lengths))
        if new == name:
            raise InvalidInput([FieldError("slug", "slug_same", "is the slug of the link already")])

        def wanted(link: Link) -> _Wanted:
            others = [one for one in link.aliases if one != new]
            # Of a repeated request, the link has its new slug already.
            if keep_old and link.slug == name and len(others) >= MAX_ALIASES:
                raise InvalidInput([FieldError("slug", "aliases_too_many", _TOO_MANY)])
            return _Wanted(new, [*others, link.slug] if keep_old else others)

        return await self._change(name, wanted, expected_version, request=request)

    async def _change(
        self,
        name: Slug,
        wanted: Callable[[Link], _Wanted],
        expected_version: int | None,
        *,
        is_there: Callable[[Link], bool] = lambda _: False,
        request: IdempotentRequest | None = None,
    ) -> Outcome:
        for _ in range(_TRIES):
            link = await self._reached(name)
            if link is None:
                return None
            if request is None:  # of one that was served before, the store knows the answer
                refused = _refused(link, name, expected_version)
                if refused is not None or is_there(link):
                    return refused or link
            outcome = await self._readdress(link, name, wanted(link), expected_version, request)
            if not isinstance(outcome, VersionMismatch) or expected_version is not None:
                return outcome
        raise Contended("store", f"{_TRIES} changes of {name_of(name)} lost the race to others")

    async def _readdress(
        self,
        link: Link,
        name: Slug,
        wanted: _Wanted,
        expected_version: int | None,
        request: IdempotentRequest | None,
    ) -> Outcome:
        outcome = await self._store.readdress(
            name,
            to=wanted.to,
            aliases=wanted.aliases,
            expected_version=link.version if expected_version is None else expected_version,
            now=self._clock(),
            request=request,
        )
        match outcome:
            case Changed():
                await self._deliver([outcome])
                return outcome.link
            case AddressTaken(taken):
                return SlugTaken(await self._store.get(taken) or link, taken)
            case None:
                found = await self._reached(name)
                return None if found is None else _refused(found, name, None) or VersionMismatch(found)
        return outcome


_TOO_MANY = f"a link has {MAX_ALIASES} aliases at most"


def _refused(
    link: Link, name: Slug, expected_version: int | None
) -> Removed | IsAlias | VersionMismatch | None:
    """Return why *link*, found under *name*, cannot be changed."""
    if link.slug != name:
        return IsAlias(link)
    if link.removed_at is not None:
        return Removed(link)
    return VersionMismatch(link) if expected_version not in {None, link.version} else None
