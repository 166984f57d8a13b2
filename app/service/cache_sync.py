"""Event → cache: re-read the store, write the shared cache, announce the change to every gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from app.domain.errors import UnexpectedEvent
from app.domain.events import ClicksCounted, Event, LinkChanged, LinksMissed, VisitsDescribed, WorkQueue
from app.domain.link import Resolution, Slug
from app.ports import EventBus, LinkCache, LinkStore

_CHUNK = 1000


class CacheSync:
    """
    Brings the cache up to date with the store, for the links that events name.

    Events name links and never carry them, so the time between read and write is milliseconds
    however old the event is; the cache's compare-and-set covers that window. Events may come in
    any order and more than once.
    """

    def __init__(self, store: LinkStore, cache: LinkCache, bus: EventBus) -> None:
        self._store = store
        self._cache = cache
        self._bus = bus

    async def apply(self, events: Sequence[Event]) -> int:
        """
        Refresh every link that *events* name, then announce the changes.

        Returns how many of *events* are stale: changes that the store has had later ones since, or has lost.

        Raises:
            Unavailable: safe to repeat.
            UnexpectedEvent: one of *events* is not a cache event.
        """
        changes: list[LinkChanged] = []
        slugs: dict[Slug, None] = {}
        for event in events:
            match event:
                case LinkChanged():
                    changes.append(event)
                    slugs[event.slug] = None
                case LinksMissed():
                    slugs.update(dict.fromkeys(event.slugs))
                case ClicksCounted() | VisitsDescribed():
                    raise UnexpectedEvent(WorkQueue.CACHE, event)
                case _:
                    assert_never(event)
        versions = await self.refresh(list(slugs))
        # After the store went back, an event may name a version that it does not have (any more):
        # announced, it would keep gateways from the caches until the store reaches it.
        known = [replace(c, version=min(c.version, versions[c.slug])) for c in changes if versions[c.slug]]
        if known:
            await self._bus.announce(known)
        return sum(versions[change.slug] != change.version for change in changes)

    async def refresh(self, slugs: Sequence[Slug]) -> Mapping[Slug, int]:
        """
        Write the present state of *slugs* to the cache, except for unknown ones.

        Only L1 caches hold absent slugs, for two seconds: a new slug shows after that without any event.

        Returns the version of each; 0 if it is unknown.

        Raises:
            Unavailable: some may have been written.
        """
        versions: dict[Slug, int] = {}
        for start in range(0, len(slugs), _CHUNK):
            present = await self.present(slugs[start : start + _CHUNK])
            await self.write([resolution for resolution in present if resolution.version > 0])
            versions.update((resolution.slug, resolution.version) for resolution in present)
        return versions

    async def present(self, slugs: Sequence[Slug]) -> Sequence[Resolution]:
        """Return the state of *slugs* in the store, aligned. Raises Unavailable."""
        links = await self._store.get_many(slugs)
        return [
            Resolution.of(links[slug], slug) if slug in links else Resolution.absent(slug) for slug in slugs
        ]

    async def write(self, resolutions: Sequence[Resolution]) -> None:
        """Write *resolutions* to the cache unless it holds newer versions. Raises Unavailable."""
        await self._cache.put(resolutions)
