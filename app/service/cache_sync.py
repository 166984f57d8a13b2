"""Event → cache: re-read the truth, write it to the shared cache, tell every gateway."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.events import Event, LinkChanged, LinksMissed
from app.domain.link import Resolution, Slug
from app.ports import EventBus, LinkCache, LinkStore

_CHUNK = 1000


class CacheSync:
    """
    Makes the cache agree with the store, for the links that events name.

    Events name links and never carry them, so the window between reading and writing is
    milliseconds however old the event is; the cache's compare-and-set does the rest. Order
    and repetition do not matter.
    """

    def __init__(self, store: LinkStore, cache: LinkCache, bus: EventBus) -> None:
        self._store = store
        self._cache = cache
        self._bus = bus

    async def apply(self, events: Sequence[Event]) -> None:
        """
        Bring the cache up to date with everything that *events* name.

        Raises:
            Unavailable: nothing is lost by doing it again.
        """
        changes = [event for event in events if isinstance(event, LinkChanged)]
        slugs: dict[Slug, None] = {change.slug: None for change in changes}
        for event in events:
            if isinstance(event, LinksMissed):
                slugs.update(dict.fromkeys(event.slugs))
        await self.refresh(list(slugs))
        if changes:
            await self._bus.announce(changes)

    async def refresh(self, slugs: Sequence[Slug]) -> None:
        """
        Write the present state of *slugs* to the cache; what the store lacks is written as absent.

        Raises:
            Unavailable: some may have been written.
        """
        for start in range(0, len(slugs), _CHUNK):
            await self.write(await self.present(slugs[start : start + _CHUNK]))

    async def present(self, slugs: Sequence[Slug]) -> Sequence[Resolution]:
        """Return the state of *slugs* as the store has it now. Raises Unavailable."""
        links = await self._store.get_many(slugs)
        return [Resolution.of(links[slug]) if slug in links else Resolution.absent(slug) for slug in slugs]

    async def write(self, resolutions: Sequence[Resolution]) -> None:
        """Write them to the cache, where it holds nothing newer. Raises Unavailable."""
        await self._cache.put(resolutions)
