from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from app.adapters.memory.cache import MemoryCache
from app.domain.events import LinkChanged
from app.domain.link import LinkFields, NewLink, Resolution, Slug
from app.service.consistency import Fault, compare
from tests.conftest import NOW
from worker.sampling import ConsistencySampler

SLUG, OTHER = Slug("slug"), Slug("other")
FIELDS = LinkFields(long_url="https://example.com/")


@pytest.fixture
async def stored(embedded_store):
    """The link at version 2."""
    await embedded_store.add([NewLink(slug=SLUG, fields=FIELDS)], now=NOW)
    [changed] = await embedded_store.touch([SLUG])
    return changed.link


@pytest.fixture
def memory():
    return MemoryCache()


def resolution(stored, version: int) -> Resolution:
    return Resolution.of(replace(stored, version=version))


async def test_right_or_uncached_entries_have_no_fault(embedded_store, memory, stored):
    assert await compare(embedded_store, memory, [SLUG, OTHER]) == []

    await memory.put([Resolution.of(stored), Resolution.absent(OTHER)])

    assert await compare(embedded_store, memory, [SLUG, OTHER]) == []


@pytest.mark.parametrize(
    ("version", "fault"), [(0, Fault.STALE), (1, Fault.STALE), (3, Fault.AHEAD)], ids=str
)
async def test_other_version_is_a_fault(embedded_store, memory, stored, version, fault):
    await memory.put([resolution(stored, version)])

    [found] = await compare(embedded_store, memory, [SLUG])

    assert (found.slug, found.fault, found.cached, found.stored) == (SLUG, fault, version, 2)


async def test_right_version_with_other_content_is_a_fault(embedded_store, memory, stored):
    await memory.put([Resolution(SLUG, 2, "https://evil.example/")])

    assert [one.fault for one in await compare(embedded_store, memory, [SLUG])] == [Fault.DIFFERENT]


async def test_cached_but_unknown_link_is_a_fault(embedded_store, memory):
    await memory.put([Resolution(OTHER, 1, "https://evil.example/")])

    assert [one.fault for one in await compare(embedded_store, memory, [OTHER])] == [Fault.PHANTOM]


@pytest.fixture
def sampler(embedded_store, memory, monotonic):
    return ConsistencySampler(embedded_store, memory, monotonic=monotonic)


def inconsistent(sampler) -> list[tuple[int, int]]:
    return [(counts.checked, counts.inconsistent) for counts in sampler.snapshot().values()]


async def test_change_is_checked_after_each_window(sampler, memory, stored, monotonic):
    await memory.put([resolution(stored, 1)])  # the write of version 2 was lost
    sampler.note([LinkChanged(SLUG, 2)])

    seen = []
    for later in (0.9, 0.1, 8.9, 0.1, 49.9, 0.1):
        monotonic.now += later
        await sampler.check_due()
        seen.append(inconsistent(sampler))

    zero, one = (0, 0), (1, 1)
    assert seen[0] == [zero, zero, zero]
    assert seen[1] == seen[2] == [one, zero, zero]
    assert seen[3] == seen[4] == [one, one, zero]
    assert seen[5] == [one, one, one]


async def test_later_change_in_flight_is_no_fault(sampler, memory, stored, monotonic):
    await memory.put([resolution(stored, 1)])
    sampler.note([LinkChanged(SLUG, 1)])

    monotonic.now += 1
    await sampler.check_due()

    assert inconsistent(sampler)[0] == (1, 0)


async def test_flood_of_changes_is_sampled(sampler, monotonic):
    for _ in range(100):
        sampler.note([LinkChanged(Slug(f"s{n}"), 1) for n in range(100)])
    monotonic.now += 1
    sampler.note([LinkChanged(Slug(f"t{n}"), 1) for n in range(100)])

    assert [len(due) for due in sampler._due.values()] == [100, 100, 100]


async def test_unanswered_checks_are_counted_apart(embedded_store, sampler, memory, monotonic):
    sampler.note([LinkChanged(SLUG, 1)])
    await embedded_store.aclose()
    monotonic.now += 1

    await sampler.check_due()

    assert (sampler.snapshot()[1].checked, sampler.snapshot()[1].unanswered) == (0, 1)


async def test_unreadable_link_ends_no_check(
    embedded_store, sampler, memory, stored, monotonic, tmp_path, caplog
):
    await memory.put([Resolution.of(stored)])
    with closing(sqlite3.connect(tmp_path / "hopgate.db")) as database:
        database.execute("UPDATE links SET created_at = 9000000000000000000")
        database.commit()
    sampler.note([LinkChanged(SLUG, 2)])

    monotonic.now += 1
    await sampler.check_due()

    assert (sampler.snapshot()[1].checked, sampler.snapshot()[1].unanswered) == (0, 1)
    assert "cannot compare" in caplog.text
