from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from app.domain.events import LinkChanged
from app.domain.link import LinkState, Resolution, Slug
from app.service import l1_cache
from app.service.l1_cache import L1Cache
from tests.conftest import ManualTime

SLUGS = [Slug("aaa"), Slug("bbb")]


def cache(monotonic, wall=lambda: 0.0):
    return L1Cache(
        lambda resolution, _: resolution.version, monotonic=monotonic, wall=wall, random=lambda: 0.0
    )


def test_entry_is_fresh_for_two_seconds(monotonic):
    l1 = cache(monotonic)
    l1.put(Resolution(SLUGS[0], 3))

    monotonic.now += l1_cache.TTL_S - 0.001
    assert l1.get("aaa").answer == 3
    monotonic.now += 0.001
    assert l1.get("aaa") is None


def test_entry_ends_when_the_link_changes_state(monotonic):
    """A link that expires in half a second must not be served for two."""
    l1 = cache(monotonic, wall=lambda: 100.0)
    l1.put(Resolution(SLUGS[0], 1, "https://example.com/", expires_at=100.5))

    monotonic.now += 0.5

    assert l1.get("aaa") is None


def test_read_overtaken_by_a_change_is_not_kept(monotonic):
    l1 = cache(monotonic)
    l1.on_changes([LinkChanged(SLUGS[0], 5)])

    assert l1.put(Resolution(SLUGS[0], 4)).answer == 4
    assert l1.get("aaa") is None
    assert l1.put(Resolution(SLUGS[0], 5)).answer == 5
    assert l1.get("aaa").answer == 5


def test_change_is_noted_when_it_is_new(monotonic):
    """Not what this process committed itself, nor what was announced or read before."""
    noted: list[LinkChanged] = []
    l1 = L1Cache(lambda resolution, _: 0, monotonic=monotonic, wall=lambda: 0.0, noted=noted.append)
    first, second = LinkChanged(SLUGS[0], 5, 1.0), LinkChanged(SLUGS[0], 6, 2.0)

    l1.on_changes([first])
    l1.on_changes([first, second])
    l1.replace([Resolution(SLUGS[1], 3)])
    l1.on_changes([LinkChanged(SLUGS[1], 3, 3.0)])

    assert noted == [first, second]
    assert [change.committed_at for change in noted] == [1.0, 2.0]


def test_lagging_source_does_not_replace_a_newer_link(monotonic):
    l1 = cache(monotonic)
    l1.put(Resolution(SLUGS[0], 2))

    l1.put(Resolution(SLUGS[0], 1))

    assert l1.get("aaa").answer == 2


def test_absent_entry_is_dropped_on_create(monotonic):
    l1 = cache(monotonic)
    l1.put(Resolution.absent(SLUGS[0]))

    l1.on_changes([LinkChanged(SLUGS[0], 1)])

    assert l1.get("aaa") is None


def test_gap_drops_every_entry(monotonic):
    l1 = cache(monotonic)
    l1.put(Resolution(SLUGS[0], 1))

    l1.on_gap()

    assert l1.get("aaa") is None


def test_own_change_replaces_held_entries_only(monotonic):
    """An import of thousands of links must not evict links that are visited."""
    l1 = cache(monotonic)
    l1.put(Resolution(SLUGS[0], 1))

    l1.replace([Resolution(slug, 2) for slug in SLUGS])

    assert l1.get("aaa").answer == 2
    assert len(l1) == 1
    assert l1.offer(Resolution(SLUGS[1], 1)) is None


def test_own_change_does_not_replace_a_later_version(monotonic):
    l1 = cache(monotonic)
    l1.put(Resolution(SLUGS[0], 3))

    l1.replace([Resolution(SLUGS[0], 2)])

    assert l1.get("aaa").answer == 3


def test_own_change_that_cannot_be_sent_is_dropped(monotonic):
    def render(resolution, _):
        if resolution.version == 2:
            raise ValueError
        return resolution.version

    l1 = L1Cache(render, monotonic=monotonic, wall=lambda: 0.0)
    l1.put(Resolution(SLUGS[0], 1))

    l1.replace([Resolution(SLUGS[0], 2)])

    assert l1.get("aaa") is None


def test_oldest_entry_is_evicted_first(monotonic, monkeypatch):
    monkeypatch.setattr(l1_cache, "MAX_ENTRIES", 2)
    l1 = cache(monotonic)
    for name in ("aaa", "bbb", "ccc"):
        l1.put(Resolution(Slug(name), 1))

    assert [l1.get(name) is not None for name in ("aaa", "bbb", "ccc")] == [False, True, True]


def test_times_to_live_are_jittered(monotonic):
    draws = iter([0.0, 0.5, 0.999])
    l1 = L1Cache(lambda *_: None, monotonic=monotonic, wall=lambda: 0.0, random=lambda: next(draws))

    ends = [l1.put(Resolution(Slug(name), 1)).fresh_until - monotonic() for name in ("aaa", "bbb", "ccc")]

    assert ends[0] == l1_cache.TTL_S
    assert l1_cache.TTL_S * (1 - l1_cache.JITTER) < ends[2] < ends[1] < ends[0]


# --- stale entries -----------------------------------------------------------------------

LIVE = Resolution(SLUGS[0], 1, "https://example.com/")


def test_stale_entry_is_renewed_until_its_limit(monotonic):
    l1 = cache(monotonic)
    l1.put(LIVE)

    for _ in range(int(l1_cache.STALE_S / l1_cache.TTL_S)):
        monotonic.now += l1_cache.TTL_S - 0.001
        assert l1.stale("aaa").answer == 1
        assert l1.get("aaa").answer == 1
    monotonic.now += l1_cache.TTL_S
    assert l1.stale("aaa") is None


def test_expired_link_is_not_served_stale(monotonic):
    wall = ManualTime(100.0)
    l1 = cache(monotonic, wall)
    l1.put(replace(LIVE, expires_at=110.0))

    wall.now, monotonic.now = 109.5, monotonic.now + 9.5
    assert l1.stale("aaa").fresh_until == monotonic.now + 0.5
    wall.now, monotonic.now = 110.0, monotonic.now + 0.5
    assert l1.get("aaa") is None
    assert l1.stale("aaa") is None


def test_stale_entry_is_rendered_anew(monotonic):
    wall = ManualTime(100.0)
    l1 = L1Cache(lambda resolution, now: resolution.state(now), monotonic=monotonic, wall=wall)
    l1.put(replace(LIVE, valid_from=101.0))

    wall.now, monotonic.now = 103.0, monotonic.now + 3.0

    entry = l1.stale("aaa")
    assert entry is not None
    assert entry.answer is LinkState.LIVE


@pytest.mark.parametrize("resolution", [Resolution(SLUGS[0], 2), Resolution.absent(SLUGS[0])])
def test_gone_and_absent_are_not_served_stale(monotonic, resolution):
    """404 needs proof from the store, and a disabled link may be enabled again."""
    l1 = cache(monotonic)
    l1.put(resolution)

    assert l1.stale("aaa") is None


def test_change_or_gap_ends_stale_entries(monotonic):
    l1 = cache(monotonic)
    for slug in SLUGS:
        l1.put(Resolution(slug, 1, "https://example.com/"))
    monotonic.now += 2 * l1_cache.TTL_S

    l1.on_changes([LinkChanged(SLUGS[0], 2)])
    assert l1.stale("aaa") is None
    assert l1.stale("bbb") is not None
    l1.on_gap()
    assert l1.stale("bbb") is None


def test_older_version_keeps_a_newer_stale_entry(monotonic):
    l1 = cache(monotonic)
    l1.put(replace(LIVE, version=2))
    monotonic.now += l1_cache.STALE_S - 1

    assert not l1.accepts(LIVE)
    l1.put(LIVE)

    assert l1.stale("aaa").resolution.version == 2


def test_older_copy_is_rejected_without_a_minimum_version(monotonic, monkeypatch):
    monkeypatch.setattr(l1_cache, "MAX_ENTRIES", 2)
    l1 = cache(monotonic)
    l1.put(replace(LIVE, version=2))
    l1.on_changes([LinkChanged(Slug(f"other{number}"), 1) for number in range(3)])

    assert l1.offer(LIVE) is None


def test_scan_evicts_its_own_guesses_only(monotonic, monkeypatch):
    monkeypatch.setattr(l1_cache, "MAX_ABSENT", 2)
    l1 = cache(monotonic)
    l1.put(LIVE)
    # One of them is created meanwhile.
    l1.put(Resolution.absent(Slug("guess-0")))
    l1.put(Resolution(Slug("guess-0"), 1))
    for number in range(1, 10):
        l1.put(Resolution.absent(Slug(f"guess-{number}")))

    assert len(l1) == 4
    assert l1.get("aaa") is not None
    assert [l1.get(f"guess-{number}") is not None for number in (0, 7, 8, 9)] == [True, False, True, True]


def test_long_targets_evict_each_other_only(monotonic, monkeypatch):
    """All entries with the longest target would be half a gigabyte."""
    monkeypatch.setattr(l1_cache, "MAX_LONG", 2)
    l1 = cache(monotonic)
    l1.put(LIVE)
    for number in range(5):
        l1.put(Resolution(Slug(f"long-{number}"), 1, "https://example.com/" + "a" * 2029))
    l1.put(Resolution(Slug("short"), 1, "https://example.com/" + "a" * 2028))

    held = [slug for slug in ("aaa", "short", *(f"long-{number}" for number in range(5))) if l1.get(slug)]
    assert held == ["aaa", "short", "long-3", "long-4"]


# --- clicks ----------------------------------------------------------------------------


def counting(monotonic):
    clicked: Counter[Slug] = Counter()
    l1 = L1Cache(
        lambda resolution, _: None,
        monotonic=monotonic,
        wall=lambda: 0.0,
        clicked=lambda slug, n: clicked.update({slug: n}),
    )
    return l1, clicked


def click(l1, entry):
    """As `RedirectHandler.answer_from_l1` does."""
    if not entry.clicks:
        l1.note_clicked(entry)
    entry.clicks += 1


def test_clicks_are_reported_once(monotonic):
    l1, clicked = counting(monotonic)
    entry = l1.put(Resolution(SLUGS[0], 1))
    click(l1, entry)
    click(l1, entry)

    l1.collect()
    l1.collect()
    click(l1, entry)
    l1.collect()

    assert clicked == {"aaa": 3}


def test_clicks_outlive_their_entry(monotonic):
    """An entry ends by time, by a newer one, by a change or by a gap."""
    l1, clicked = counting(monotonic)
    for version, take_away in enumerate(
        (
            lambda: None,
            lambda: l1.put(Resolution(SLUGS[0], 3)),
            lambda: l1.on_changes([LinkChanged(SLUGS[0], 4)]),
            l1.on_gap,
            lambda: setattr(monotonic, "now", monotonic.now + l1_cache.TTL_S),
        ),
        1,
    ):
        click(l1, l1.put(Resolution(SLUGS[0], version)))
        take_away()
    monotonic.now += 60

    l1.collect()

    assert clicked == {"aaa": 5}


def test_clicked_entries_are_bounded_without_collect(monotonic, monkeypatch):
    monkeypatch.setattr(l1_cache, "MAX_ENTRIES", 2)
    l1, clicked = counting(monotonic)
    for n in range(10):
        click(l1, l1.put(Resolution(Slug(f"slug-{n}"), 1)))

    assert len(l1._clicked_entries) <= 3
    l1.collect()
    assert clicked == {f"slug-{n}": 1 for n in range(10)}


class NeverOlderThanAnnounced(RuleBasedStateMachine):
    """In any order of reads, changes and waits: nothing older than an announced change is kept."""

    def __init__(self):
        super().__init__()
        self.begin()

    def begin(self):
        self.time = ManualTime()
        self.l1 = cache(self.time)
        self.heard = dict.fromkeys(SLUGS, 0)

    @rule(slug=st.sampled_from(SLUGS), version=st.integers(0, 6))
    def read(self, slug, version):
        self.l1.put(Resolution(slug, version, "https://example.com/" if version else None))

    @rule(slug=st.sampled_from(SLUGS), version=st.integers(1, 6))
    def change(self, slug, version):
        self.l1.on_changes([LinkChanged(slug, version)])
        self.heard[slug] = max(self.heard[slug], version)

    @rule(slug=st.sampled_from(SLUGS), version=st.integers(1, 6))
    def change_of_its_own(self, slug, version):
        self.l1.replace([Resolution(slug, version, "https://example.com/")])
        self.heard[slug] = max(self.heard[slug], version)

    @rule()
    def gap(self):
        self.l1.on_gap()

    @rule(slug=st.sampled_from(SLUGS))
    def nobody_can_be_asked(self, slug):
        entry = self.l1.stale(slug)
        assert entry is None or entry.resolution.version >= max(1, self.heard[slug])

    @rule(seconds=st.sampled_from([0.5, 1.9, 100.0]))
    def wait(self, seconds):
        self.time.now += seconds
        if self.time.now >= 1000 + l1_cache.MIN_VERSION_TTL_S:
            # Floors lapse: no read is under way for that long. Another process begins.
            self.begin()

    @invariant()
    def nothing_old(self):
        for slug in SLUGS:
            entry = self.l1.get(slug)
            assert entry is None or entry.resolution.version >= self.heard[slug]


TestNeverOlderThanAnnounced = NeverOlderThanAnnounced.TestCase
