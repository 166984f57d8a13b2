"""What a process keeps of its writes, for a server that takes over."""

from __future__ import annotations

from app.adapters.redis.node import Address
from app.adapters.redis.recent_writes import KEEP_WRITES_S, MAX_KEPT_WRITES, RecentWrites
from app.domain.link import Slug
from tests.contract.cache_entries import A, B, live

OLD, NEW = Address("old", 1), Address("new", 1)


def on_old(_slug: Slug) -> Address:
    return OLD


def on_new(_slug: Slug) -> Address:
    return NEW


def unknown(_slug: Slug) -> None:
    return None


def test_only_the_newest_version_of_a_link_is_kept() -> None:
    writes = RecentWrites()
    for version in (1, 3, 2):
        writes.keep([live(A, version)], 0.0, on_old)

    assert writes.all(0.0) == [live(A, 3)]


def test_absent_links_are_left_out() -> None:
    writes = RecentWrites()
    writes.keep([live(A, 0)], 0.0, on_old)

    assert not writes.expire(0.0)


def test_number_and_age_are_bounded() -> None:
    writes = RecentWrites()
    slugs = [Slug(f"slug-{number}") for number in range(MAX_KEPT_WRITES + 2)]
    writes.keep([live(slug, 1) for slug in slugs[:-1]], 0.0, on_old)
    assert [kept.slug for kept in writes.all(0.0)] == slugs[1:-1]
    writes.keep([live(slugs[-1], 1)], KEEP_WRITES_S, on_old)
    assert len(writes.all(KEEP_WRITES_S)) == MAX_KEPT_WRITES

    assert writes.all(KEEP_WRITES_S + 0.1) == [live(slugs[-1], 1)]
    assert not writes.expire(2 * KEEP_WRITES_S + 0.1)


def test_writes_of_another_server_are_elsewhere() -> None:
    writes = RecentWrites()
    writes.keep([live(A, 1)], 0.0, on_old)
    writes.keep([live(B, 1)], 0.0, on_new)

    assert writes.elsewhere(0.0, on_new) == [live(A, 1)]
    assert writes.elsewhere(0.0, unknown) == []


def test_what_was_written_again_is_not_elsewhere() -> None:
    """Unless it was replaced meanwhile: that version has not been written there."""
    writes = RecentWrites()
    writes.keep([live(A, 1), live(B, 1)], 0.0, on_old)
    again = writes.elsewhere(0.0, on_new)
    writes.keep([live(B, 2)], 0.0, on_old)
    writes.written(again, on_new)

    assert writes.elsewhere(0.0, on_new) == [live(B, 2)]


def test_forgotten_links_are_not_written_again() -> None:
    writes = RecentWrites()
    writes.keep([live(A, 1), live(B, 1)], 0.0, on_old)
    writes.forget([A])

    assert writes.elsewhere(0.0, on_new) == [live(B, 1)]
