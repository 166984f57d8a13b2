"""What the L1 cache tells a data plane: at every moment, exactly what it would answer itself."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug
from app.service import l1_cache
from app.service.l1_cache import L1Cache
from tests.conftest import ManualTime

SLUGS = [Slug("aaa"), Slug("bbb"), Slug("ccc")]
URL = "https://example.com/"


class Table:
    """The contract of `HotTable` in a dictionary."""

    def __init__(self):
        self.held: dict[str, tuple[int, float]] = {}
        self.clicks: Counter[str] = Counter()

    def put(self, slug, answer, free_until):
        self.held[slug] = answer, free_until

    def remove(self, slug):
        self.held.pop(slug, None)

    def clear(self):
        self.held.clear()

    def take_clicks(self):
        taken, self.clicks = list(self.clicks.items()), Counter()
        return taken

    def answers(self, now: float) -> dict[str, int]:
        return {slug: answer for slug, (answer, free_until) in self.held.items() if now < free_until}


def cache(monotonic, table, **options):
    return L1Cache(
        lambda resolution, _: resolution.version,
        monotonic=monotonic,
        wall=lambda: 0.0,
        random=lambda: 0.0,
        hot=table,
        **options,
    )


class SameAnswers(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.time, self.table = ManualTime(), Table()
        self.l1 = cache(self.time, self.table)

    @rule(slug=st.sampled_from(SLUGS), version=st.integers(0, 4), metered=st.booleans())
    def read(self, slug, version, metered):
        self.l1.put(Resolution(slug, version, URL if version else None, metered=metered and version > 0))

    @rule(slug=st.sampled_from(SLUGS), version=st.integers(1, 4))
    def change(self, slug, version):
        self.l1.on_changes([LinkChanged(slug, version)])

    @rule(slug=st.sampled_from(SLUGS), version=st.integers(1, 4))
    def change_of_its_own(self, slug, version):
        self.l1.replace([Resolution(slug, version, URL)])

    @rule()
    def gap(self):
        self.l1.on_gap()

    @rule(epoch=st.integers(0, 2))
    def epoch(self, epoch):
        self.l1.begin_epoch(epoch)

    @rule(slug=st.sampled_from(SLUGS))
    def stale(self, slug):
        self.l1.stale(slug)

    @rule(seconds=st.sampled_from([0.5, 1.9, 400.0]))
    def wait(self, seconds):
        self.time.now += seconds

    @invariant()
    def table_answers_what_the_cache_would(self):
        entries = {slug: self.l1.peek(slug) for slug in SLUGS}
        free = {
            slug: entry.answer
            for slug, entry in entries.items()
            if entry is not None and self.time.now < entry.free_until
        }

        assert self.table.answers(self.time.now) == free


TestSameAnswers = SameAnswers.TestCase


@pytest.mark.parametrize(
    ("limit", "links"),
    [
        ("MAX_ENTRIES", [Resolution(slug, 1, URL) for slug in SLUGS]),
        ("MAX_ABSENT", [Resolution.absent(slug) for slug in SLUGS]),
        ("MAX_LONG", [Resolution(slug, 1, URL + "a" * 2048) for slug in SLUGS]),
    ],
)
def test_evicted_entry_leaves_the_table(monotonic, monkeypatch, limit, links):
    monkeypatch.setattr(l1_cache, limit, 2)
    table = Table()
    l1 = cache(monotonic, table)

    for link in links:
        l1.put(link)

    assert list(table.held) == ["bbb", "ccc"]


def test_clicks_of_the_table_are_reported_with_those_of_the_cache(monotonic):
    clicked: Counter[Slug] = Counter()
    table = Table()
    l1 = cache(monotonic, table, clicked=lambda slug, n: clicked.update({slug: n}))
    l1.put(Resolution(SLUGS[0], 1, URL)).clicks += 1
    table.clicks.update({"aaa": 2, "bbb": 1})

    l1.collect()
    l1.collect()

    assert clicked == {"aaa": 3, "bbb": 1}
