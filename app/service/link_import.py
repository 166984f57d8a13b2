"""
Imports: the rows of a file become links, in batches, each a transaction.

The store is asked about every row, by its slug or, without one, by the key of its record. So an
import may be interrupted at any moment and run again, and a file that grew adds only what is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Protocol

from app.domain import domains, rules
from app.domain.errors import Contended, FieldError, InvalidInput
from app.domain.link import Link, LinkFields, Slug
from app.domain.policy import WEB_ONLY, TargetPolicy
from app.interchange.records import Accepted, LinkRecord, RecordKeys, Refused
from app.interchange.report import Outcome
from app.ports import Changed, ExternalIdTaken, ImportedLink, VersionMismatch
from app.service.links import Deliver, leave_to_relay

BATCH = 500
# Rounds in which others were faster with every row that was left.
_TRIES = 5


class Target(Protocol):
    """The part of a `Store` that an import uses; the contracts stand there."""

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Link]:
        """As `LinkStore.get_many`."""
        ...

    async def find_external(self, external_ids: Sequence[str]) -> Mapping[str, Link]:
        """As `LinkStore.find_external`."""
        ...

    async def find_imported(self, keys: Sequence[str]) -> Mapping[str, Slug]:
        """As `ImportStore.find_imported`."""
        ...

    async def add_imported(self, links: Sequence[ImportedLink], *, now: datetime) -> Sequence[Link | None]:
        """As `ImportStore.add_imported`."""
        ...

    async def update(
        self, slug: Slug, fields: LinkFields, *, expected_version: int, now: datetime
    ) -> Changed | VersionMismatch | ExternalIdTaken | None:
        """As `LinkStore.update`."""
        ...


@dataclass(frozen=True, slots=True)
class Done:
    """An accepted row, what became of it, and the link that it is now."""

    row: Accepted
    outcome: Outcome
    link: Link


@dataclass(frozen=True, slots=True)
class _Asked:
    """An accepted row that is not settled yet; `key` names its record if that has no slug."""

    position: int
    row: Accepted
    key: str | None

    @property
    def record(self) -> LinkRecord:
        return self.row.record

    def refused(self, code: str, message: str, *, field: str = "slug") -> Refused:
        error = FieldError(field, code, message)
        return Refused(self.row.line, self.row.last_line, (error,), self.record.fields.long_url)


class LinkImport:
    """
    One import.

    Args:
        clock: the present time, timezone-aware UTC.
        choice: picks one character of a string, unpredictably.
        own_hosts: see `app.domain.target.canonical`; so is *policy*.
        updates: change links that are there already to what the file says of them, but for their owners.
        deliver: called with each change of such a link after its commit.
        owners: the ids of the keys that may own links; others in the file play no part.
    """

    def __init__(
        self,
        target: Target,
        *,
        clock: Callable[[], datetime],
        choice: Callable[[str], str],
        own_hosts: Collection[str],
        policy: TargetPolicy = WEB_ONLY,
        updates: bool,
        deliver: Deliver = leave_to_relay,
        owners: Collection[str] = (),
    ) -> None:
        self._target = target
        self._clock = clock
        self._choice = choice
        self._own_hosts = own_hosts
        self._policy = policy
        self._updates = updates
        self._deliver = deliver
        self._owners = owners
        self._keys = RecordKeys()

    async def run(self, rows: Iterable[Accepted | Refused]) -> AsyncGenerator[Sequence[Done | Refused], None]:
        """
        Store each accepted row of *rows*; yield what became of each row, batch by batch, in order.

        Raises:
            Unavailable: run it again; what is stored is recognised.
        """
        iterator = iter(rows)
        # Reading and judging rows takes the processor: a gateway serves others meanwhile.
        while batch := await asyncio.to_thread(lambda: list(islice(iterator, BATCH))):
            yield await self._store(batch)

    async def _store(self, batch: Sequence[Accepted | Refused]) -> Sequence[Done | Refused]:
        settled: dict[int, Done | Refused] = {}
        pending: list[_Asked] = []
        for position, row in enumerate(batch):
            if isinstance(row, Refused):
                settled[position] = row
            else:
                key = self._keys.key(row.record) if row.record.slug is None else None
                pending.append(_Asked(position, row, key))
        tries = 0
        while pending:
            done = await self._round(pending)
            settled |= done
            pending = [asked for asked in pending if asked.position not in done]
            tries = 0 if done else tries + 1
            if tries == _TRIES:
                raise Contended("store", f"others changed the same links {_TRIES} times in a row")
        return [settled[position] for position in range(len(batch))]

    async def _round(self, pending: Sequence[_Asked]) -> dict[int, Done | Refused]:
        """
        Settle what can be: of several rows with one slug the first, as the next meets its link.

        A row is left for another round, too, if another process was faster.
        """
        known = await self._target.find_imported([asked.key for asked in pending if asked.key])
        wanted = [asked.record.slug for asked in pending if asked.record.slug is not None]
        links = dict(await self._target.get_many([*dict.fromkeys(wanted), *known.values()]))
        aliases = [alias for asked in pending for alias in asked.record.aliases]
        others = await self._target.get_many(list(dict.fromkeys(aliases))) if aliases else {}
        named = [asked.record.fields.external_id for asked in pending]
        held = await self._target.find_external([one for one in named if one is not None])
        settled: dict[int, Done | Refused] = {}
        new: dict[Slug, _Asked] = {}
        for asked in pending:
            name = asked.record.slug or (known.get(asked.key) if asked.key else None)
            link = links.get(name) if name is not None else None
            holder = held.get(asked.record.fields.external_id or "")
            if holder is not None and (link is None or (holder.slug != link.slug and not asked.key)):
                settled[asked.position] = _external_id_taken(asked)
                continue
            if link is None and any(alias in others for alias in asked.record.aliases):
                settled[asked.position] = asked.refused(
                    "alias_taken", "name a slug that is taken", field="aliases"
                )
                continue
            if link is None:
                new.setdefault(name or domains.generate(asked.record.domain, self._choice), asked)
                continue
            # Whatever has become of it since: this record is that link.
            outcome = Done(asked.row, Outcome.SAME, link) if asked.key else await self._meet(asked, link)
            if outcome is not None:
                settled[asked.position] = outcome
            if isinstance(outcome, Done):
                links[link.slug] = outcome.link
        for asked, stored in zip(new.values(), await self._add(new), strict=True):
            if stored is not None:
                settled[asked.position] = Done(asked.row, Outcome.IMPORTED, stored)
        return settled

    async def _add(self, new: Mapping[Slug, _Asked]) -> Sequence[Link | None]:
        now = self._clock()
        return await self._target.add_imported(
            [
                ImportedLink(
                    slug=name,
                    fields=_completed(asked.record),
                    created_at=asked.record.created_at or now,
                    visits=asked.record.visits,
                    spent_visits=asked.record.spent_visits,
                    aliases=asked.record.aliases,
                    key=asked.key,
                    owner=asked.record.owner if asked.record.owner in self._owners else None,
                )
                for name, asked in new.items()
            ],
            now=now,
        )

    async def _meet(  # noqa: PLR0911 - each of its ends is another outcome
        self, asked: _Asked, link: Link
    ) -> Done | Refused | None:
        """Return what becomes of a row whose slug is that of *link*; None if the link changes meanwhile."""
        if link.removed_at is not None:
            message = "belonged to a link that was removed, and slugs are not given out again"
            return asked.refused("slug_removed", message)
        if link.slug != asked.record.slug:
            return asked.refused("slug_taken", "is an alias of another link")
        if not set(asked.record.aliases) <= set(link.aliases):
            message = "are not those of the link: hopgate links alias adds them"
            return asked.refused("aliases_differ", message, field="aliases")
        wanted = asked.record.fields
        other = {
            name: value
            for name in sorted(asked.record.named)
            if (value := getattr(wanted, name)) != getattr(link.fields, name)
        }
        if not other:
            return Done(asked.row, Outcome.SAME, link)
        if not self._updates:
            if "long_url" in other:
                return asked.refused("slug_taken", "is taken by a link with another target")
            return asked.refused("slug_differs", "is taken by a link with the same target and other fields")
        try:
            changed = replace(link.fields, **other)
            fields = rules.edited(link.fields, changed, own_hosts=self._own_hosts, policy=self._policy)
        except InvalidInput as error:
            return Refused(asked.row.line, asked.row.last_line, error.errors, wanted.long_url)
        outcome = await self._target.update(
            link.slug, fields, expected_version=link.version, now=self._clock()
        )
        if isinstance(outcome, ExternalIdTaken):
            return _external_id_taken(asked)
        if not isinstance(outcome, Changed):
            return None
        await self._deliver([outcome])
        return Done(asked.row, Outcome.UPDATED, outcome.link)


def _completed(record: LinkRecord) -> LinkFields:
    """Return the fields of *record* with what its domain says of new links, where the file says nothing."""
    if "redirect_code" in record.named:
        return record.fields
    return replace(record.fields, redirect_code=record.domain.settings.redirect_code)


def _external_id_taken(asked: _Asked) -> Refused:
    return asked.refused("external_id_taken", "is that of another link", field="external_id")
