"""`hopgate check`: compares every cached entry with the store, and repairs what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from app.bootstrap import open_cache, open_store
from app.domain.errors import HopgateError
from app.domain.link import Slug
from app.resilience.deadline import CACHE_FILL_S
from app.service.consistency import Inconsistency, compare
from app.settings import Settings

# As long as a change may take to arrive while all is well; what is wrong for longer is wrong.
_SETTLE_S = 2.0
_TOUCH = 500


class NoSharedCache(HopgateError):
    """There is no cache outside of the gateway."""


async def check(settings: Settings, *, repair: bool, say: Callable[[str], None]) -> int:
    """
    Print what is wrong, and repair it if asked to; return how many entries were wrong.

    Raises:
        Unavailable: store or cache went away.
    """
    if settings.embedded:
        raise NoSharedCache(
            "an embedded gateway keeps its cache in its own process: there is nothing to compare"
        )
    async with (
        open_store(settings) as store,
        open_cache(settings, timeout_s=CACHE_FILL_S) as cache,
    ):
        suspects: list[Slug] = []
        columns = (TextColumn("checking"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
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
        for one in wrong:
            say(f"{one.slug}  {one.fault}: cached version {one.cached}, stored version {one.stored}")
        if repair:
            for start in range(0, len(wrong), _TOUCH):
                slugs = [one.slug for one in wrong[start : start + _TOUCH]]
                # The new version beats all that is cached but what is ahead, so that goes first.
                await cache.forget(slugs)
                await store.touch(slugs)
        repaired = ", all of them repaired" if repair and wrong else ""
        say(f"{seen:,} cached entries, {len(wrong):,} wrong{repaired}")
        return len(wrong)
