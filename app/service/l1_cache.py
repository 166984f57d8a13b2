"""
The L1 cache: a dictionary in the process, in front of all other layers.

An entry is fresh for two seconds at most, which bounds the effect of a lost invalidation. An
invalidation sets a minimum version for its slug: older copies are rejected, such as a read that was
in progress when the link changed, or the copy of a shared cache that could not be written. Stale
entries are kept for five minutes, in case neither cache nor store answers (see `L1Cache.stale`).
"""

from __future__ import annotations

import math
import random as random_module
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import msgspec

from app.domain.cache_ttl import is_large
from app.domain.events import LinkChanged
from app.domain.link import LinkState, Resolution, Slug

TTL_S = 2.0
# Times to live are shortened by up to this share: entries loaded together must not expire together.
JITTER = 0.1
# How long after its read a stale entry may be served, if neither store nor cache answers. A change
# needs the store, and invalidations keep arriving: the bound matters only to a process that is cut
# off from every dependency while other processes are not.
STALE_S = 300.0
# Longer than any read takes, and than most outages of the shared cache: it comes back with its old
# copies, and is read before a worker has brought them up to date.
MIN_VERSION_TTL_S = STALE_S
MAX_ENTRIES = 65_536
# Of these, unknown slugs: a scan evicts its own guesses, and no link.
MAX_ABSENT = 8_192
# And links with long targets: 64 MiB of them at most.
MAX_LONG = 8_192

# No minimum version.
_NONE = (0, 0.0)

T = TypeVar("T")


# Entries are in no reference cycle, so the garbage collector need not visit up to 65,536 of them.
class L1Entry(msgspec.Struct, Generic[T], gc=False):
    """
    A resolution, the answer rendered from it, and until when both are valid (monotonic seconds).

    From `fresh_until` to `stale_until` the entry is stale. Until `free_until` the answer may be sent
    without further checks; never for a link with a visit quota.

    Each answer sent increments `clicks`, at a quarter of the cost of a dictionary by slug. The first one is
    noted before (`L1Cache.note_clicked`), for `L1Cache.collect`.
    """

    resolution: Resolution
    answer: T
    fresh_until: float
    stale_until: float
    free_until: float
    clicks: int = 0


class HotTable(Protocol[T]):
    """The answers that a data plane sends by itself: those of the entries that the L1 cache holds."""

    def put_many(self, entries: Sequence[L1Entry[T]], now: float) -> None:
        """Hold *entries*, made at *now*, instead of any others of their slugs."""

    def send_once(self, entry: L1Entry[T]) -> None:
        """Send the answer of *entry* to the requests that wait for its slug, and no later one."""

    def remove(self, slug: str) -> None:
        """Hold nothing for *slug*."""

    def clear(self) -> None:
        """Hold nothing at all."""

    def take_clicks(self) -> Iterable[tuple[Slug, int]]:
        """Return the redirects sent since the last call, by slug; also those of removed entries."""


def _ignore(_slug: Slug, _clicks: int) -> None:
    """Discard the clicks."""


def _ignore_change(_change: LinkChanged) -> None:
    """Discard the change."""


class L1Cache(Generic[T]):
    """
    Holds at most `MAX_ENTRIES` answers by slug; evicts the oldest first.

    An `app.ports.InvalidationListener`. Belongs to one event loop.

    Args:
        render: makes the answer for a resolution at a time in unix seconds.
        monotonic: seconds that never go back.
        wall: unix seconds.
        random: gives floats in [0, 1), for the jitter of the times to live.
        clicked: receives a slug and how often its answer was sent.
        noted: receives each change that is new to this process, if the time of its commit is known.
        hot: a data plane's table, which each change of an entry changes in the same call.
    """

    def __init__(
        self,
        render: Callable[[Resolution, float], T],
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[], float] = random_module.random,
        clicked: Callable[[Slug, int], None] = _ignore,
        noted: Callable[[LinkChanged], None] = _ignore_change,
        hot: HotTable[T] | None = None,
    ) -> None:
        self._render = render
        self._monotonic = monotonic
        self._wall = wall
        self._random = random
        self._clicked = clicked
        self._noted = noted
        self._hot = hot
        # Entries dropped since the start: whether a batch has evicted some of its own.
        self._dropped = 0
        # Entries with clicks that were not collected yet, whatever has become of them.
        self._clicked_entries: list[L1Entry[T]] = []
        self.note_clicked = self._clicked_entries.append
        self._entries: OrderedDict[str, L1Entry[T]] = OrderedDict()
        self._absent: OrderedDict[str, None] = OrderedDict()
        self._long: OrderedDict[str, None] = OrderedDict()
        self._min_versions: OrderedDict[str, tuple[int, float]] = OrderedDict()
        # None: not known yet, so links of any are accepted.
        self._epoch: int | None = None
        # Called for every redirect: bound once, and without a Python frame of its own.
        self.peek = self._entries.get

    def get(self, slug: str) -> L1Entry[T] | None:
        """Return the fresh entry of *slug*."""
        entry = self._entries.get(slug)
        return entry if entry is not None and self._monotonic() < entry.fresh_until else None

    def stale(self, slug: str) -> L1Entry[T] | None:
        """
        Return the stale entry of *slug*, and make it fresh once more.

        For when neither cache nor store answers. Only for a link that is live by its own times, at
        its minimum version or later, and read less than `STALE_S` ago.
        """
        entry = self._entries.get(slug)
        now, wall = self._monotonic(), self._wall()
        if entry is None or now >= entry.stale_until or entry.resolution.state(wall) is not LinkState.LIVE:
            return None
        kept = self._keep(entry.resolution, now, wall, stale_until=entry.stale_until)
        self._put_hot([kept], now)
        return kept

    def without_fresh(self, slugs: Iterable[Slug]) -> list[Slug]:
        """Return those of *slugs* that `get` has no entry for."""
        now, peek = self._monotonic(), self.peek
        return [slug for slug in slugs if (entry := peek(slug)) is None or now >= entry.fresh_until]

    def accepts(self, resolution: Resolution) -> bool:
        """Return whether *resolution* is of this epoch, and at least at its minimum and the version held."""
        return self._accepts(resolution, self._monotonic())

    def _accepts(self, resolution: Resolution, now: float) -> bool:
        if resolution.version and self._epoch is not None and resolution.epoch != self._epoch:
            return False
        entry = self._entries.get(resolution.slug)
        # Its minimum version may have been evicted.
        if entry is not None and now < entry.stale_until and entry.resolution.version > resolution.version:
            return False
        min_version = self._min_versions.get(resolution.slug)
        return min_version is None or resolution.version >= min_version[0] or now >= min_version[1]

    def offer(self, resolution: Resolution) -> L1Entry[T] | None:
        """Keep *resolution* and return its entry; None if it is known to be old."""
        [outcome] = self.offer_many([resolution])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def offer_many(self, resolutions: Iterable[Resolution]) -> list[L1Entry[T] | Exception | None]:
        """
        Keep *resolutions*; the data plane gets them in one call.

        Returns:
            For each of them its entry; None if it is known to be old, or the error if it cannot be rendered.
        """
        now, wall, dropped = self._monotonic(), self._wall(), self._dropped
        min_until, stale_until = now + MIN_VERSION_TTL_S, now + STALE_S
        outcomes: list[L1Entry[T] | Exception | None] = []
        kept: list[L1Entry[T]] = []
        for resolution in resolutions:
            if not self._accepts(resolution, now):
                outcomes.append(None)
                continue
            # The minimum version rises with every read: a later read of a lagging source is then rejected.
            if resolution.version > 0:
                self._raise_min_version(resolution.slug, resolution.version, min_until)
            else:
                self._limit_absent(resolution.slug)
            try:
                entry = self._keep(resolution, now, wall, stale_until=stale_until)
            except Exception as error:  # noqa: BLE001 - one stored link that cannot be rendered fails alone
                outcomes.append(error)
                continue
            outcomes.append(entry)
            kept.append(entry)
        if self._hot is not None:
            if dropped != self._dropped:
                for evicted in (one for one in kept if self.peek(one.resolution.slug) is not one):
                    self._hot.send_once(evicted)
                kept = [one for one in kept if self.peek(one.resolution.slug) is one]
            self._put_hot(kept, now)
        return outcomes

    def put(self, resolution: Resolution) -> L1Entry[T]:
        """Keep *resolution* unless it is known to be old; return its entry in any case."""
        entry = self.offer(resolution)
        if entry is None:
            now = self._monotonic()
            entry = self._entry(resolution, now, self._wall(), stale_until=now)
            if self._hot is not None:
                self._hot.send_once(entry)
        return entry

    def collect(self) -> None:
        """Report the clicks since the last call to `clicked`; call it about every second."""
        if self._hot is not None:
            for slug, clicks in self._hot.take_clicks():
                self._clicked(slug, clicks)
        for entry in self._clicked_entries:
            self._clicked(entry.resolution.slug, entry.clicks)
            entry.clicks = 0
        self._clicked_entries.clear()

    def on_changes(self, changes: Sequence[LinkChanged]) -> None:
        """Drop entries older than *changes*, and raise the minimum versions."""
        until = self._monotonic() + MIN_VERSION_TTL_S
        for change in changes:
            slug, version = change.slug, change.version
            entry = self._entries.get(slug)
            if entry is not None and entry.resolution.version < version:
                self._drop(slug)
            if change.committed_at is not None and version > self._min_versions.get(slug, _NONE)[0]:
                self._noted(change)
            self._raise_min_version(slug, version, until)

    def replace(self, changed: Sequence[Resolution]) -> None:
        """
        Apply changes that this process committed: replace held entries, raise the minimum versions.

        Merely dropping the entries would require a look-up, although the new state is known.
        """
        held = [resolution for resolution in changed if resolution.slug in self._entries]
        self.on_changes([LinkChanged(resolution.slug, resolution.version) for resolution in changed])
        for resolution in held:
            # A target that cannot be sent is reported when it is requested.
            with suppress(Exception):
                self.offer(resolution)

    def held(self) -> Sequence[Resolution]:
        """Return the resolutions of all entries, stale ones included."""
        return [entry.resolution for entry in self._entries.values()]

    def render_again(self, slugs: Iterable[Slug]) -> None:
        """Render the entries of *slugs* anew: what is answered has changed, and the links have not."""
        now, wall = self._monotonic(), self._wall()
        fresh = []
        for slug in slugs:
            entry = self._entries.get(slug)
            if entry is None:
                continue
            try:
                entry.answer = self._render(entry.resolution, wall)
            except Exception:  # noqa: BLE001 - a stored link that cannot be rendered must fail alone
                self._drop(slug)
                continue
            if now < entry.fresh_until:
                fresh.append(entry)
            elif self._hot is not None:
                # To put it would answer those that wait for a fresh one.
                self._hot.remove(slug)
        self._put_hot(fresh, now)

    def on_gap(self) -> None:
        """Changes may have been missed: drop every entry."""
        self._clear()

    def begin_epoch(self, epoch: int) -> None:
        """The links have the history *epoch*: drop every entry and minimum version of another."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._clear()
            self._absent.clear()
            self._min_versions.clear()

    def follow_epoch(self, epoch: int) -> None:
        """Begin *epoch*, which links of the store have, if it is later than the present one."""
        if self._epoch is not None and epoch > self._epoch:
            self.begin_epoch(epoch)

    def __len__(self) -> int:
        """Return how many entries are held, stale ones included."""
        return len(self._entries)

    def _keep(self, resolution: Resolution, now: float, wall: float, *, stale_until: float) -> L1Entry[T]:
        entry = self._entry(resolution, now, wall, stale_until=stale_until)
        if len(self._clicked_entries) >= MAX_ENTRIES:
            self.collect()
        self._entries[resolution.slug] = entry
        self._entries.move_to_end(resolution.slug)
        if is_large(resolution):
            self._limit_long(resolution.slug)
        if len(self._entries) > MAX_ENTRIES:
            self._drop(next(iter(self._entries)))
        return entry

    def _put_hot(self, entries: Sequence[L1Entry[T]], now: float) -> None:
        if self._hot is not None and entries:
            self._hot.put_many(entries, now)

    def _drop(self, slug: str) -> None:
        self._dropped += 1
        self._entries.pop(slug, None)
        if self._hot is not None:
            self._hot.remove(slug)

    def _clear(self) -> None:
        self._entries.clear()
        if self._hot is not None:
            self._hot.clear()

    def _entry(self, resolution: Resolution, now: float, wall: float, *, stale_until: float) -> L1Entry[T]:
        ttl_s = TTL_S * (1 - JITTER * self._random())
        if resolution.valid_from is not None or resolution.expires_at is not None:
            ttl_s = min(ttl_s, _constant_for(resolution, wall))
        fresh_until = now + ttl_s
        free_until = -math.inf if resolution.metered else fresh_until
        return L1Entry(resolution, self._render(resolution, wall), fresh_until, stale_until, free_until)

    def _limit_absent(self, slug: str) -> None:
        self._absent[slug] = None
        self._absent.move_to_end(slug)
        if len(self._absent) > MAX_ABSENT:
            oldest, _ = self._absent.popitem(last=False)
            entry = self._entries.get(oldest)
            if entry is not None and entry.resolution.version == 0:
                self._drop(oldest)

    def _limit_long(self, slug: str) -> None:
        self._long[slug] = None
        self._long.move_to_end(slug)
        if len(self._long) > MAX_LONG:
            oldest, _ = self._long.popitem(last=False)
            self._drop(oldest)

    def _raise_min_version(self, slug: str, version: int, until: float) -> None:
        min_version = self._min_versions.get(slug)
        self._min_versions[slug] = (max(version, min_version[0]) if min_version else version, until)
        self._min_versions.move_to_end(slug)
        if len(self._min_versions) > MAX_ENTRIES:
            self._min_versions.popitem(last=False)


def _constant_for(resolution: Resolution, wall: float) -> float:
    """Return for how many seconds the answer stays the same: until `valid_from` or `expires_at`."""
    edges = [
        edge - wall
        for edge in (resolution.valid_from, resolution.expires_at)
        if edge is not None and edge > wall
    ]
    return min(edges, default=math.inf)
