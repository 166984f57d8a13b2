"""What tests of the services are made of: a store that can be held back, a bus that takes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter

from app.adapters.bus_inprocess import InProcessBus
from app.domain.errors import Unavailable
from app.domain.link import LinkFields, Slug
from app.resilience.admission import Admission
from app.service.admission import Entrance
from app.service.hot_links import HotLinks
from app.service.redirects import Redirects

FIELDS = LinkFields(long_url="https://example.com/")
SLUG = Slug("abcdefg")


class CountingStore:
    """Lets a real store through, counts the calls, and can hold them back or be away."""

    def __init__(self, store):
        self._store = store
        self.calls = Counter()
        self.looked_up = []
        self.open = asyncio.Event()
        self.open.set()
        self.answering = asyncio.Event()
        self.answering.set()
        self.away = False

    def __getattr__(self, name):
        async def call(*args, **kwargs):
            self.calls[name] += 1
            if name == "resolve":
                self.looked_up.extend(args[0])
            await self.open.wait()
            if self.away:
                raise Unavailable("store", "away")
            answer = await getattr(self._store, name)(*args, **kwargs)
            await self.answering.wait()
            return answer

        return call


class SilentBus(InProcessBus):
    """A broker that takes nothing on."""

    async def publish(self, events):
        return [False] * len(events)


def resolver(store, cache, bus, monotonic, replica=None):
    hot = HotLinks(lambda resolution, _: resolution, monotonic=monotonic, wall=lambda: 0.0)
    entrance = Entrance(Admission(), monotonic=monotonic)
    return hot, Redirects(hot, cache, store, bus, entrance, replica=replica)
