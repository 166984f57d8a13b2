"""
Describes visits: what their requests looked like, off the redirect path.

A redirect only notes the headers of its request, and visits that look alike are counted together. About every
second the click publisher takes what was noted; here it becomes counts by dimension, and hashes of visitors.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from urllib.parse import parse_qsl

from app.domain.errors import Unavailable
from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import (
    DIRECT,
    MAX_VALUE_LENGTH,
    MAX_VALUES,
    OTHER,
    UNKNOWN,
    Agent,
    Dimension,
    Kind,
    LinkVisits,
    Look,
    Outcome,
    Place,
)
from app.ports import Agents, Places, VisitorKeyStore
from app.service import refusals

log = logging.getLogger(__name__)

# Bytes of one batch, about. A single link takes less than three times as much; a line of the spool has 1 MiB.
_MAX_BATCH_BYTES = 256 << 10
_MAX_LOOKS = 20_000
# For which looks are read at a time: user agents that were never seen take half a millisecond each.
_READ_S = 0.5
# For the store to tell the key of a day.
_KEY_S = 1.0
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?![A-Za-z0-9])")
# A host, or the name of an app. What else stands there is no place to come from.
_REFERRER = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+\Z|\[[0-9a-f:.]+\]\Z|localhost\Z")
# Visitors of a link in one batch; further ones are in the next.
_MAX_VISITORS = 5000
_UTM = {
    "utm_source": Dimension.SOURCE,
    "utm_medium": Dimension.MEDIUM,
    "utm_campaign": Dimension.CAMPAIGN,
}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Of a look, all but its link and its address; and what they tell: the kind of visit, the values of its
# dimensions, and whether its address may be read as well.
_Headers = tuple[str, str, str, str, bool, bool]
_Told = tuple[Kind, Sequence[tuple[Dimension, str]], bool]


class VisitNotes:
    """
    What visits looked like, until it is taken. Bounded by looks: `dropped` counts the visits beyond.

    For the requests that the application answers itself; a front notes those that it answers.
    """

    def __init__(self) -> None:
        self._counts: Counter[Look] = Counter()
        self._refusals = refusals.RefusalNotes()
        self.dropped = 0

    def note(self, look: Look) -> None:
        """Count one visit that looks like *look*, or a request without a redirect. Does no I/O."""
        if look.outcome is not Outcome.VISIT:
            self._refusals.note(look)
        elif look in self._counts or len(self._counts) < _MAX_LOOKS:
            self._counts[look] += 1
        else:
            self.dropped += 1

    def take(self) -> Sequence[tuple[Look, int]]:
        """Return the counts and reset them."""
        taken, self._counts = list(self._counts.items()), Counter()
        # Last: what is too much is left out from the end.
        return [*taken, *self._refusals.take()]


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
                async with asyncio.timeout(_KEY_S):
                    self._key = await self._store.visitor_key(day, self._key)
                self._is_shared = True
            except (Unavailable, TimeoutError):
                pass
        return self._key


class VisitDescriber:
    """
    Makes `VisitsDescribed` of what was noted.

    Bounded: `dropped` counts the visits of looks that were beyond `_MAX_LOOKS` or that could not be read.

    Args:
        taken: returns what was noted since its last call.
        honours_objections: whether visits of those who object to tracking (`DNT`, `Sec-GPC`) are counted by
            `Dimension.KIND` alone.
        monotonic: seconds that never go back.
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
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._taken = taken
        self._keys = keys
        self._agents = agents
        self._places = places
        self._honours_objections = honours_objections
        self._monotonic = monotonic
        self._new_id = new_id
        self._cuts: deque[tuple[datetime, deque[tuple[Look, int]]]] = deque()
        self._ready: list[VisitsDescribed] = []
        self.dropped = 0

    @property
    def is_behind(self) -> bool:
        """Does something that was cut wait to be taken?"""
        return bool(self._cuts)

    def cut(self, now: datetime) -> None:
        """Take what was noted since the last call as visits of *now*."""
        looks = deque(self._taken())
        room = max(0, _MAX_LOOKS - sum(len(waiting) for _, waiting in self._cuts))
        while len(looks) > room:
            self.dropped += looks.pop()[1]
        if looks:
            self._cuts.append((now, looks))

    async def take(self) -> Sequence[VisitsDescribed]:
        """
        Return what was cut; if that takes long, a part of it, and the rest later.

        A call that is cancelled loses nothing.
        """
        end = self._monotonic() + _READ_S
        while self._cuts and self._monotonic() < end:
            now, looks = self._cuts[0]
            key = await self._keys.of(day_of(now))
            # In a thread, as rules of user agents take their time: half a second, when they are compiled.
            found, read, unread = await asyncio.to_thread(self._described, tuple(looks), key, end)
            # Nothing is awaited from here on.
            for _ in range(read):
                looks.popleft()
            if not looks:
                self._cuts.popleft()
            self.dropped += unread
            hour = now.replace(minute=0, second=0, microsecond=0)
            self._ready += [VisitsDescribed(self._new_id(), hour, part) for part in _parts(found)]
        ready, self._ready = self._ready, []
        return ready

    def _described(
        self, looks: Sequence[tuple[Look, int]], key: bytes, end: float
    ) -> tuple[Sequence[tuple[Slug, LinkVisits]], int, int]:
        """Return visits by links, how many *looks* were read until *end*, and visits of unreadable ones."""
        counts: dict[Slug, dict[Dimension, dict[str, int]]] = {}
        visitors: defaultdict[Slug, set[int]] = defaultdict(set)
        # Many visits have the same headers, whatever their links are. To read them costs more than the rest.
        known: dict[_Headers, _Told] = {}
        read = unread = 0
        for look, visits in looks:
            if read and self._monotonic() >= end:
                break
            read += 1
            try:
                if look.outcome is not Outcome.VISIT:
                    _add(counts, *self._refusal(look), visits)
                    continue
                headers = (
                    look.referrer,
                    look.language,
                    look.campaign,
                    look.user_agent,
                    look.objects,
                    look.is_ahead,
                )
                told = known.get(headers)
                if told is None:
                    told = known[headers] = self._read(look)
                kind, values, is_described = told
                if is_described and kind is Kind.PERSON:
                    values = (*values, *self._place(look.client))
                    visitors[look.slug].add(visitor(key, look))
            except Exception:
                # The last resort: rules and files of others see what any client sends, and clicks must go on.
                if not unread:
                    log.exception("a visit could not be described")
                unread += visits
                continue
            _add(counts, look.slug, values, visits)
        described = [
            (slug, LinkVisits({name: _most(values) for name, values in by.items()}, tuple(visitors[slug])))
            for slug, by in counts.items()
        ]
        return described, read, unread

    def _read(self, look: Look) -> _Told:
        agent = self._agents.agent(look.user_agent)
        kind = kind_of(look, agent)
        whole = (Dimension.KIND, str(kind))
        if self._honours_objections and look.objects:
            return kind, (whole,), False
        return kind, (whole, *_each_cut(_values(kind, look, agent))), True

    def _refusal(self, look: Look) -> tuple[Slug, Sequence[tuple[Dimension, str]]]:
        """Return the total that *look*, a request without a redirect, counts for, and its values."""
        has_name = not (self._honours_objections and look.objects)
        has_name = has_name and self._agents.agent(look.user_agent).bot is None
        return refusals.total_of(look), refusals.values(look, has_name=has_name)

    def _place(self, client: str) -> Iterable[tuple[Dimension, str]]:
        place: Place = self._places.place(client)
        return _each_cut([(Dimension.COUNTRY, place.country), (Dimension.CITY, place.city)])


def _values(kind: Kind, look: Look, agent: Agent) -> Iterable[tuple[Dimension, str]]:
    """Return what the headers of *look* tell; its address tells the place of a person."""
    if kind is not Kind.PERSON:
        if agent.bot is not None:
            yield Dimension.BOT, agent.bot
        return
    yield Dimension.REFERRER, referrer(look.referrer)
    yield Dimension.LANGUAGE, language(look.language)
    yield Dimension.BROWSER, agent.browser
    yield Dimension.OS, agent.os
    yield Dimension.DEVICE, agent.device
    yield from campaign(look.campaign).items()


def _each_cut(values: Iterable[tuple[Dimension, str]]) -> Iterable[tuple[Dimension, str]]:
    return [(dimension, _cut(value)) for dimension, value in values]


def _add(
    counts: dict[Slug, dict[Dimension, dict[str, int]]],
    slug: Slug,
    values: Iterable[tuple[Dimension, str]],
    visits: int,
) -> None:
    """Add *visits* of *slug* to each of *values*, one of a dimension."""
    by = counts.get(slug)
    if by is None:
        counts[slug] = {dimension: {value: visits} for dimension, value in values}
        return
    for dimension, value in values:
        of = by.setdefault(dimension, {})
        of[value] = of.get(value, 0) + visits


def _most(values: Mapping[str, int]) -> Mapping[str, int]:
    """Return the values with the most visits, as many as the store holds; `OTHER` has the rest."""
    if len(values) <= MAX_VALUES:
        return values
    ordered = sorted(values.items(), key=lambda pair: (pair[0] == OTHER, -pair[1], pair[0]))
    return {**dict(ordered[:MAX_VALUES]), OTHER: sum(visits for _, visits in ordered[MAX_VALUES:])}


def _parts(found: Iterable[tuple[Slug, LinkVisits]]) -> Iterator[Mapping[Slug, LinkVisits]]:
    """Part *found* into batches that the spool and the broker take."""
    part: dict[Slug, LinkVisits] = {}
    size = 0
    for slug, visits in found:
        for one in _pieces(visits):
            added = _bytes(one)
            if part and (slug in part or size + added > _MAX_BATCH_BYTES):
                yield part
                part, size = {}, 0
            part[slug] = one
            size += added
    if part:
        yield part


def _pieces(visits: LinkVisits) -> Iterator[LinkVisits]:
    """Part *visits* by the number of visitors."""
    if len(visits.visitors) <= _MAX_VISITORS:
        yield visits
        return
    yield LinkVisits(visits.counts, visits.visitors[:_MAX_VISITORS])
    for start in range(_MAX_VISITORS, len(visits.visitors), _MAX_VISITORS):
        yield LinkVisits({}, visits.visitors[start : start + _MAX_VISITORS])


def _bytes(visits: LinkVisits) -> int:
    """Return about how many bytes *visits* take, and not less."""
    # Quotes and backslashes are escaped; beside a value stand quotes, a colon, a comma and up to 16 digits.
    values = sum(2 * len(value.encode()) + 20 for by in visits.counts.values() for value in by)
    # The slug, and the names of the dimensions.
    return 600 + values + 20 * len(visits.visitors)


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


def campaign(parameters: str) -> Mapping[Dimension, str]:
    """Return what *parameters*, as a `Look` has them, tell of a campaign. The last of a name counts."""
    told = dict(parse_qsl(parameters)) if parameters else {}
    values = {dimension: told.get(name, "").strip() for name, dimension in _UTM.items()}
    return {dimension: value for dimension, value in values.items() if value}


def _cut(value: str) -> str:
    # Databases and JSON take no surrogates, and PostgreSQL no NUL; nothing shows control characters.
    text = _CONTROLS.sub("\ufffd", value.encode(errors="replace").decode())
    return text[:MAX_VALUE_LENGTH] or UNKNOWN


def day_of(time: datetime) -> date:
    """Return the day of *time* in UTC."""
    return time.astimezone(UTC).date()
