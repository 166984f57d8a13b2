from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug, State
from app.service import hot_links
from app.service.hot_links import HotLinks
from tests.conftest import ManualTime

SLUGS = [Slug("aaa"), Slug("bbb")]


def cache(monotonic, wall=lambda: 0.0):
    return HotLinks(
        lambda resolution, _: resolution.version, monotonic=monotonic, wall=wall, random=lambda: 0.0
    )


def test_an_entry_is_served_until_two_seconds_have_passed(monotonic):
    hot = cache(monotonic)
    hot.put(Resolution(SLUGS[0], 3))

    monotonic.now += hot_links.TTL_S - 0.001
    assert hot.get("aaa").answer == 3
    monotonic.now += 0.001
    assert hot.get("aaa") is None


def test_an_entry_ends_when_the_link_changes_state(monotonic):
    """A link that expires in half a second must not be served for two."""
    hot = cache(monotonic, wall=lambda: 100.0)
    hot.put(Resolution(SLUGS[0], 1, "https://example.com/", expires_at=100.5))

    monotonic.now += 0.5

    assert hot.get("aaa") is None


def test_an_older_read_that_comes_back_after_a_change_is_answered_but_not_kept(monotonic):
    hot = cache(monotonic)
    hot.on_changes([LinkChanged(SLUGS[0], 5)])

    assert hot.put(Resolution(SLUGS[0], 4)).answer == 4
    assert hot.get("aaa") is None
    assert hot.put(Resolution(SLUGS[0], 5)).answer == 5
    assert hot.get("aaa").answer == 5


def test_a_slower_source_does_not_take_a_newer_link_back(monotonic):
    hot = cache(monotonic)
    hot.put(Resolution(SLUGS[0], 2))

    hot.put(Resolution(SLUGS[0], 1))

    assert hot.get("aaa").answer == 2


def test_an_absent_slug_is_forgotten_when_it_is_created(monotonic):
    hot = cache(monotonic)
    hot.put(Resolution.absent(SLUGS[0]))

    hot.on_changes([LinkChanged(SLUGS[0], 1)])

    assert hot.get("aaa") is None


def test_a_gap_forgets_everything(monotonic):
    hot = cache(monotonic)
    hot.put(Resolution(SLUGS[0], 1))

    hot.on_gap()

    assert hot.get("aaa") is None


def test_what_is_held_is_replaced_by_a_change_of_ones_own_and_nothing_is_added(monotonic):
    """Thousands of links that were just imported must not push out those that are visited."""
    hot = cache(monotonic)
    hot.put(Resolution(SLUGS[0], 1))

    hot.replace([Resolution(slug, 2) for slug in SLUGS])

    assert hot.get("aaa").answer == 2
    assert len(hot) == 1
    assert hot.offer(Resolution(SLUGS[1], 1)) is None


def test_a_change_of_ones_own_does_not_replace_a_later_one(monotonic):
    hot = cache(monotonic)
    hot.put(Resolution(SLUGS[0], 3))

    hot.replace([Resolution(SLUGS[0], 2)])

    assert hot.get("aaa").answer == 3


def test_a_change_of_ones_own_that_cannot_be_sent_is_dropped(monotonic):
    def render(resolution, _):
        if resolution.version == 2:
            raise ValueError
        return resolution.version

    hot = HotLinks(render, monotonic=monotonic, wall=lambda: 0.0)
    hot.put(Resolution(SLUGS[0], 1))

    hot.replace([Resolution(SLUGS[0], 2)])

    assert hot.get("aaa") is None


def test_it_is_bounded_and_the_oldest_leaves_first(monotonic, monkeypatch):
    monkeypatch.setattr(hot_links, "MAX_ENTRIES", 2)
    hot = cache(monotonic)
    for name in ("aaa", "bbb", "ccc"):
        hot.put(Resolution(Slug(name), 1))

    assert [hot.get(name) is not None for name in ("aaa", "bbb", "ccc")] == [False, True, True]


def test_what_was_loaded_together_does_not_expire_together(monotonic):
    draws = iter([0.0, 0.5, 0.999])
    hot = HotLinks(lambda *_: None, monotonic=monotonic, wall=lambda: 0.0, random=lambda: next(draws))

    ends = [hot.put(Resolution(Slug(name), 1)).fresh_until - monotonic() for name in ("aaa", "bbb", "ccc")]

    assert ends[0] == hot_links.TTL_S
    assert hot_links.TTL_S * (1 - hot_links.JITTER) < ends[2] < ends[1] < ends[0]


# --- stale entries -----------------------------------------------------------------------

LIVE = Resolution(SLUGS[0], 1, "https://example.com/")


def test_a_stale_entry_is_fresh_once_more_until_its_time_is_over(monotonic):
    hot = cache(monotonic)
    hot.put(LIVE)

    for _ in range(int(hot_links.STALE_S / hot_links.TTL_S)):
        monotonic.now += hot_links.TTL_S - 0.001
        assert hot.stale("aaa").answer == 1
        assert hot.get("aaa").answer == 1
    monotonic.now += hot_links.TTL_S
    assert hot.stale("aaa") is None


def test_a_link_is_not_served_stale_past_its_own_end(monotonic):
    wall = ManualTime(100.0)
    hot = cache(monotonic, wall)
    hot.put(replace(LIVE, expires_at=110.0))

    wall.now, monotonic.now = 109.5, monotonic.now + 9.5
    assert hot.stale("aaa").fresh_until == monotonic.now + 0.5
    wall.now, monotonic.now = 110.0, monotonic.now + 0.5
    assert hot.get("aaa") is None
    assert hot.stale("aaa") is None


def test_a_link_that_began_meanwhile_is_rendered_as_what_it_is_now(monotonic):
    wall = ManualTime(100.0)
    hot = HotLinks(lambda resolution, now: resolution.state(now), monotonic=monotonic, wall=wall)
    hot.put(replace(LIVE, valid_from=101.0))

    wall.now, monotonic.now = 103.0, monotonic.now + 3.0

    assert hot.stale("aaa").answer is State.LIVE


@pytest.mark.parametrize("resolution", [Resolution(SLUGS[0], 2), Resolution.absent(SLUGS[0])])
def test_what_is_gone_or_absent_is_not_said_from_a_stale_entry(monotonic, resolution):
    """404 needs proof, and 410 may have been taken back."""
    hot = cache(monotonic)
    hot.put(resolution)

    assert hot.stale("aaa") is None


def test_nothing_stale_is_served_after_a_change_or_a_gap(monotonic):
    hot = cache(monotonic)
    for slug in SLUGS:
        hot.put(Resolution(slug, 1, "https://example.com/"))
    monotonic.now += 2 * hot_links.TTL_S

    hot.on_changes([LinkChanged(SLUGS[0], 2)])
    assert hot.stale("aaa") is None
    assert hot.stale("bbb") is not None
    hot.on_gap()
    assert hot.stale("bbb") is None


def test_an_older_version_does_not_replace_a_newer_stale_one(monotonic):
    hot = cache(monotonic)
    hot.put(replace(LIVE, version=2))
    monotonic.now += hot_links.STALE_S - 1

    assert not hot.accepts(LIVE)
    hot.put(LIVE)

    assert hot.stale("aaa").resolution.version == 2


def test_what_is_held_is_not_replaced_by_an_older_copy_though_its_floor_was_pushed_out(
    monotonic, monkeypatch
):
    monkeypatch.setattr(hot_links, "MAX_ENTRIES", 2)
    hot = cache(monotonic)
    hot.put(replace(LIVE, version=2))
    hot.on_changes([LinkChanged(Slug(f"other{number}"), 1) for number in range(3)])

    assert hot.offer(LIVE) is None


def test_a_scan_pushes_out_its_own_guesses_and_no_link(monotonic, monkeypatch):
    monkeypatch.setattr(hot_links, "MAX_ABSENT", 2)
    hot = cache(monotonic)
    hot.put(LIVE)
    # One of them is created meanwhile.
    hot.put(Resolution.absent(Slug("guess-0")))
    hot.put(Resolution(Slug("guess-0"), 1))
    for number in range(1, 10):
        hot.put(Resolution.absent(Slug(f"guess-{number}")))

    assert len(hot) == 4
    assert hot.get("aaa") is not None
    assert [hot.get(f"guess-{number}") is not None for number in (0, 7, 8, 9)] == [True, False, True, True]


# --- clicks ----------------------------------------------------------------------------


def counting(monotonic):
    clicked = Counter()
    hot = HotLinks(
        lambda resolution, _: None,
        monotonic=monotonic,
        wall=lambda: 0.0,
        clicked=lambda slug, n: clicked.update({slug: n}),
    )
    return hot, clicked


def test_clicks_are_reported_once(monotonic):
    hot, clicked = counting(monotonic)
    entry = hot.put(Resolution(SLUGS[0], 1))
    entry.clicks += 2

    hot.harvest()
    hot.harvest()
    entry.clicks += 1
    hot.harvest()

    assert clicked == {"aaa": 3}


def test_clicks_outlive_their_entry(monotonic):
    """Whatever takes an entry away: time, a newer one, a change, a gap."""
    hot, clicked = counting(monotonic)
    for version, take_away in enumerate(
        (
            lambda: None,
            lambda: hot.put(Resolution(SLUGS[0], 3)),
            lambda: hot.on_changes([LinkChanged(SLUGS[0], 4)]),
            hot.on_gap,
            lambda: setattr(monotonic, "now", monotonic.now + hot_links.TTL_S),
        ),
        1,
    ):
        hot.put(Resolution(SLUGS[0], version)).clicks += 1
        take_away()
    monotonic.now += 60

    hot.harvest()

    assert clicked == {"aaa": 5}


def test_entries_that_can_have_no_clicks_any_more_are_not_looked_at(monotonic):
    hot, _ = counting(monotonic)
    for n in range(10):
        hot.put(Resolution(Slug(f"slug-{n}"), 1))
    hot.harvest()
    assert len(hot._recent) == 10

    monotonic.now += hot_links.TTL_S
    hot.harvest()

    assert hot._recent == {}


def test_without_a_harvest_it_is_bounded_all_the_same(monotonic, monkeypatch):
    monkeypatch.setattr(hot_links, "MAX_ENTRIES", 2)
    hot, clicked = counting(monotonic)
    for n in range(10):
        hot.put(Resolution(Slug(f"slug-{n}"), 1)).clicks += 1
        monotonic.now += hot_links.TTL_S

    assert len(hot._recent) <= 3
    hot.harvest()
    assert clicked == {f"slug-{n}": 1 for n in range(10)}


class NeverOlderThanHeard(RuleBasedStateMachine):
    """Whatever the order of reads, changes and waits: nothing older than a change heard of is kept."""

    def __init__(self):
        super().__init__()
        self.time = ManualTime()
        self.hot = cache(self.time)
        self.heard = dict.fromkeys(SLUGS, 0)

    @rule(slug=st.sampled_from(SLUGS), version=st.integers(0, 6))
    def read(self, slug, version):
        self.hot.put(Resolution(slug, version, "https://example.com/" if version else None))

    @rule(slug=st.sampled_from(SLUGS), version=st.integers(1, 6))
    def change(self, slug, version):
        self.hot.on_changes([LinkChanged(slug, version)])
        self.heard[slug] = max(self.heard[slug], version)

    @rule(slug=st.sampled_from(SLUGS), version=st.integers(1, 6))
    def change_of_its_own(self, slug, version):
        self.hot.replace([Resolution(slug, version, "https://example.com/")])
        self.heard[slug] = max(self.heard[slug], version)

    @rule()
    def gap(self):
        self.hot.on_gap()

    @rule(slug=st.sampled_from(SLUGS))
    def nobody_can_be_asked(self, slug):
        entry = self.hot.stale(slug)
        assert entry is None or entry.resolution.version >= max(1, self.heard[slug])

    @rule(seconds=st.sampled_from([0.5, 1.9, 100.0]))
    def wait(self, seconds):
        self.time.now += seconds
        if self.time.now >= 1000 + hot_links.FLOOR_TTL_S:
            # Floors lapse: no read is under way for that long. Another process begins.
            self.__init__()

    @invariant()
    def nothing_old(self):
        for slug in SLUGS:
            entry = self.hot.get(slug)
            assert entry is None or entry.resolution.version >= self.heard[slug]


TestNeverOlderThanHeard = NeverOlderThanHeard.TestCase
