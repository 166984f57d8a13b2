"""
Describes visits: what their requests looked like, off the redirect path.

A redirect only notes the headers of its request, and visits that look alike are counted together. About every
second the click publisher takes what was noted; here it becomes counts by dimension, and hashes of visitors.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime

from app.domain.errors import Unavailable
from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import (
    DIRECT,
    MAX_VALUE_LENGTH,
    UNKNOWN,
    Agent,
    Dimension,
    Kind,
    LinkVisits,
    Look,
    Place,
)
from app.ports import Agents, Places, VisitorKeyStore

# Links of one batch: their counts are larger than those of clicks.
MAX_DESCRIBED_SLUGS_A_MESSAGE = 500
_MAX_LOOKS = 20_000
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?![A-Za-z0-9])")
# A host, or the name of an app. What else stands there is no place to come from.
_REFERRER = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+\Z|\[[0-9a-f:.]+\]\Z|localhost\Z")
# A message names up to so many visitors of a link.
_MAX_VISITORS = 5000


class VisitNotes:
    """
    What visits looked like, until it is taken. Bounded by looks: `dropped` counts the visits beyond.

    For the requests that the application answers itself; a front notes those that it answers.
    """

    def __init__(self) -> None:
        self._counts: Counter[Look] = Counter()
        self.dropped = 0

    def note(self, look: Look) -> None:
        """Count one visit that looks like *look*. Does no I/O."""
        if look in self._counts or len(self._counts) < _MAX_LOOKS:
            self._counts[look] += 1
        else:
            self.dropped += 1

    def take(self) -> Sequence[tuple[Look, int]]:
        """Return the counts and reset them."""
        taken, self._counts = list(self._counts.items()), Counter()
        return taken


class VisitorKeys:
    """
    The key that visitors are hashed with: another one each day (UTC), the same in all processes.

    While the store is away, a process uses a key of its own: a visitor may count twice that day.

    Args:
        random: makes as many random bytes as it is asked for.
    """

    def __init__(self, store: VisitorKeyStore, *, random: Callable[[int], bytes]) -> None:
        self._store = store
        self._random = random
        self._day: date | None = None
        self._key = b""
        self._is_shared = False

    async def of(self, day: date) -> bytes:
        """Return the key of *day*."""
        if day != self._day:
            self._day, self._key, self._is_shared = day, self._random(32), False
        if not self._is_shared:
            try:
                self._key = await self._store.visitor_key(day, self._key)
                self._is_shared = True
            except Unavailable:
                pass
        return self._key


class VisitDescriber:
    """
    Makes `VisitsDescribed` of what was noted.

    Args:
        taken: returns what was noted since its last call.
        honours_objections: whether visits of those who object to tracking (`DNT`, `Sec-GPC`) are counted by
            `Dimension.KIND` alone.
        clock: the present time in UTC.
        new_id: makes 32 unique hexadecimal digits.
    """

    def __init__(
        self,
        taken: Callable[[], Iterable[tuple[Look, int]]],
        keys: VisitorKeys,
        agents: Agents,
        places: Places,
        *,
        honours_objections: bool,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._taken = taken
        self._keys = keys
        self._agents = agents
        self._places = places
        self._honours_objections = honours_objections
        self._clock = clock
        self._new_id = new_id
        self._looks: list[tuple[Look, int]] = []

    async def take(self) -> Sequence[VisitsDescribed]:
        """Return what was noted since the last call. A call that is cancelled loses nothing."""
        self._looks.extend(self._taken())
        if not self._looks:
            return ()
        now = self._clock()
        key = await self._keys.of(day_of(now))
        # Rules of user agents take their time: some hundred milliseconds, when they are compiled.
        found = await asyncio.to_thread(self._described, list(self._looks), key)
        self._looks.clear()
        hour = now.replace(minute=0, second=0, microsecond=0)
        most = MAX_DESCRIBED_SLUGS_A_MESSAGE
        return [
            VisitsDescribed(self._new_id(), hour, dict(found[start : start + most]))
            for start in range(0, len(found), most)
        ]

    def _described(self, looks: Sequence[tuple[Look, int]], key: bytes) -> Sequence[tuple[Slug, LinkVisits]]:
        counts: defaultdict[Slug, defaultdict[Dimension, Counter[str]]] = defaultdict(
            lambda: defaultdict(Counter)
        )
        visitors: defaultdict[Slug, set[int]] = defaultdict(set)
        for look, visits in looks:
            by = counts[look.slug]
            agent = self._agents.agent(look.user_agent)
            kind = kind_of(look, agent)
            by[Dimension.KIND][kind] += visits
            if self._honours_objections and look.objects:
                continue
            for dimension, value in self._values(kind, look, agent):
                by[dimension][_cut(value)] += visits
            if kind is Kind.PERSON and len(visitors[look.slug]) < _MAX_VISITORS:
                visitors[look.slug].add(visitor(key, look))
        return [
            (slug, LinkVisits({name: dict(values) for name, values in by.items()}, tuple(visitors[slug])))
            for slug, by in counts.items()
        ]

    def _values(self, kind: Kind, look: Look, agent: Agent) -> Iterable[tuple[Dimension, str]]:
        if kind is not Kind.PERSON:
            if agent.bot is not None:
                yield Dimension.BOT, agent.bot
            return
        place: Place = self._places.place(look.client)
        yield Dimension.REFERRER, referrer(look.referrer)
        yield Dimension.LANGUAGE, language(look.language)
        yield Dimension.BROWSER, agent.browser
        yield Dimension.OS, agent.os
        yield Dimension.DEVICE, agent.device
        yield Dimension.COUNTRY, place.country
        yield Dimension.CITY, place.city


def kind_of(look: Look, agent: Agent) -> Kind:
    """Return who made the requests of *look*."""
    if look.is_ahead:
        return Kind.PREFETCH
    if agent.is_preview:
        return Kind.PREVIEW
    return Kind.PERSON if agent.bot is None else Kind.BOT


def visitor(key: bytes, look: Look) -> int:
    """Return the hash of 63 bits of whom *look* is of: its address and program."""
    text = f"{look.client}\0{look.user_agent}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, key=key, digest_size=8).digest()) >> 1


def referrer(host: str) -> str:
    """Return *host*, as `Referer` names it, in the form in which hosts are counted."""
    if not host:
        return DIRECT
    name = host.lower().rstrip(".").removeprefix("www.")
    return name if _REFERRER.match(name) else UNKNOWN


def language(tag: str) -> str:
    """Return the language of *tag*, by its code of two or three letters."""
    match = _LANGUAGE.match(tag)
    return match[0].lower() if match else UNKNOWN


def _cut(value: str) -> str:
    # Databases and JSON take no surrogates, and PostgreSQL no NUL.
    text = value.encode(errors="replace").decode().replace("\0", "\ufffd")
    return text[:MAX_VALUE_LENGTH] or UNKNOWN


def day_of(time: datetime) -> date:
    """Return the day of *time* in UTC."""
    return time.astimezone(UTC).date()
