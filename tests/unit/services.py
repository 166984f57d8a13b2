"""What tests of the services are made of: a store that can be held back, a bus that takes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter

from app.adapters.memory.bus import InProcessBus
from app.domain.errors import Unavailable
from app.domain.link import LinkFields, Slug
from app.resilience.admission import AdmissionController
from app.service.l1_cache import L1Cache
from app.service.resolver import Resolver

FIELDS = LinkFields(long_url="https://example.com/")
SLUG = Slug("abcdefg")


class CountingStore:
    """Lets a real store through, counts the calls, and can hold them back or be away."""

    def __init__(self, store):
        self._store = store
        self.calls: Counter[str] = Counter()
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
    l1 = L1Cache(lambda resolution, _: resolution, monotonic=monotonic, wall=lambda: 0.0)
    admission = AdmissionController(monotonic=monotonic)
    return l1, Resolver(l1, cache, store, bus, admission, replica=replica)
