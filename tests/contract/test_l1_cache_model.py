"""Both L1 caches side by side: each call has the same outcome, whatever came before."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug
from app.service import l1_cache
from app.service.l1_cache import L1Bounds, L1Entry
from app.web import errors
from app.web.redirects import render
from tests.conftest import ManualTime
from tests.contract.l1_caches import KINDS

# In the long profile.
pytestmark = pytest.mark.timeout(900)

SLUGS = [Slug(slug) for slug in ("aaa", "bbb", "ccc", "ddd", "eee", "fff", "~1~ggg")]
BLOCKED = errors.blocked("http://hop.example/")
# Entries are evicted, minimum versions are not: the two caches count those differently.
BOUNDS = L1Bounds(entries=5, absent=2, long=2, min_versions=10_000)

slugs = st.sampled_from(SLUGS)
epochs = st.sampled_from([0, 0, 0, 1])
urls = st.sampled_from([f"https://example.com/{path}" for path in ("a", "b", "a|b", "long" * 600)])
# Unix seconds around the time of the machine, which begins at 1,000.
edges = st.none() | st.sampled_from([900.0, 1001.0, 1002.5, 1100.0])


@st.composite
def resolutions(draw, slug=slugs):
    key, version = draw(slug), draw(st.integers(0, 4))
    if version == 0:
        return Resolution.absent(key)
    if draw(st.integers(0, 5)) == 0:
        return Resolution(key, version, epoch=draw(epochs), expired_url=draw(st.none() | urls))
    return Resolution(
        key,
        version,
        draw(urls),
        redirect_code=draw(st.sampled_from([301, 302, 307, 308])),
        forward_query=draw(st.booleans()),
        valid_from=draw(edges),
        expires_at=draw(edges),
        metered=draw(st.booleans()),
        epoch=draw(epochs),
        override_query=draw(st.booleans()),
        expired_url=draw(st.none() | urls),
        # The last one cannot be sent.
        robots=draw(st.sampled_from([None, None, None, "noindex", "no\nindex"])),
        spends=draw(st.none() | slugs),
    )


def parts(outcome):
    """Return *outcome* as what can be compared."""
    if isinstance(outcome, L1Entry):
        times = outcome.fresh_until, outcome.stale_until, outcome.free_until
        return outcome.resolution, outcome.answer, times
    if isinstance(outcome, Exception):
        return type(outcome)
    return [parts(one) for one in outcome] if isinstance(outcome, list) else outcome


class SideBySide(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.time, self.wall = ManualTime(), ManualTime()
        self.blocked: set[Slug] = set()
        self.noted: dict[str, list[LinkChanged]] = {kind: [] for kind in KINDS}
        self.clicked: dict[str, Counter[Slug]] = {kind: Counter() for kind in KINDS}
        self.caches = {
            kind: make(
                self.time,
                render=self.answer,
                wall=self.wall,
                # The same for each entry that is made at a time, however many are.
                random=lambda: self.time.now * 0.37 % 1,
                noted=self.noted[kind].append,
                clicked=lambda slug, n, kind=kind: self.clicked[kind].update({slug: n}),
                bounds=BOUNDS,
            )
            for kind, make in KINDS.items()
        }

    def answer(self, resolution, now):
        answer = render(resolution, now)
        return BLOCKED if resolution.slug in self.blocked and answer.is_visit else answer

    def both(self, call):
        outcomes = []
        for cache in self.caches.values():
            try:
                outcomes.append(parts(call(cache)))
            except Exception as error:  # noqa: BLE001 - part of the outcome
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1]
        return outcomes[0]

    @rule(resolution=resolutions())
    def offer(self, resolution):
        self.both(lambda l1: l1.accepts(resolution))
        self.both(lambda l1: l1.offer(resolution))

    @rule(resolution=resolutions())
    def put(self, resolution):
        self.both(lambda l1: l1.put(resolution))

    @rule(read=st.lists(resolutions(), max_size=6, unique_by=lambda one: one.slug))
    def offer_many(self, read):
        self.both(lambda l1: l1.offer_many(read))

    @rule(changed=st.lists(st.tuples(slugs, st.integers(1, 5), st.none() | st.just(7.0)), max_size=3))
    def change(self, changed):
        self.both(lambda l1: l1.on_changes([LinkChanged(*one) for one in changed]))

    @rule(changed=st.lists(resolutions().filter(lambda one: one.version), max_size=3))
    def replace(self, changed):
        self.both(lambda l1: l1.replace(changed))

    @rule(slug=slugs)
    def stale(self, slug):
        self.both(lambda l1: l1.stale(slug))

    @rule(slug=slugs, seconds=st.sampled_from([0.0, 0.1, 1.5]))
    def click(self, slug, seconds):
        self.time.now += seconds
        self.wall.now += seconds
        for cache in self.caches.values():
            entry = cache.get(slug)
            if entry is not None:
                if not entry.clicks:
                    cache.note_clicked(entry)
                entry.clicks += 1

    @rule()
    def collect(self):
        self.both(lambda l1: l1.collect())

    @rule(touched=st.sets(slugs))
    def block(self, touched):
        self.blocked ^= touched
        self.both(lambda l1: l1.render_again(sorted(touched)))

    @rule()
    def gap(self):
        self.both(lambda l1: l1.on_gap())

    @rule(epoch=epochs, is_told=st.booleans())
    def epoch(self, epoch, is_told):
        self.both(lambda l1: l1.begin_epoch(epoch) if is_told else l1.follow_epoch(epoch))

    @rule(seconds=st.sampled_from([0.4, 1.9, 2.0, 150.0, 299.9, 400.0]))
    def wait(self, seconds):
        self.time.now += seconds
        self.wall.now += seconds

    @invariant()
    def same_entries(self):
        self.both(lambda l1: (len(l1), sorted(l1.held(), key=lambda one: one.slug)))
        self.both(lambda l1: sorted(l1.without_target()))
        self.both(lambda l1: l1.without_fresh(SLUGS))
        for slug in SLUGS:
            self.both(lambda l1, slug=slug: l1.get(slug))

    @invariant()
    def same_reports(self):
        assert self.noted["dictionary"] == self.noted["native"]

    def teardown(self):
        for cache in self.caches.values():
            cache.collect()
        assert self.clicked["dictionary"] == self.clicked["native"]


TestSideBySide = SideBySide.TestCase


class NeverOlderThanAnnounced(RuleBasedStateMachine):
    """In any order of reads, changes and waits: nothing older than an announced change is kept."""

    make = staticmethod(KINDS["dictionary"])

    def __init__(self):
        super().__init__()
        self.begin()

    def begin(self):
        self.time = ManualTime()
        self.l1 = self.make(self.time)
        self.heard = dict.fromkeys(SLUGS[:2], 0)

    @rule(slug=st.sampled_from(SLUGS[:2]), version=st.integers(0, 6))
    def read(self, slug, version):
        self.l1.put(Resolution(slug, version, "https://example.com/" if version else None))

    @rule(slug=st.sampled_from(SLUGS[:2]), version=st.integers(1, 6))
    def change(self, slug, version):
        self.l1.on_changes([LinkChanged(slug, version)])
        self.heard[slug] = max(self.heard[slug], version)

    @rule(slug=st.sampled_from(SLUGS[:2]), version=st.integers(1, 6))
    def change_of_its_own(self, slug, version):
        self.l1.replace([Resolution(slug, version, "https://example.com/")])
        self.heard[slug] = max(self.heard[slug], version)

    @rule()
    def gap(self):
        self.l1.on_gap()

    @rule(slug=st.sampled_from(SLUGS[:2]))
    def no_source_answers(self, slug):
        entry = self.l1.stale(slug)
        assert entry is None or entry.resolution.version >= max(1, self.heard[slug])

    @rule(seconds=st.sampled_from([0.5, 1.9, 100.0]))
    def wait(self, seconds):
        self.time.now += seconds
        if self.time.now >= 1000 + l1_cache.MIN_VERSION_TTL_S:
            # Minimum versions lapse: no read is under way for that long. Another process begins.
            self.begin()

    @invariant()
    def nothing_old(self):
        for slug in SLUGS[:2]:
            entry = self.l1.get(slug)
            assert entry is None or entry.resolution.version >= self.heard[slug]


class NativeNeverOlderThanAnnounced(NeverOlderThanAnnounced):
    make = staticmethod(KINDS["native"])


TestNeverOlderThanAnnounced = NeverOlderThanAnnounced.TestCase
TestNativeNeverOlderThanAnnounced = NativeNeverOlderThanAnnounced.TestCase
