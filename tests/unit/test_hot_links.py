from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug
from app.service import hot_links
from app.service.hot_links import HotLinks
from tests.conftest import ManualTime

SLUGS = [Slug("aaa"), Slug("bbb")]


def cache(monotonic, wall=lambda: 0.0):
    return HotLinks(lambda resolution, _: resolution.version, monotonic=monotonic, wall=wall)


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


def test_it_is_bounded_and_the_oldest_leaves_first(monotonic, monkeypatch):
    monkeypatch.setattr(hot_links, "MAX_ENTRIES", 2)
    hot = cache(monotonic)
    for name in ("aaa", "bbb", "ccc"):
        hot.put(Resolution(Slug(name), 1))

    assert [hot.get(name) is not None for name in ("aaa", "bbb", "ccc")] == [False, True, True]


class NeverOlderThanHeard(RuleBasedStateMachine):
    """Whatever the order of reads, changes and waits: nothing older than a change heard of is kept."""

    def __init__(self):
        super().__init__()
        self.time = ManualTime()
        self.hot = cache(self.time)
        self.heard = dict.fromkeys(SLUGS, 0)

    @rule(slug=st.sampled_from(SLUGS), version=st.integers(0, 6))
    def read(self, slug, version):
        self.hot.put(Resolution(slug, version))

    @rule(slug=st.sampled_from(SLUGS), version=st.integers(1, 6))
    def change(self, slug, version):
        self.hot.on_changes([LinkChanged(slug, version)])
        self.heard[slug] = max(self.heard[slug], version)

    @rule(seconds=st.sampled_from([0.5, 1.9]))
    def wait(self, seconds):
        self.time.now += seconds
        if self.time.now > 1000 + hot_links.FLOOR_TTL_S:
            # Floors lapse: no read is under way for that long. Another process begins.
            self.__init__()

    @invariant()
    def nothing_old(self):
        for slug in SLUGS:
            entry = self.hot.get(slug)
            assert entry is None or entry.resolution.version >= self.heard[slug]


TestNeverOlderThanHeard = NeverOlderThanHeard.TestCase
