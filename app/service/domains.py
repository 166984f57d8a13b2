"""
Domains: the operations on them, and the watch that brings each change to this process.

They are polled: see `app.service.polled`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from app.domain.domains import (
    MAX_DOMAINS,
    PAGES,
    Domain,
    DomainIndex,
    DomainSettings,
    check_slug_rules,
    checked_host,
    checked_pages,
)
from app.domain.errors import Contended, FieldError, InvalidInput, Unavailable
from app.domain.link import Link, Resolution, Slug
from app.domain.link_key import split_key
from app.domain.policy import WEB_ONLY, TargetPolicy
from app.ports import DomainStore, FindStore, LinkQuery, LocalCopy
from app.service.polled import FIRST_LOOK_S, LOOK_EVERY_S, SLICE, Answers, Polled

log = logging.getLogger(__name__)

_EDIT_TRIES = 8
# Every process that reaches the store has asked for changes by then, twice.
KNOWN_AFTER_S = 2 * LOOK_EVERY_S + 0.2


class Store(DomainStore, FindStore, Protocol):
    """What the operations on domains need of a store."""


@dataclass(frozen=True, slots=True)
class DomainTaken:
    """The host is that of another domain: `domain`."""

    domain: Domain


@dataclass(frozen=True, slots=True)
class DomainInUse:
    """Links of the domain, or links that lead to it, are there: `slug` is one of them."""

    slug: Slug


class Domains:
    """
    The operations on domains, for API and command line.

    Args:
        noticed: brings what was committed to *index* before the caller goes on.
        clock: the present time, timezone-aware UTC.
        own_hosts: addresses of this service, where no page of a domain may be.
    """

    def __init__(
        self,
        store: Store,
        index: DomainIndex,
        noticed: Callable[[], Awaitable[None]],
        *,
        clock: Callable[[], datetime],
        own_hosts: Collection[str],
        policy: TargetPolicy = WEB_ONLY,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sleep = sleep
        self._store = store
        self._index = index
        self._noticed = noticed
        self._clock = clock
        self._own_hosts = own_hosts
        self._policy = policy

    @property
    def index(self) -> DomainIndex:
        """The domains as this process knows them; see `named` for one that was just added elsewhere."""
        return self._index

    async def all(self) -> Sequence[Domain]:
        """Return those that are not removed, the default one first, by their hosts."""
        await self._noticed()
        default, *others = self._index
        return [default, *sorted(others, key=lambda one: one.host)]

    async def named(self, host: str | None, field: str = "domain") -> Domain:
        """Return the domain *host*, as it is typed, the default one for None; raises InvalidInput."""
        await self.find(host, field)
        return self._index.served(host, field)

    async def find(self, host: str | None, field: str = "host") -> Domain | None:
        """Return the domain *host*, as it is typed, or None. Raises InvalidInput: it is no host."""
        found = self._index.find(host, field)
        if found is None:
            # Another process may have added it a moment ago.
            await self._noticed()
            found = self._index.find(host, field)
        return found

    async def know(self, links: Iterable[Link]) -> None:
        """Know the domains of *links*: another process may have added one a moment ago."""
        if not all(self._index.knows(link.slug) for link in links):
            await self._noticed()

    async def refresh(self) -> None:
        """Know every domain that was committed before the call."""
        await self._noticed()

    async def add(
        self, host: str, settings: DomainSettings, *, case_sensitive: bool = True
    ) -> Domain | DomainTaken | DomainInUse:
        """
        Serve *host* as well, by links of its own.

        Raises:
            InvalidInput: a rule is broken.
            Unavailable: it may or may not be stored.
        """
        errors: list[FieldError] = []
        name = ""
        try:
            name = checked_host(host)
        except InvalidInput as error:
            errors += error.errors
        settings = self._checked(name, settings, settings, errors)
        if errors:
            raise InvalidInput(errors)
        await self._noticed()
        found = self._index.named(name)
        if found is not None:
            return DomainTaken(found)
        removed = next((one for one in self._index.known() if one.removed and one.host == name), None)
        if removed is not None and removed.case_sensitive != case_sensitive:
            message = f"is {str(removed.case_sensitive).lower()} for this host, which was served before"
            raise InvalidInput([FieldError("case_sensitive", "case_sensitive_fixed", message)])
        if sum(1 for _ in self._index) >= MAX_DOMAINS:
            raise InvalidInput([FieldError("host", "domains_too_many", f"the most is {MAX_DOMAINS}")])
        # Visitors would be sent in a circle.
        leading = await self._one(LinkQuery(host=name)) or await self._one(LinkQuery(host=f"{name}."))
        if leading is not None:
            return DomainInUse(leading)
        other = self._index.with_page_at(name)
        if other is not None:
            message = f"is where a page of {other.host} is"
            raise InvalidInput([FieldError("host", "domain_is_page", message)])
        domain = await self._store.add_domain(
            name, settings, case_sensitive=case_sensitive, now=self._clock()
        )
        await self._noticed()
        return DomainTaken(await self.named(name)) if domain is None else domain

    async def change(self, host: str, patch: Mapping[str, Any]) -> Domain | None:
        """
        Replace the settings that *patch* names; None if there is no such domain.

        Raises:
            InvalidInput: a rule is broken.
            Unavailable: it may or may not have been changed.
        """
        for _ in range(_EDIT_TRIES):
            await self._noticed()
            current = await self.find(host)
            if current is None:
                return None
            errors: list[FieldError] = []
            wanted = replace(current.settings, **patch)
            settings = self._checked(current.host, wanted, current.settings, errors)
            if errors:
                raise InvalidInput(errors)
            changed = await self._store.change_domain(
                current.domain_id, settings, expected_version=current.version, now=self._clock()
            )
            if changed is not None:
                await self._noticed()
                return replace(changed, host=current.host)
        raise Contended("store", f"{_EDIT_TRIES} edits of {host} lost the race to others")

    async def remove(self, host: str) -> Domain | DomainInUse | None:
        """
        Serve *host* no more; None if there is no such domain.

        Raises:
            InvalidInput: it is the default domain.
            Unavailable: it may or may not have been removed.
        """
        await self._noticed()
        domain = await self.find(host)
        if domain is None:
            return None
        if domain.is_default:
            raise InvalidInput([FieldError("host", "domain_default", "is that of the base URL")])
        left = await self._one(LinkQuery(domain=domain.domain_id))
        if left is not None:
            return DomainInUse(left)
        if not await self._store.remove_domain(domain.domain_id, now=self._clock()):
            return None
        await self._noticed()
        # Until every process knows, one may have made a link.
        await self._sleep(KNOWN_AFTER_S)
        left = await self._one(LinkQuery(domain=domain.domain_id))
        if left is None:
            return domain
        await self._store.add_domain(
            domain.host, domain.settings, case_sensitive=domain.case_sensitive, now=self._clock()
        )
        await self._noticed()
        return DomainInUse(left)

    def _checked(
        self, host: str, wanted: DomainSettings, present: DomainSettings, errors: list[FieldError]
    ) -> DomainSettings:
        """Return *wanted* in canonical form: what stays as it is obeys the rules, as for links."""
        changed = {name: getattr(wanted, name) for name in PAGES}
        if wanted is not present:
            changed = {name: url for name, url in changed.items() if url != getattr(present, name)}
        try:
            check_slug_rules(wanted)
            pages = checked_pages(changed, host=host, own_hosts=self._own_hosts, policy=self._policy)
        except InvalidInput as error:
            errors += error.errors
            return wanted
        return replace(wanted, **pages)  # type: ignore[arg-type]

    async def _one(self, query: LinkQuery) -> Slug | None:
        page = await self._store.find(query, after=None, limit=1, now=self._clock())
        return page.links[0].slug if page.links else None


class NoAnswers:
    """The answers of a process that serves nothing."""

    def held(self) -> Sequence[Resolution]:
        """None are held."""
        return ()

    def without_target(self) -> Sequence[Slug]:
        """None are held."""
        return ()

    def render_again(self, slugs: Collection[Slug]) -> None:
        """Nothing is rendered."""


class DomainWatch(Polled[Domain]):
    """
    Keeps *index* as the store has it, and the answers of *l1* as *index* has it.

    Belongs to one event loop.

    Args:
        copy: what to start from while the store is away, and where each change is kept.
        changed: is called after each change of *index*, before the answers are rendered.
    """

    def __init__(
        self,
        store: DomainStore,
        index: DomainIndex,
        l1: Answers,
        *,
        copy: LocalCopy[Domain] | None = None,
        changed: Callable[[DomainIndex], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._index = index
        self._l1 = l1
        super().__init__(copy)
        self._changed = changed
        self._version = -1
        # The store may have another history than what was read.
        self._reads_anew = True
        self._lock = asyncio.Lock()

    def begin_epoch(self, epoch: int) -> None:
        """The store may have another history than what was read: read anew."""
        self._reads_anew = True

    def pages_changed(self) -> None:
        """Send visitors to the pages of domains as what decides over them says now."""
        self._changed(self._index)
        self._l1.render_again(self._l1.without_target())

    async def first_look(self) -> None:
        """Read all domains; without an answer in time, those of the copy: no start waits longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.look()
        if self._reads_anew:
            kept = await self._kept()
            self._index.replace(kept or ())
            log.warning(
                "the store does not answer: %s",
                "only the default domain is served until it does"
                if kept is None
                else f"{len(kept)} domains are from a copy",
            )
        self._changed(self._index)

    async def look(self) -> None:
        """Bring what was committed before the call to this process. Without an answer nothing changes."""
        async with self._lock:
            with suppress(Unavailable):
                version = await self._store.domains_version()
                if self._reads_anew or version != self._version:
                    await self._read(version)

    def known(self) -> Sequence[Domain]:
        """Return all domains, removed ones included."""
        return list(self._index.known())

    async def _read(self, version: int) -> None:
        # Cleared before: an epoch that begins meanwhile sets it again.
        self._reads_anew = False
        try:
            domains = await self._store.domains()
        except BaseException:
            self._reads_anew = True
            raise
        before = {one.domain_id: one for one in self._index.known()}
        self._index.replace(domains)
        # A change that was committed between the two reads has a later number, and is read again.
        self._version = version
        self._is_kept = False
        self._changed(self._index)
        hidden = self._index.hidden
        if hidden is not None:
            log.warning(
                "the domain %s has the host of the base URL: its links are served nowhere", hidden.host
            )
        touched = {one.domain_id for one in self._index.known() if before.get(one.domain_id) != one}
        if touched:
            await self._render(touched)

    async def _render(self, touched: Collection[int]) -> None:
        """Render the answers anew that the domains *touched* give."""
        held, done = self._l1.held(), 0
        try:
            while done < len(held):
                self._render_some(held[done : done + SLICE], touched)
                done += SLICE
                await asyncio.sleep(0)
        finally:
            # Cancelled: the change is not read again, so the rest follows now.
            self._render_some(held[done:], touched)

    def _render_some(self, held: Sequence[Resolution], touched: Collection[int]) -> None:
        self._l1.render_again([one.slug for one in held if split_key(one.slug)[0] in touched])
