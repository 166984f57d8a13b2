"""
The L1 cache of a process that has a front: the front's table, which has each slug and target once.

The rules are those of `app.service.l1_cache.L1Cache`, and stand in `pyext/front/src/table/entries.rs`. What
an entry answers is rendered here before the table gets it, and rendered again when Python itself needs it.
"""

from __future__ import annotations

import math
import random as random_module
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, overload

from app.domain.cache_ttl import is_large
from app.domain.events import LinkChanged
from app.domain.link import LinkState, Resolution, Slug
from app.service.l1_cache import (
    STALE_S,
    L1Entry,
    free_until,
    ignore_change,
    ignore_clicks,
    new_entry,
)
from app.web.response import ROBOTS, Response

if TYPE_CHECKING:
    from hopgate_front import Front, Held
    from hopgate_front.types import Rare, ResolutionFields, Row

# Clicks of this process itself are few; those that no `collect` has fetched are reported at once beyond this.
_MAX_CLICKED = 65_536


class NativeL1Cache:
    """
    Holds answers in the table of *front*, for `app.service.l1_cache.L1`; see `L1Cache` for the arguments.

    Each answer that is kept, and each that is sent once, also goes to the requests that wait for its slug.
    """

    def __init__(
        self,
        front: Front,
        render: Callable[[Resolution, float], Response],
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[], float] = random_module.random,
        clicked: Callable[[Slug, int], None] = ignore_clicks,
        noted: Callable[[LinkChanged], None] = ignore_change,
    ) -> None:
        self._front = front
        self._render = render
        self._monotonic = monotonic
        self._wall = wall
        self._random = random
        self._clicked = clicked
        self._noted = noted
        self._clicked_entries: list[L1Entry[Response]] = []
        # None: not known yet, so links of any are accepted.
        self._epoch: int | None = None

    def get(self, slug: str) -> L1Entry[Response] | None:
        # Made for this call: to change it changes nothing that is held.
        held = self._front.entry(slug)
        if held is None:
            return None
        fields, fresh_until, stale_until = held
        if self._monotonic() >= fresh_until:
            return None
        return self._entry_of(_resolution(fields), self._wall(), fresh_until, stale_until)

    peek = get

    def note_clicked(self, entry: L1Entry[Response]) -> None:
        if len(self._clicked_entries) >= _MAX_CLICKED:
            self.collect()
        self._clicked_entries.append(entry)

    def stale(self, slug: str) -> L1Entry[Response] | None:
        held = self._front.entry(slug)
        now, wall = self._monotonic(), self._wall()
        if held is None:
            return None
        fields, _, stale_until = held
        resolution = _resolution(fields)
        if now >= stale_until or resolution.state(wall) is not LinkState.LIVE:
            return None
        kept = self._new_entry(resolution, now, wall, stale_until)
        self._front.renew_many([_row(kept)], now, are_read=True)
        return kept

    def without_fresh(self, slugs: Sequence[Slug]) -> list[Slug]:
        return [Slug(slug) for slug in self._front.without_fresh(slugs, self._monotonic())]

    def accepts(self, resolution: Resolution) -> bool:
        slug, version, epoch = resolution.slug, resolution.version, resolution.epoch
        return self._front.accepts(slug, version, epoch, self._monotonic())

    def offer(self, resolution: Resolution) -> L1Entry[Response] | None:
        [outcome] = self.offer_many([resolution])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def offer_many(self, resolutions: Iterable[Resolution]) -> list[L1Entry[Response] | Exception | None]:
        now, wall = self._monotonic(), self._wall()
        until = now + STALE_S
        outcomes: list[L1Entry[Response] | Exception] = []
        rows: list[Row] = []
        for resolution in resolutions:
            try:
                entry = self._new_entry(resolution, now, wall, until)
            except Exception as error:  # noqa: BLE001 - one stored link that cannot be rendered fails alone
                outcomes.append(error)
                rows.append(_unsendable(resolution))
            else:
                outcomes.append(entry)
                rows.append(_row(entry))
        # Minimum versions hold as long as stale entries.
        accepted = self._front.offer_many(rows, now, until)
        return [
            outcome if is_accepted else None for outcome, is_accepted in zip(outcomes, accepted, strict=True)
        ]

    def put(self, resolution: Resolution) -> L1Entry[Response]:
        entry = self.offer(resolution)
        if entry is None:
            now = self._monotonic()
            entry = self._new_entry(resolution, now, self._wall(), now)
            self._front.send_once([_row(entry)], now)
        return entry

    def collect(self) -> None:
        for slug, clicks in self._front.take_clicks():
            self._clicked(Slug(slug), clicks)
        for entry in self._clicked_entries:
            self._clicked(entry.resolution.slug, entry.clicks)
        self._clicked_entries.clear()

    def on_changes(self, changes: Sequence[LinkChanged]) -> None:
        until = self._monotonic() + STALE_S
        are_new = self._front.change_many([(change.slug, change.version) for change in changes], until)
        for change, is_new in zip(changes, are_new, strict=True):
            if is_new and change.committed_at is not None:
                self._noted(change)

    def replace(self, changed: Sequence[Resolution]) -> None:
        slugs = [resolution.slug for resolution in changed]
        # Every entry is fresh at the beginning of time.
        missing = set(self._front.without_fresh(slugs, -math.inf))
        self.on_changes([LinkChanged(resolution.slug, resolution.version) for resolution in changed])
        # A target that cannot be sent is reported when it is requested.
        self.offer_many([resolution for resolution in changed if resolution.slug not in missing])

    def held(self) -> Sequence[Resolution]:
        return _Held(self._front.held())

    def without_target(self) -> Sequence[Slug]:
        return [Slug(slug) for slug in self._front.without_target()]

    def render_again(self, slugs: Iterable[Slug]) -> None:
        wall, rows = self._wall(), []
        for slug in slugs:
            held = self._front.entry(slug)
            if held is None:
                continue
            fields, fresh_until, stale_until = held
            try:
                entry = self._entry_of(_resolution(fields), wall, fresh_until, stale_until)
            except Exception:  # noqa: BLE001 - a stored link that cannot be rendered must fail alone
                self._front.remove(slug)
            else:
                rows.append(_row(entry))
        self._front.renew_many(rows, self._monotonic(), are_read=False)

    def on_gap(self) -> None:
        self._front.clear()

    def begin_epoch(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch = epoch
            self._front.begin_epoch(epoch)

    def follow_epoch(self, epoch: int) -> None:
        if self._epoch is not None and epoch > self._epoch:
            self.begin_epoch(epoch)

    def __len__(self) -> int:
        return len(self._front)

    def _new_entry(
        self, resolution: Resolution, now: float, wall: float, stale_until: float
    ) -> L1Entry[Response]:
        answer = self._render(resolution, wall)
        return new_entry(resolution, answer, now, wall, stale_until=stale_until, jitter=self._random())

    def _entry_of(
        self, resolution: Resolution, wall: float, fresh_until: float, stale_until: float
    ) -> L1Entry[Response]:
        """Return the entry that the table has for *resolution*."""
        answer = self._render(resolution, wall)
        return L1Entry(resolution, answer, fresh_until, stale_until, free_until(resolution, fresh_until))


class _Held(Sequence[Resolution]):
    """The resolutions of the entries that a table held at one time."""

    def __init__(self, held: Held) -> None:
        self._held = held

    def __len__(self) -> int:
        return len(self._held)

    @overload
    def __getitem__(self, at: int) -> Resolution: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Resolution]: ...
    def __getitem__(self, at: int | slice) -> Resolution | Sequence[Resolution]:
        places = range(len(self._held))[at]
        if isinstance(places, int):
            [fields] = self._held.part(places, places + 1)
            return _resolution(fields)
        if places.step == 1:
            return [_resolution(fields) for fields in self._held.part(places.start, places.stop)]
        return [self[place] for place in places]


def _resolution(fields: ResolutionFields) -> Resolution:
    return Resolution(*fields)  # type: ignore[arg-type] # a slug is text


def _unsendable(resolution: Resolution) -> Row:
    return resolution.slug, resolution.version, resolution.epoch, 0, None, 0, 0, 0.0, None


def _row(entry: L1Entry[Response]) -> Row:
    """Return *entry* as the front takes it: its answer, and what else its resolution says."""
    resolution, answer = entry.resolution, entry.answer
    status, location = answer.status, None
    if answer.is_visit:
        location = answer.headers[0][1]  # `render` puts the target first
    elif answer.stands_for:
        # `page_of` puts the page first.
        status, location = answer.stands_for, answer.headers[0][1]
    marks = (
        resolution.forward_query
        + 2 * resolution.override_query
        + 4 * resolution.metered
        + 8 * is_large(resolution)
    )
    target = location if answer.is_visit else None
    return (
        resolution.slug,
        resolution.version,
        resolution.epoch,
        status,
        location,
        resolution.redirect_code,
        marks,
        entry.fresh_until,
        _rare(resolution, answer, None if target == resolution.long_url else resolution.long_url),
    )


def _rare(resolution: Resolution, answer: Response, unsent_target: str | None) -> Rare | None:
    """Return what few links have, or None; texts stand there apart where they are not sent as they are."""
    valid = resolution.valid_from, resolution.expires_at
    expired_url, robots_rule, spends = resolution.expired_url, resolution.robots, resolution.spends
    if (unsent_target, expired_url, robots_rule, spends, *valid) == _NOTHING_RARE:
        return None
    robots = None
    if robots_rule is not None:
        robots = next((value for name, value in answer.headers if name == ROBOTS), None)
    expired = None if answer.exhausted is None else answer.exhausted.headers[0][1]
    texts = (
        unsent_target,
        None if expired == expired_url else expired_url,
        None if robots == robots_rule else robots_rule,
    )
    return robots, expired, spends, valid, texts


_NOTHING_RARE = (None,) * 6
