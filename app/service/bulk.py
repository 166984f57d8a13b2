"""Bulk operations on links: thousands of items, one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from app.concurrency.actors import actor, owner_of, reach
from app.domain import rules, slug
from app.domain.policy import WEB_ONLY, TargetPolicy
from app.ports import Answered, Batch, BatchStore, Changed, Found, IdempotentRequest, RequestMismatch
from app.service.batch_plans import (
    Creates,
    EditItem,
    Edits,
    Fault,
    ItemOutcome,
    NewItem,
    Planned,
    RemovalItem,
    Removals,
    check_reusable,
    succeeded,
)
from app.service.links import Appear, Deliver, checked_draft

# Changes that are handed over at once: between two of them the event loop does other work.
_DELIVERED = 500

# Makes the answer that is kept with an idempotent request.
Render = Callable[[Sequence[ItemOutcome]], bytes]
# Called in the thread that decides, with what is about to be written: what it begins may be in vain.
Begin = Callable[[Sequence[ItemOutcome]], object]


@dataclass(frozen=True, slots=True)
class BatchDone:
    """What became of each item, in order. `stored`: False if an atomic batch was given up."""

    outcomes: Sequence[ItemOutcome]
    stored: bool = True


BatchOutcome = BatchDone | Answered | RequestMismatch


class BulkLinks:
    """
    Bulk operations on links.

    A link beyond the reach of the caller is none, as in `Links`. An item that fails does not undo the
    others, unless the batch is atomic. Raises (every operation): Unavailable, if it may or may not have been
    stored; repeat it with the same *request*.

    Args:
        appear: called with new links under random slugs, after their commit; the rest as in `Links`.
    """

    def __init__(
        self,
        store: BatchStore,
        deliver: Deliver,
        appear: Appear,
        *,
        clock: Callable[[], datetime],
        choice: Callable[[str], str],
        own_hosts: Collection[str],
        policy: TargetPolicy = WEB_ONLY,
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._appear = appear
        self._clock = clock
        self._choice = choice
        self._checked_draft = partial(checked_draft, own_hosts=own_hosts, policy=policy)
        self._edited = partial(rules.edited, own_hosts=own_hosts, policy=policy)

    def checked(self, item: NewItem, custom_slug: str | None, lengths: slug.Lengths) -> NewItem:
        """
        Return *item* in canonical form, under *custom_slug* if there is one. Any thread may call it.

        Raises:
            InvalidInput: with every rule that it breaks.
        """
        now, fields, domain = self._clock(), item.fields, item.domain
        if item.expires_in is not None:
            fields = replace(fields, expires_at=now + item.expires_in)
        fields, wanted = self._checked_draft(fields, custom_slug, lengths, domain=domain, now=now)
        if fields is not item.fields or wanted is not item.slug:
            # Written out: `replace` would take as long as the rest.
            item = NewItem(
                fields=fields,
                slug=wanted,
                named=item.named,
                domain=domain,
                names_domain=item.names_domain,
                reuse=item.reuse,
                expires_in=item.expires_in,
            )
        if item.reuse:
            check_reusable(item)
        return item

    async def create(
        self,
        items: Sequence[NewItem | Fault],
        *,
        upserts: bool = False,
        atomic: bool = False,
        request: IdempotentRequest | None = None,
        render: Render,
        begin: Begin | None = None,
    ) -> BatchOutcome:
        """Store *items*, which are `checked`; *upserts* change the links that have their external ids."""
        plan = Creates(
            items,
            upserts=upserts,
            choice=self._choice,
            edited=self._edited,
            reach=reach(),
            owner=owner_of(actor()),
        )
        return await self._run(plan, atomic=atomic, request=request, render=render, begin=begin)

    async def change(
        self,
        items: Sequence[EditItem | Fault],
        *,
        atomic: bool = False,
        request: IdempotentRequest | None = None,
        render: Render,
        begin: Begin | None = None,
    ) -> BatchOutcome:
        """Change links."""
        plan = Edits(items, edited=self._edited, reach=reach())
        return await self._run(plan, atomic=atomic, request=request, render=render, begin=begin)

    async def remove(
        self,
        items: Sequence[RemovalItem | Fault],
        *,
        atomic: bool = False,
        request: IdempotentRequest | None = None,
        render: Render,
        begin: Begin | None = None,
    ) -> BatchOutcome:
        """Remove links."""
        plan = Removals(items, reach=reach())
        return await self._run(plan, atomic=atomic, request=request, render=render, begin=begin)

    async def _run(
        self,
        plan: Creates | Edits | Removals,
        *,
        atomic: bool,
        request: IdempotentRequest | None,
        render: Render,
        begin: Begin | None,
    ) -> BatchOutcome:
        decided: list[Planned] = []

        def decide(found: Found) -> Batch | None:
            planned = plan.plan(found, self._clock())
            decided[:] = [planned]
            if atomic and not all(map(succeeded, planned.outcomes)):
                return None
            if begin is not None:
                begin(planned.outcomes)
            return planned.links.batch(render(planned.outcomes) if request is not None else b"")

        outcome = await self._store.write_batch(plan.wanted(), decide, now=self._clock(), request=request)
        if isinstance(outcome, Answered | RequestMismatch):
            return outcome
        [planned] = decided
        await self._deliver_all(outcome, planned.links.drawn)
        return BatchDone(planned.outcomes, stored=not atomic or all(map(succeeded, planned.outcomes)))

    async def _deliver_all(self, changes: Sequence[Changed], drawn: Collection[str]) -> None:
        self._appear([change.link for change in changes if change.link.slug in drawn])
        changes = [change for change in changes if change.link.slug not in drawn]
        for start in range(0, len(changes), _DELIVERED):
            await self._deliver(changes[start : start + _DELIVERED])
            await asyncio.sleep(0)
