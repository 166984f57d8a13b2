"""What the L1 cache tells a data plane: at every moment, exactly the fresh entries that it holds."""

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
        self.sent_once: list[tuple[str, int]] = []
        self.clicks: Counter[str] = Counter()
        self.puts: list[int] = []

    def put_many(self, entries, now):
        self.puts.append(len(entries))
        for entry in entries:
            assert now < entry.fresh_until
            self.held[entry.resolution.slug] = entry.answer, entry.fresh_until

    def send_once(self, entry):
        self.sent_once.append((entry.resolution.slug, entry.answer))

    def remove(self, slug):
        self.held.pop(slug, None)

    def clear(self):
        self.held.clear()

    def take_clicks(self):
        taken, self.clicks = list(self.clicks.items()), Counter()
        return taken

    def answers(self, now: float) -> dict[str, int]:
        return {slug: answer for slug, (answer, fresh_until) in self.held.items() if now < fresh_until}


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

    @rule(versions=st.lists(st.integers(0, 4), min_size=3, max_size=3))
    def read_together(self, versions):
        """Each is kept, or not, as if it were read alone."""
        resolutions = [
            Resolution(slug, version, URL if version else None)
            for slug, version in zip(SLUGS, versions, strict=True)
        ]
        accepted = [self.l1.accepts(one) for one in resolutions]

        outcomes = self.l1.offer_many(resolutions)

        assert [outcome is not None for outcome in outcomes] == accepted

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
        fresh = {
            slug: entry.answer
            for slug, entry in entries.items()
            if entry is not None and self.time.now < entry.fresh_until
        }

        assert self.table.answers(self.time.now) == fresh


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


def test_batch_is_one_call_of_the_table(monotonic):
    table = Table()
    l1 = cache(monotonic, table)

    l1.offer_many([Resolution(slug, 1, URL) for slug in SLUGS])

    assert table.puts == [3]


def test_evicted_by_its_own_batch_is_sent_once(monotonic, monkeypatch):
    """Its visitors wait for it, though the table cannot keep it."""
    monkeypatch.setattr(l1_cache, "MAX_ENTRIES", 2)
    table = Table()
    l1 = cache(monotonic, table)

    l1.offer_many([Resolution(slug, n, URL) for n, slug in enumerate(SLUGS, 1)])

    assert table.sent_once == [("aaa", 1)]
    assert list(table.held) == ["bbb", "ccc"]


def test_outdated_answer_is_sent_once(monotonic):
    """The last source has nothing later, and visitors wait."""
    table = Table()
    l1 = cache(monotonic, table)
    l1.on_changes([LinkChanged(SLUGS[0], 5)])

    assert l1.put(Resolution(SLUGS[0], 4, URL)).answer == 4

    assert table.sent_once == [("aaa", 4)]
    assert table.held == {}


def test_link_that_cannot_be_rendered_fails_alone(monotonic):
    def render(resolution, _):
        if resolution.slug == SLUGS[1]:
            raise ValueError(resolution.slug)
        return resolution.version

    table = Table()
    l1 = L1Cache(render, monotonic=monotonic, wall=lambda: 0.0, hot=table)

    outcomes = l1.offer_many([Resolution(slug, 1, URL) for slug in SLUGS])

    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False]
    assert list(table.held) == ["aaa", "ccc"]


def test_clicks_of_the_table_are_reported_with_those_of_the_cache(monotonic):
    clicked: Counter[Slug] = Counter()
    table = Table()
    l1 = cache(monotonic, table, clicked=lambda slug, n: clicked.update({slug: n}))
    entry = l1.put(Resolution(SLUGS[0], 1, URL))
    l1.note_clicked(entry)
    entry.clicks += 1
    table.clicks.update({"aaa": 2, "bbb": 1})

    l1.collect()
    l1.collect()

    assert clicked == {"aaa": 3, "bbb": 1}
