"""`hopgate check`: compares every cached entry with the store, and repairs wrong ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from app.bootstrap import open_cache, open_store
from app.domain.domains import DomainIndex
from app.domain.errors import HopgateError
from app.domain.link import Slug
from app.service.consistency import Inconsistency, compare
from app.settings import Settings

# The longest that a change takes to reach the cache without faults: wrong for longer is wrong.
_SETTLE_S = 2.0
_TOUCH = 500


class NoSharedCache(HopgateError):
    """There is no cache outside of the gateway."""


@dataclass(frozen=True, slots=True)
class Checked:
    """How many entries were compared, and those that were wrong."""

    checked: int
    wrong: Sequence[Inconsistency]
    repaired: bool


async def check(settings: Settings, *, repair: bool) -> Checked:
    """
    Compare every cached entry, and *repair* the wrong ones if asked to.

    Raises:
        NoSharedCache: the settings are those of an embedded gateway.
        Unavailable: store or cache did not answer.
    """
    if settings.embedded:
        raise NoSharedCache(
            "an embedded gateway keeps its cache in its own process: there is nothing to compare"
        )
    async with (
        open_store(settings) as store,
        open_cache(settings) as cache,
    ):
        suspects: list[Slug] = []
        columns = (TextColumn("checking"), BarColumn(), MofNCompleteColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("check", total=None)
            seen, cursor = 0, 0
            while True:
                page = await cache.scan(cursor)
                suspects += [one.slug for one in await compare(store, cache, page.slugs)]
                seen += len(page.slugs)
                progress.update(bar, completed=seen, total=max(seen, page.total))
                cursor = page.next_cursor
                if cursor == 0:
                    break
        wrong: Sequence[Inconsistency] = []
        if suspects:
            await asyncio.sleep(_SETTLE_S)
            wrong = await compare(store, cache, list(dict.fromkeys(suspects)))
        if repair:
            for start in range(0, len(wrong), _TOUCH):
                slugs = [one.slug for one in wrong[start : start + _TOUCH]]
                # An entry that is ahead would beat the new version, so every wrong entry is deleted first.
                await cache.forget(slugs)
                await store.touch(slugs)
        domains = DomainIndex(settings.public_url, await store.domains())
        shown = [replace(one, slug=Slug(domains.shown(one.slug))) for one in wrong]
        return Checked(seen, shown, repaired=repair and bool(wrong))
