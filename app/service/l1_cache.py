"""
The L1 cache: answers in the memory of the process, in front of all other layers.

An entry is fresh for two seconds at most, which bounds the effect of a lost invalidation. An
invalidation sets a minimum version for its slug: older copies are rejected, such as a read that was
in progress when the link changed, or the copy of a shared cache that could not be written. Stale
entries are kept for five minutes, in case neither cache nor store answers (see `L1.stale`).

The cache of a process with a front is the front's table (`app.web.native_l1`).
"""

from __future__ import annotations

import math
import random as random_module
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class L1Bounds:
    """
    How much an L1 cache holds: counts.

    Attributes:
        entries: the oldest are evicted.
        absent: of these, unknown slugs: a scan evicts its own guesses, and no link.
        long: and links with long targets: 64 MiB of them at most.
        min_versions: of `L1Cache`, slugs that have one; of the native cache, those without an entry.
    """

    entries: int = 65_536
    absent: int = 8_192
    long: int = 8_192
    min_versions: int = 65_536


BOUNDS = L1Bounds()

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


def ignore_clicks(_slug: Slug, _clicks: int) -> None:
    """Discard the clicks."""


def ignore_change(_change: LinkChanged) -> None:
    """Discard the change."""


class L1(Protocol[T]):
    """
    What an L1 cache does: `L1Cache`, or that of a data plane.

    An `app.ports.InvalidationListener`. Belongs to one event loop.
    """

    @property
    def peek(self) -> Callable[[str], L1Entry[T] | None]:
        """Returns the entry of a slug; one that is not fresh may be missing, or be there."""

    @property
    def note_clicked(self) -> Callable[[L1Entry[T]], None]:
        """Notes an entry, for `collect`, before its first click is counted."""

    def get(self, slug: str) -> L1Entry[T] | None:
        """Return the fresh entry of *slug*."""

    def stale(self, slug: str) -> L1Entry[T] | None:
        """
        Return the stale entry of *slug*, and make it fresh once more.

        For when neither cache nor store answers. Only for a link that is live by its own times, at
        its minimum version or later, and read less than `STALE_S` ago.
        """

    def without_fresh(self, slugs: Sequence[Slug]) -> list[Slug]:
        """Return those of *slugs* that `get` has no entry for."""

    def accepts(self, resolution: Resolution) -> bool:
        """Return whether *resolution* is of this epoch, and at least at its minimum and the version held."""

    def offer(self, resolution: Resolution) -> L1Entry[T] | None:
        """Keep *resolution* and return its entry; None if it is known to be old."""

    def offer_many(self, resolutions: Iterable[Resolution]) -> list[L1Entry[T] | Exception | None]:
        """
        Keep *resolutions*.

        Returns:
            For each of them its entry; None if it is known to be old, or the error if it cannot be rendered.
        """

    def put(self, resolution: Resolution) -> L1Entry[T]:
        """Keep *resolution* unless it is known to be old; return its entry in any case."""

    def collect(self) -> None:
        """Report the clicks since the last call to `clicked`; call it about every second."""

    def on_changes(self, changes: Sequence[LinkChanged]) -> None:
        """Drop entries older than *changes*, and raise the minimum versions."""

    def replace(self, changed: Sequence[Resolution]) -> None:
        """
        Apply changes that this process committed: replace held entries, raise the minimum versions.

        Merely dropping the entries would require a look-up, although the new state is known.
        """

    def held(self) -> Sequence[Resolution]:
        """Return the resolutions of all entries, stale ones included."""

    def without_target(self) -> Sequence[Slug]:
        """Return the slugs of all entries whose links have no target: there is none, or it is not enabled."""

    def render_again(self, slugs: Iterable[Slug]) -> None:
        """Render the entries of *slugs* anew: what is answered has changed, and the links have not."""

    def on_gap(self) -> None:
        """Changes may have been missed: drop every entry."""

    def begin_epoch(self, epoch: int) -> None:
        """The links have the history *epoch*: drop every entry and minimum version of another."""

    def follow_epoch(self, epoch: int) -> None:
        """Begin *epoch*, which links of the store have, if it is later than the present one."""

    def __len__(self) -> int:
        """Return how many entries are held, stale ones included."""


class L1Cache(Generic[T]):
    """
    Holds answers by slug, in dictionaries.

    Args:
        render: makes the answer for a resolution at a time in unix seconds.
        monotonic: seconds that never go back.
        wall: unix seconds.
        random: gives floats in [0, 1), for the jitter of the times to live.
        clicked: receives a slug and how often its answer was sent.
        noted: receives each change that is new to this process, if the time of its commit is known.
    """

    def __init__(
        self,
        render: Callable[[Resolution, float], T],
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[], float] = random_module.random,
        clicked: Callable[[Slug, int], None] = ignore_clicks,
        noted: Callable[[LinkChanged], None] = ignore_change,
        bounds: L1Bounds = BOUNDS,
    ) -> None:
        self._render = render
        self._monotonic = monotonic
        self._wall = wall
        self._random = random
        self._clicked = clicked
        self._noted = noted
        self._bounds = bounds
        # Entries with clicks that were not collected yet, whatever has become of them.
        self._clicked_entries: list[L1Entry[T]] = []
        self.note_clicked = self._clicked_entries.append
        self._entries: OrderedDict[str, L1Entry[T]] = OrderedDict()
        # Slugs of the entries that a bound of their own holds for.
        self._absent: OrderedDict[str, None] = OrderedDict()
        self._long: OrderedDict[str, None] = OrderedDict()
        self._min_versions: OrderedDict[str, tuple[int, float]] = OrderedDict()
        # None: not known yet, so links of any are accepted.
        self._epoch: int | None = None
        # Called for every redirect: bound once, and without a Python frame of its own.
        self.peek = self._entries.get

    def get(self, slug: str) -> L1Entry[T] | None:
        entry = self._entries.get(slug)
        return entry if entry is not None and self._monotonic() < entry.fresh_until else None

    def stale(self, slug: str) -> L1Entry[T] | None:
        entry = self._entries.get(slug)
        now, wall = self._monotonic(), self._wall()
        if entry is None or now >= entry.stale_until or entry.resolution.state(wall) is not LinkState.LIVE:
            return None
        kept = self._entry(entry.resolution, now, wall, stale_until=entry.stale_until)
        self._keep(kept)
        return kept

    def without_fresh(self, slugs: Sequence[Slug]) -> list[Slug]:
        now, peek = self._monotonic(), self.peek
        return [slug for slug in slugs if (entry := peek(slug)) is None or now >= entry.fresh_until]

    def accepts(self, resolution: Resolution) -> bool:
        slug = resolution.slug
        held, min_version = self._entries.get(slug), self._min_versions.get(slug)
        return self._accepts(resolution, self._monotonic(), held, min_version)

    def _accepts(
        self, resolution: Resolution, now: float, held: L1Entry[T] | None, least: tuple[int, float] | None
    ) -> bool:
        """Is *resolution* of this epoch, and at least at the version *held* and the *least* one?"""
        version = resolution.version
        if version and self._epoch is not None and resolution.epoch != self._epoch:
            return False
        # Its minimum version may have been evicted.
        if held is not None and held.resolution.version > version and now < held.stale_until:
            return False
        return least is None or version >= least[0] or now >= least[1]

    def offer(self, resolution: Resolution) -> L1Entry[T] | None:
        outcome = self._offered(resolution, self._monotonic(), self._wall())
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def offer_many(self, resolutions: Iterable[Resolution]) -> list[L1Entry[T] | Exception | None]:
        now, wall = self._monotonic(), self._wall()
        return [self._offered(resolution, now, wall) for resolution in resolutions]

    def _offered(self, resolution: Resolution, now: float, wall: float) -> L1Entry[T] | Exception | None:
        slug = resolution.slug
        held, min_version = self._entries.get(slug), self._min_versions.get(slug)
        if not self._accepts(resolution, now, held, min_version):
            return None
        # The minimum version rises with every read: a later read of a lagging source is then rejected.
        if resolution.version > 0:
            self._set_min_version(slug, resolution.version, now + MIN_VERSION_TTL_S, min_version)
        elif min_version is not None:
            del self._min_versions[slug]
        try:
            entry = self._entry(resolution, now, wall, stale_until=now + STALE_S)
        except Exception as error:  # noqa: BLE001 - one stored link that cannot be rendered fails alone
            self._drop(slug)
            return error
        self._keep(entry)
        return entry

    def put(self, resolution: Resolution) -> L1Entry[T]:
        entry = self.offer(resolution)
        if entry is None:
            now = self._monotonic()
            entry = self._entry(resolution, now, self._wall(), stale_until=now)
        return entry

    def collect(self) -> None:
        for entry in self._clicked_entries:
            self._clicked(entry.resolution.slug, entry.clicks)
            entry.clicks = 0
        self._clicked_entries.clear()

    def on_changes(self, changes: Sequence[LinkChanged]) -> None:
        until = self._monotonic() + MIN_VERSION_TTL_S
        for change in changes:
            slug, version = change.slug, change.version
            entry = self._entries.get(slug)
            if entry is not None and entry.resolution.version < version:
                self._drop(slug)
            min_version = self._min_versions.get(slug)
            if min_version is None or version > min_version[0]:
                if change.committed_at is not None:
                    self._noted(change)
            else:
                version = min_version[0]
            self._set_min_version(slug, version, until, min_version)

    def replace(self, changed: Sequence[Resolution]) -> None:
        held = [resolution for resolution in changed if resolution.slug in self._entries]
        self.on_changes([LinkChanged(resolution.slug, resolution.version) for resolution in changed])
        # A target that cannot be sent is reported when it is requested.
        self.offer_many(held)

    def held(self) -> Sequence[Resolution]:
        return [entry.resolution for entry in self._entries.values()]

    def without_target(self) -> Sequence[Slug]:
        return [one.slug for one in self.held() if one.long_url is None]

    def render_again(self, slugs: Iterable[Slug]) -> None:
        wall = self._wall()
        for slug in slugs:
            entry = self._entries.get(slug)
            if entry is None:
                continue
            try:
                entry.answer = self._render(entry.resolution, wall)
            except Exception:  # noqa: BLE001 - a stored link that cannot be rendered must fail alone
                self._drop(slug)

    def on_gap(self) -> None:
        self._clear()

    def begin_epoch(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch = epoch
            self._clear()
            self._min_versions.clear()

    def follow_epoch(self, epoch: int) -> None:
        if self._epoch is not None and epoch > self._epoch:
            self.begin_epoch(epoch)

    def __len__(self) -> int:
        return len(self._entries)

    def _keep(self, entry: L1Entry[T]) -> None:
        entries, absent, long, bounds = self._entries, self._absent, self._long, self._bounds
        if len(self._clicked_entries) >= bounds.entries:
            self.collect()
        resolution = entry.resolution
        slug, before = resolution.slug, len(entries)
        entries[slug] = entry
        if len(entries) == before:
            entries.move_to_end(slug)  # a new one is there already
        if absent:
            absent.pop(slug, None)
        if long:
            long.pop(slug, None)
        if resolution.version == 0:
            absent[slug] = None
        elif is_large(resolution):
            long[slug] = None
        if len(absent) > bounds.absent:
            self._drop(next(iter(absent)))
        elif len(long) > bounds.long:
            self._drop(next(iter(long)))
        elif len(entries) > bounds.entries:
            self._drop(next(iter(entries)))

    def _drop(self, slug: str) -> None:
        for slugs in (self._entries, self._absent, self._long):
            slugs.pop(slug, None)

    def _clear(self) -> None:
        for slugs in (self._entries, self._absent, self._long):
            slugs.clear()

    def _entry(self, resolution: Resolution, now: float, wall: float, *, stale_until: float) -> L1Entry[T]:
        answer = self._render(resolution, wall)
        return new_entry(resolution, answer, now, wall, stale_until=stale_until, jitter=self._random())

    def _set_min_version(
        self, slug: str, version: int, until: float, present: tuple[int, float] | None
    ) -> None:
        """Have the minimum version of *slug*, which is at *present*, be *version* until then."""
        self._min_versions[slug] = version, until
        if present is not None:
            self._min_versions.move_to_end(slug)
        elif len(self._min_versions) > self._bounds.min_versions:
            self._min_versions.popitem(last=False)


def new_entry(
    resolution: Resolution, answer: T, now: float, wall: float, *, stale_until: float, jitter: float
) -> L1Entry[T]:
    """
    Return the entry of *resolution*, read at *now* (*wall* in unix seconds).

    Args:
        jitter: in [0, 1); by this share of `JITTER` its time to live is shorter.
    """
    ttl_s = TTL_S * (1 - JITTER * jitter)
    if resolution.valid_from is not None or resolution.expires_at is not None:
        ttl_s = min(ttl_s, _constant_for(resolution, wall))
    fresh_until = now + ttl_s
    return L1Entry(resolution, answer, fresh_until, stale_until, free_until(resolution, fresh_until))


def free_until(resolution: Resolution, fresh_until: float) -> float:
    """Return until when the answer of *resolution*, fresh until then, may be sent without further checks."""
    return -math.inf if resolution.metered else fresh_until


def _constant_for(resolution: Resolution, wall: float) -> float:
    """Return for how many seconds the answer stays the same: until `valid_from` or `expires_at`."""
    edges = [
        edge - wall
        for edge in (resolution.valid_from, resolution.expires_at)
        if edge is not None and edge > wall
    ]
    return min(edges, default=math.inf)
