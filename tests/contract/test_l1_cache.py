"""
What every L1 cache does: that of dictionaries, and the table of a front.

One file: it is the contract of `app.service.l1_cache.L1`, in the order of the life of an entry.
"""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug
from app.service import l1_cache
from app.service.l1_cache import L1Bounds
from app.web.redirects import render
from app.web.response import UnsendableHeader
from tests.conftest import ManualTime
from tests.contract.l1_caches import KINDS, MakeL1

URL = "https://example.com/"
SLUGS = [Slug("aaa"), Slug("bbb")]
LIVE = Resolution(SLUGS[0], 1, URL)


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> MakeL1:
    return KINDS[request.param]


@pytest.fixture
def l1(make, monotonic):
    return make(monotonic)


def version(entry):
    return None if entry is None else entry.resolution.version


def test_entry_is_fresh_for_two_seconds(l1, monotonic):
    l1.put(replace(LIVE, version=3))

    monotonic.now += l1_cache.TTL_S - 0.001
    assert version(l1.get("aaa")) == 3
    assert l1.without_fresh(SLUGS) == ["bbb"]
    monotonic.now += 0.001
    assert l1.get("aaa") is None
    assert l1.without_fresh(SLUGS) == SLUGS


@pytest.mark.parametrize(
    "resolution",
    [
        LIVE,
        Resolution.absent(SLUGS[0]),
        Resolution(SLUGS[0], 2, epoch=-7),
        Resolution(SLUGS[0], 2, expired_url=f"{URL}over", robots="noindex"),
        replace(LIVE, version=2**40, epoch=2**62, redirect_code=308, forward_query=True, override_query=True),
        replace(LIVE, override_query=True, metered=True, spends=Slug("~1~bbb"), robots="none"),
        replace(LIVE, metered=True, expired_url=f"{URL}over"),
        replace(LIVE, valid_from=-5.5, expires_at=100.25, expired_url=f"{URL}over"),
        replace(LIVE, valid_from=50.0, metered=True, redirect_code=301, robots="none", expired_url=URL),
        replace(LIVE, expires_at=-1.0, long_url=f"{URL}{'a' * 3000}", spends=SLUGS[1]),
        replace(LIVE, slug=Slug("ключ/ß"), long_url="https://example.com/a|b"),
        # Nothing is sent of it yet.
        replace(LIVE, valid_from=50.0, robots="no\nindex"),
    ],
)
def test_entry_is_the_resolution_and_its_answer(l1, resolution):
    kept = l1.put(resolution)

    entry = l1.get(resolution.slug)

    assert entry.resolution == kept.resolution == resolution
    assert entry.answer == kept.answer == render(resolution, 0.0)
    assert (entry.fresh_until, entry.stale_until) == (kept.fresh_until, kept.stale_until)
    assert entry.free_until == kept.free_until == (-float("inf") if resolution.metered else entry.fresh_until)
    assert list(l1.held()) == [resolution]


def test_held_is_read_in_parts(l1):
    links = [Resolution(Slug(f"slug{number}"), 1, URL) for number in range(9)]
    l1.offer_many(links)

    held = l1.held()
    l1.on_gap()

    assert (len(held), held[2], held[-1]) == (9, links[2], links[8])
    assert [*held[:4], *held[4:100]] == links
    assert list(held[1:8:3]) == links[1:8:3]
    assert list(l1.held()) == []


def test_entry_ends_when_the_link_changes_state(make, monotonic):
    """A link that expires in half a second must not be served for two."""
    l1 = make(monotonic, wall=lambda: 100.0)
    l1.put(replace(LIVE, expires_at=100.5))

    monotonic.now += 0.5

    assert l1.get("aaa") is None


def test_read_overtaken_by_a_change_is_not_kept(l1):
    l1.on_changes([LinkChanged(SLUGS[0], 5)])

    assert version(l1.put(replace(LIVE, version=4))) == 4
    assert l1.get("aaa") is None
    assert version(l1.put(replace(LIVE, version=5))) == 5
    assert version(l1.get("aaa")) == 5


def test_change_is_noted_when_it_is_new(make, monotonic):
    """Not what this process committed itself, nor what was announced or read before."""
    noted: list[LinkChanged] = []
    l1 = make(monotonic, noted=noted.append)
    first, second = LinkChanged(SLUGS[0], 5, 1.0), LinkChanged(SLUGS[0], 6, 2.0)

    l1.on_changes([first])
    l1.on_changes([first, second])
    l1.replace([Resolution(SLUGS[1], 3)])
    l1.on_changes([LinkChanged(SLUGS[1], 3, 3.0)])
    l1.put(Resolution(Slug("ccc"), 4))
    l1.on_changes([LinkChanged(Slug("ccc"), 4, 4.0)])

    assert noted == [first, second]
    assert [change.committed_at for change in noted] == [1.0, 2.0]


def test_lagging_source_does_not_replace_a_newer_link(l1):
    l1.put(replace(LIVE, version=2))

    l1.put(LIVE)

    assert version(l1.get("aaa")) == 2


def test_absent_entry_is_dropped_on_create(l1):
    l1.put(Resolution.absent(SLUGS[0]))

    l1.on_changes([LinkChanged(SLUGS[0], 1)])

    assert l1.get("aaa") is None


def test_gap_drops_every_entry_and_no_minimum_version(l1):
    l1.put(replace(LIVE, version=2))

    l1.on_gap()

    assert l1.get("aaa") is None
    assert not l1.accepts(LIVE)


def test_own_change_replaces_held_entries_only(l1):
    """An import of thousands of links must not evict links that are visited."""
    l1.put(LIVE)

    l1.replace([Resolution(slug, 2, URL) for slug in SLUGS])

    assert version(l1.get("aaa")) == 2
    assert len(l1) == 1
    assert l1.offer(Resolution(SLUGS[1], 1, URL)) is None


def test_own_change_does_not_replace_a_later_version(l1):
    l1.put(replace(LIVE, version=3))

    l1.replace([replace(LIVE, version=2)])

    assert version(l1.get("aaa")) == 3


UNSENDABLE = replace(LIVE, version=2, robots="no\nindex")


def test_own_change_that_cannot_be_sent_is_dropped(l1):
    l1.put(LIVE)

    l1.replace([UNSENDABLE])

    assert l1.get("aaa") is None


def test_link_that_cannot_be_sent_fails_alone(l1):
    l1.put(LIVE)

    outcomes = l1.offer_many([Resolution(SLUGS[1], 1, URL), UNSENDABLE, Resolution(Slug("ccc"), 1, URL)])

    assert [type(outcome) for outcome in outcomes] == [
        l1_cache.L1Entry,
        UnsendableHeader,
        l1_cache.L1Entry,
    ]
    assert len(l1) == 2
    assert l1.offer(LIVE) is None, "what it was before"
    with pytest.raises(UnsendableHeader):
        l1.offer(UNSENDABLE)


def test_answers_are_rendered_again(make, monotonic):
    fails: set[str] = set()

    def answer(resolution, now):
        if resolution.slug in fails:
            raise ValueError
        return render(resolution, now if "late" not in fails else 200.0)

    l1 = make(monotonic, render=answer)
    l1.offer_many([replace(LIVE, slug=Slug(slug), valid_from=100.0) for slug in ("aaa", "bbb", "ccc")])
    end = l1.get("ccc").fresh_until

    fails |= {"late", "bbb"}
    l1.render_again([Slug("ccc"), Slug("bbb"), Slug("unknown")])

    assert l1.get("bbb") is None
    assert (l1.get("ccc").answer.status, l1.get("ccc").fresh_until) == (302, end)
    assert {one.slug for one in l1.held()} == {"aaa", "ccc"}


def test_oldest_entry_is_evicted_first(make, monotonic):
    l1 = make(monotonic, bounds=L1Bounds(entries=2))
    for name in ("aaa", "bbb", "ccc"):
        l1.put(Resolution(Slug(name), 1, URL))

    assert [l1.get(name) is not None for name in ("aaa", "bbb", "ccc")] == [False, True, True]


def test_times_to_live_are_jittered(make, monotonic):
    draws = iter([0.0, 0.5, 0.999])
    l1 = make(monotonic, random=lambda: next(draws))

    ends = [
        l1.put(Resolution(Slug(name), 1, URL)).fresh_until - monotonic() for name in ("aaa", "bbb", "ccc")
    ]

    assert ends[0] == l1_cache.TTL_S
    assert l1_cache.TTL_S * (1 - l1_cache.JITTER) < ends[2] < ends[1] < ends[0]


# --- stale entries -----------------------------------------------------------------------


def test_stale_entry_is_renewed_until_its_limit(l1, monotonic):
    l1.put(LIVE)

    for _ in range(int(l1_cache.STALE_S / l1_cache.TTL_S)):
        monotonic.now += l1_cache.TTL_S - 0.001
        assert version(l1.stale("aaa")) == 1
        assert version(l1.get("aaa")) == 1
    monotonic.now += l1_cache.TTL_S
    assert l1.stale("aaa") is None


def test_expired_link_is_not_served_stale(make, monotonic):
    wall = ManualTime(100.0)
    l1 = make(monotonic, wall=wall)
    l1.put(replace(LIVE, expires_at=110.0))

    wall.now, monotonic.now = 109.5, monotonic.now + 9.5
    assert l1.stale("aaa").fresh_until == monotonic.now + 0.5
    wall.now, monotonic.now = 110.0, monotonic.now + 0.5
    assert l1.get("aaa") is None
    assert l1.stale("aaa") is None


def test_stale_entry_is_rendered_anew(make, monotonic):
    wall = ManualTime(100.0)
    l1 = make(monotonic, wall=wall)
    l1.put(replace(LIVE, valid_from=101.0))

    wall.now, monotonic.now = 103.0, monotonic.now + 3.0

    assert l1.stale("aaa").answer.status == 302
    assert l1.get("aaa").answer.status == 302


@pytest.mark.parametrize("resolution", [Resolution(SLUGS[0], 2), Resolution.absent(SLUGS[0])])
def test_gone_and_absent_are_not_served_stale(l1, resolution):
    """404 needs proof from the store, and a disabled link may be enabled again."""
    l1.put(resolution)

    assert l1.stale("aaa") is None


def test_change_or_gap_ends_stale_entries(l1, monotonic):
    for slug in SLUGS:
        l1.put(Resolution(slug, 1, URL))
    monotonic.now += 2 * l1_cache.TTL_S

    l1.on_changes([LinkChanged(SLUGS[0], 2)])
    assert l1.stale("aaa") is None
    assert l1.stale("bbb") is not None
    l1.on_gap()
    assert l1.stale("bbb") is None


def test_older_version_keeps_a_newer_stale_entry(l1, monotonic):
    l1.put(replace(LIVE, version=2))
    monotonic.now += l1_cache.STALE_S - 1

    assert not l1.accepts(LIVE)
    l1.put(LIVE)

    assert version(l1.stale("aaa")) == 2


def test_older_copy_is_rejected_without_a_minimum_version(make, monotonic):
    l1 = make(monotonic, bounds=L1Bounds(min_versions=2))
    l1.put(replace(LIVE, version=2))
    l1.on_changes([LinkChanged(Slug(f"other{number}"), 1) for number in range(3)])

    assert l1.offer(LIVE) is None


def test_version_that_is_accepted_in_time_is_the_minimum(l1, monotonic):
    """The source went back, and the former minimum version has lapsed."""
    l1.put(replace(LIVE, version=5))
    monotonic.now += l1_cache.MIN_VERSION_TTL_S

    for _ in range(2):
        assert version(l1.offer(replace(LIVE, version=3))) == 3
    assert l1.offer(replace(LIVE, version=2)) is None


def test_absent_slug_has_no_minimum_version(make, monotonic):
    noted: list[LinkChanged] = []
    l1 = make(monotonic, noted=noted.append)
    l1.put(replace(LIVE, version=5))
    monotonic.now += l1_cache.MIN_VERSION_TTL_S
    l1.put(Resolution.absent(SLUGS[0]))
    change = LinkChanged(SLUGS[0], 3, 1.0)

    l1.on_changes([change])

    assert noted == [change]
    assert not l1.accepts(replace(LIVE, version=2))
    assert l1.accepts(replace(LIVE, version=3))


def test_minimum_versions_are_bounded(make, monotonic):
    l1 = make(monotonic, bounds=L1Bounds(min_versions=2))
    l1.on_changes([LinkChanged(Slug(slug), 2) for slug in ("aaa", "bbb", "aaa", "ccc")])

    accepted = [l1.accepts(Resolution(Slug(slug), 1, URL)) for slug in ("aaa", "bbb", "ccc")]

    assert accepted == [False, True, False]


def test_scan_evicts_its_own_guesses_only(make, monotonic):
    l1 = make(monotonic, bounds=L1Bounds(absent=2))
    l1.put(LIVE)
    # One of them is created meanwhile.
    l1.put(Resolution.absent(Slug("guess-0")))
    l1.put(Resolution(Slug("guess-0"), 1, URL))
    for number in range(1, 10):
        l1.put(Resolution.absent(Slug(f"guess-{number}")))

    assert len(l1) == 4
    assert l1.get("aaa") is not None
    assert [l1.get(f"guess-{number}") is not None for number in (0, 7, 8, 9)] == [True, False, True, True]


def test_long_targets_evict_each_other_only(make, monotonic):
    """All entries with the longest target would be half a gigabyte."""
    l1 = make(monotonic, bounds=L1Bounds(long=2))
    l1.put(LIVE)
    for number in range(5):
        l1.put(Resolution(Slug(f"long-{number}"), 1, URL + "a" * 2029))
    l1.put(Resolution(Slug("short"), 1, URL + "a" * 2028))

    held = [slug for slug in ("aaa", "short", *(f"long-{number}" for number in range(5))) if l1.get(slug)]
    assert held == ["aaa", "short", "long-3", "long-4"]


def test_bounds_count_what_is_held(make, monotonic):
    """A target that was long, and a slug that was absent, are evicted by none of their old kind."""
    l1 = make(monotonic, bounds=L1Bounds(absent=2, long=2))
    long = URL + "a" * 2100
    l1.offer_many([Resolution(Slug("was-long"), 1, long), Resolution(Slug("long"), 1, long)])
    l1.offer_many([Resolution.absent(Slug("was-absent")), Resolution.absent(Slug("dropped"))])
    l1.offer_many([Resolution(Slug("was-long"), 2, URL), Resolution(Slug("was-absent"), 1, URL)])
    l1.on_changes([LinkChanged(Slug("dropped"), 1)])

    l1.offer_many([Resolution(Slug("long-2"), 1, long), *(Resolution.absent(Slug(one)) for one in "xy")])

    assert {one.slug for one in l1.held()} == {"long", "was-long", "was-absent", "long-2", "x", "y"}


# --- epochs ------------------------------------------------------------------------------


def test_new_epoch_drops_what_is_held_and_what_it_knew(l1):
    l1.begin_epoch(0)
    l1.put(replace(LIVE, version=5))
    l1.on_changes([LinkChanged(SLUGS[1], 8)])

    l1.begin_epoch(9)
    l1.begin_epoch(9)
    l1.follow_epoch(3)  # a late answer of the old server

    assert l1.get("aaa") is None
    assert l1.stale("aaa") is None
    assert not l1.accepts(replace(LIVE, version=5))
    assert l1.accepts(Resolution.absent(SLUGS[0]))
    assert version(l1.offer(Resolution(SLUGS[1], 2, URL, epoch=9))) == 2
    l1.begin_epoch(9)
    assert version(l1.get("bbb")) == 2
    l1.follow_epoch(10)
    assert len(l1) == 0


def test_links_of_any_epoch_are_accepted_until_one_is_known(l1):
    l1.follow_epoch(9)

    assert l1.accepts(LIVE)
    assert l1.accepts(replace(LIVE, epoch=9))


# --- clicks ------------------------------------------------------------------------------


def click(l1, entry):
    """As `RedirectHandler.answer_from_l1` does."""
    if not entry.clicks:
        l1.note_clicked(entry)
    entry.clicks += 1


def test_clicks_outlive_their_entry_and_are_reported_once(make, monotonic):
    """An entry ends by time, by a newer one, by a change or by a gap."""
    clicked: Counter[Slug] = Counter()
    l1 = make(monotonic, clicked=lambda slug, n: clicked.update({slug: n}))
    for number, take_away in enumerate(
        (
            lambda: None,
            lambda: l1.put(replace(LIVE, version=3)),
            lambda: l1.on_changes([LinkChanged(SLUGS[0], 4)]),
            l1.on_gap,
            lambda: setattr(monotonic, "now", monotonic.now + l1_cache.TTL_S),
        ),
        1,
    ):
        entry = l1.put(replace(LIVE, version=number))
        click(l1, entry)
        click(l1, entry)
        take_away()
    monotonic.now += 60

    l1.collect()
    l1.collect()

    assert clicked == {"aaa": 10}
