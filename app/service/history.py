"""The history of links: what each change replaced, and the undo of the last one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.concurrency.actors import reach
from app.domain import rules
from app.domain.errors import Contended, FieldError, InvalidInput
from app.domain.link import Link, Slug
from app.domain.link_key import name_of, split_key
from app.domain.policy import WEB_ONLY, TargetPolicy
from app.ports import (
    AddressStore,
    AddressTaken,
    Changed,
    ExternalIdTaken,
    HistoryStore,
    LinkHistory,
    LinkState,
    PastChange,
    Replayed,
    RequestMismatch,
    VersionMismatch,
)
from app.service.links import Deliver, IsAlias

# An undo without an expected version gives up after losing this many races.
_TRIES = 8


@dataclass(frozen=True, slots=True)
class NothingToUndo:
    """The link was never changed, or its last change is older than what can be undone."""

    link: Link


class UndoStore(HistoryStore, AddressStore, Protocol):
    """The part of a store that an undo needs."""


class History:
    """
    The history of links, for API and command line. A link beyond the reach of the caller is none.

    Args:
        undo: how old the change may be that is undone; the rest as in `app.service.links.Links`.
    """

    def __init__(
        self,
        store: UndoStore,
        deliver: Deliver,
        *,
        clock: Callable[[], datetime],
        own_hosts: Collection[str],
        undo: timedelta,
        policy: TargetPolicy = WEB_ONLY,
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._clock = clock
        self._own_hosts = own_hosts
        self._undo = undo
        self._policy = policy

    async def page(self, name: Slug, *, before: int | None, limit: int) -> LinkHistory | None:
        """
        Return the link, removed or not, and one page of its changes, newest first.

        Raises:
            Unavailable: the store did not answer.
        """
        found = await self._store.history(name, before=before, limit=limit)
        return found if found is not None and reach().holds(found.link) else None

    async def get(self, name: Slug) -> Link | None:
        """
        Return the link, removed or not.

        Raises:
            Unavailable: the store did not answer.
        """
        found = await self.page(name, before=None, limit=1)
        return None if found is None else found.link

    async def undo(
        self, name: Slug, *, expected_version: int | None = None
    ) -> Link | VersionMismatch | ExternalIdTaken | NothingToUndo | IsAlias | AddressTaken | None:
        """
        Bring the link to the state that its last change replaced; this is a change as well.

        So the undo of an undo restores what the first one replaced. A removed link is back under its slug, or
        is removed again: see `Link.removed_at`.

        Args:
            expected_version: undo the change that made this version; None undoes whichever was last.

        Raises:
            InvalidInput: a field that would change breaks a rule of today.
            Unavailable: it may or may not have been undone.
        """
        for _ in range(_TRIES):
            found = await self.page(name, before=None, limit=1)
            if found is None:
                return None
            link, now = found.link, self._clock()
            if link.slug != name:
                return IsAlias(link)
            if expected_version is not None and link.version != expected_version:
                return VersionMismatch(link)
            last = found.changes[0] if found.changes else None
            if last is None or last.before == last.after or now - last.at > self._undo:
                return NothingToUndo(link)
            outcome: (
                Changed | Replayed | RequestMismatch | VersionMismatch | ExternalIdTaken | AddressTaken | None
            )
            if (last.before.slug, last.before.aliases) != (last.after.slug, last.after.aliases):
                # A change of the slugs is no change of anything else.
                _check_reach(last.before, link)
                outcome = await self._store.readdress(
                    name,
                    to=last.before.slug or name,
                    aliases=last.before.aliases or (),
                    expected_version=link.version,
                    now=now,
                    is_undo=True,
                )
            else:
                outcome = await self._store.restore(
                    name, self._checked(last), expected_version=link.version, now=now
                )
            if isinstance(outcome, Changed):
                await self._deliver([outcome])
                return outcome.link
            if isinstance(outcome, Replayed | RequestMismatch):  # no request was named
                raise Contended("store", "an undo was answered by another request")
            if not isinstance(outcome, VersionMismatch) or expected_version is not None:
                return outcome
        raise Contended("store", f"{_TRIES} undos of {name_of(name)} lost the race to others")

    def _checked(self, last: PastChange) -> LinkState:
        """Return the state before *last*; raises InvalidInput."""
        before, after = last.before, last.after
        fields = rules.edited(after.fields, before.fields, own_hosts=self._own_hosts, policy=self._policy)
        domains = self._policy.domains
        # While the link was removed, its target may have become a domain: no link leads to one.
        if after.removed and domains is not None:
            for name in ("long_url", "expired_url"):
                if domains.has_target(getattr(fields, name) or ""):
                    raise InvalidInput([FieldError(name, "url_own_host", "points back to this service")])
        return LinkState(fields, before.removed)


def _check_reach(wanted: LinkState, link: Link) -> None:
    """Check that the caller may use the domains of the slugs that *link* would get; raises InvalidInput."""
    slugs = {*filter(None, [wanted.slug]), *(wanted.aliases or ())} - {link.slug, *link.aliases}
    if not all(reach().has_domain(split_key(slug)[0]) for slug in slugs):
        raise InvalidInput([FieldError("domain", "domain_forbidden", "is none that this key may use")])
