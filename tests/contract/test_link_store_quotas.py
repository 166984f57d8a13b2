"""`VisitQuotaStore`: the sum of all leases never exceeds the limit, under any concurrency."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg
import pytest

from app.adapters.postgres import sql
from app.domain.link import Slug
from app.ports import MAX_QUOTA_LEASE, Changed, Store
from tests.contract.store_database import Database
from tests.contract.store_links import FIELDS, NOW, added, changes
from tests.servers.postgres import PrivatePostgres

A = Slug("aaa")


async def limited(store: Store, max_visits: int | None) -> None:
    await added(store, A, fields=replace(FIELDS, max_visits=max_visits))


async def limit(store: Store, max_visits: int | None) -> None:
    link = await store.get(A)
    assert link is not None
    fields = replace(link.fields, max_visits=max_visits)
    assert isinstance(await store.update(A, fields, expected_version=link.version, now=NOW), Changed)


async def lease(store: Store) -> int:
    leased = await store.lease_quota(A)
    assert leased is not None
    return leased


async def lease_all(store: Store) -> list[int]:
    leases = []
    while leased := await lease(store):
        leases.append(leased)
    return leases


@pytest.mark.parametrize("max_visits", [1, 7, 8, 9, 200, 511, 512, 513, 2000])
async def test_lease_is_an_eighth_of_the_remainder(store: Store, max_visits: int) -> None:
    await limited(store, max_visits)
    expected, left = [], max_visits
    while left:
        expected.append(min(MAX_QUOTA_LEASE, -(-left // 8)))
        left -= expected[-1]

    assert await lease_all(store) == expected
    assert await lease(store) == 0


async def test_largest_limit_can_be_leased(store: Store) -> None:
    await limited(store, 2**53 - 1)

    assert await lease(store) == MAX_QUOTA_LEASE


async def test_concurrent_leases_never_exceed_the_limit(store: Store) -> None:
    await limited(store, 100)

    leases = await asyncio.gather(*(lease(store) for _ in range(60)))

    assert sum(leases) + sum(await lease_all(store)) == 100


async def test_link_without_limit_needs_no_lease(store: Store) -> None:
    await limited(store, None)

    assert await store.lease_quota(A) is None


async def test_absent_or_removed_link_leases_nothing(store: Store) -> None:
    assert await store.lease_quota(A) == 0
    await limited(store, None)
    await store.remove(A, expected_version=None, now=NOW)

    assert await store.lease_quota(A) == 0


async def test_what_is_left_is_told_without_a_lease(store: Store) -> None:
    assert await store.quota_left(A) == 0
    await limited(store, 20)
    assert [await store.quota_left(A) for _ in range(3)] == [20] * 3
    leased = await lease(store)
    assert await store.quota_left(A) == 20 - leased
    await lease_all(store)
    assert await store.quota_left(A) == 0
    await limit(store, 5)
    assert await store.quota_left(A) == 0
    await limit(store, None)
    assert await store.quota_left(A) is None

    await store.remove(A, expected_version=None, now=NOW)

    assert await store.quota_left(A) == 0


async def test_returned_quota_can_be_leased_again(store: Store) -> None:
    await limited(store, 5)
    await lease_all(store)

    await store.return_quota(A, 2, 1)

    assert sum(await lease_all(store)) == 2


async def test_returning_too_much_adds_no_quota(store: Store) -> None:
    await limited(store, 5)

    await store.return_quota(A, 3, 1)
    await store.return_quota(Slug("never"), 3, 1)

    assert sum(await lease_all(store)) == 5


async def test_changed_limit_applies_to_next_lease(store: Store) -> None:
    await limited(store, 10)
    await lease_all(store)
    await limit(store, 15)
    assert sum(await lease_all(store)) == 5
    await limit(store, 12)
    assert await lease(store) == 0

    await store.return_quota(A, 4, 1)

    assert sum(await lease_all(store)) == 1


async def test_leases_count_across_removal_of_limit(store: Store) -> None:
    await limited(store, 10)
    await lease_all(store)
    await limit(store, None)
    assert await store.lease_quota(A) is None

    await limit(store, 11)

    assert await lease(store) == 1


async def test_leasing_changes_no_link(store: Store, database: Database) -> None:
    await limited(store, 10)
    before = await store.get(A)
    await changes(store, database)

    await store.return_quota(A, await lease(store) - 1, 1)

    assert await store.get(A) == before
    assert (await store.outbox_depth()).rows == 1  # of the new link


async def test_touching_and_removing_keep_the_limit(store: Store) -> None:
    await limited(store, 10)

    [touched] = await store.touch([A])
    removed = await store.remove(A, expected_version=None, now=NOW)

    assert isinstance(removed, Changed)
    assert (touched.link.fields.max_visits, removed.link.fields.max_visits) == (10, 10)


@pytest.mark.services
def test_lease_reads_one_row(postgres: PrivatePostgres) -> None:
    """A scan of the whole table would hold the row lock for long."""
    url = postgres.create_database()
    with psycopg.connect(url) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(f"EXPLAIN {sql.LEASE_QUOTA}".encode(), {"slug": "aaa"}).fetchall()

    assert not [line for (line,) in plan if "Seq Scan on links" in line]
