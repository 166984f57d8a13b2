"""`LinkStore`, visits: never more are leased than the link has, whoever asks at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg
import pytest

from app.adapters import store_postgres_sql as sql
from app.domain.link import Slug
from app.ports import MAX_VISITS_A_LEASE, Changed, LinkStore
from tests.contract.store_database import Database
from tests.contract.store_links import FIELDS, NOW, added, changes
from tests.servers.postgres import PrivatePostgres

A = Slug("aaa")


async def limited(store: LinkStore, max_visits: int | None) -> None:
    await added(store, A, fields=replace(FIELDS, max_visits=max_visits))


async def limit(store: LinkStore, max_visits: int | None) -> None:
    link = await store.get(A)
    assert link is not None
    fields = replace(link.fields, max_visits=max_visits)
    assert isinstance(await store.update(A, fields, expected_version=link.version, now=NOW), Changed)


async def lease(store: LinkStore) -> int:
    leased = await store.lease_visits(A)
    assert leased is not None
    return leased


async def lease_all(store: LinkStore) -> list[int]:
    leases = []
    while leased := await lease(store):
        leases.append(leased)
    return leases


@pytest.mark.parametrize("max_visits", [1, 7, 8, 9, 200, 511, 512, 513, 2000])
async def test_leases_are_an_eighth_of_what_is_left_and_all_is_leased(
    store: LinkStore, max_visits: int
) -> None:
    await limited(store, max_visits)
    expected, left = [], max_visits
    while left:
        expected.append(min(MAX_VISITS_A_LEASE, -(-left // 8)))
        left -= expected[-1]

    assert await lease_all(store) == expected
    assert await lease(store) == 0


async def test_the_largest_limit_can_be_leased_from(store: LinkStore) -> None:
    await limited(store, 2**53 - 1)

    assert await lease(store) == MAX_VISITS_A_LEASE


async def test_many_at_once_lease_no_more_than_there_is(store: LinkStore) -> None:
    await limited(store, 100)

    leases = await asyncio.gather(*(lease(store) for _ in range(60)))

    assert sum(leases) + sum(await lease_all(store)) == 100


async def test_a_link_without_a_limit_needs_no_visits(store: LinkStore) -> None:
    await limited(store, None)

    assert await store.lease_visits(A) is None


async def test_a_link_that_is_absent_or_removed_has_no_visits(store: LinkStore) -> None:
    assert await store.lease_visits(A) == 0
    await limited(store, None)
    await store.remove(A, expected_version=None, now=NOW)

    assert await store.lease_visits(A) == 0


async def test_what_is_returned_can_be_leased_again(store: LinkStore) -> None:
    await limited(store, 5)
    await lease_all(store)

    await store.return_visits(A, 2)

    assert sum(await lease_all(store)) == 2


async def test_nothing_is_returned_that_was_never_leased(store: LinkStore) -> None:
    await limited(store, 5)

    await store.return_visits(A, 3)
    await store.return_visits(Slug("never"), 3)

    assert sum(await lease_all(store)) == 5


async def test_a_raised_limit_gives_more_and_a_lowered_one_what_is_left_of_it(store: LinkStore) -> None:
    await limited(store, 10)
    await lease_all(store)
    await limit(store, 15)
    assert sum(await lease_all(store)) == 5
    await limit(store, 12)
    assert await lease(store) == 0

    await store.return_visits(A, 4)

    assert sum(await lease_all(store)) == 1


async def test_leased_visits_count_though_there_was_no_limit_for_a_while(store: LinkStore) -> None:
    await limited(store, 10)
    await lease_all(store)
    await limit(store, None)
    assert await store.lease_visits(A) is None

    await limit(store, 11)

    assert await lease(store) == 1


async def test_leasing_changes_no_link(store: LinkStore, database: Database) -> None:
    await limited(store, 10)
    before = await store.get(A)
    await changes(store, database)

    await store.return_visits(A, await lease(store) - 1)

    assert await store.get(A) == before
    assert (await store.outbox_depth()).rows == 1  # that of the link itself


async def test_touching_and_removing_keep_the_limit(store: LinkStore) -> None:
    await limited(store, 10)

    [touched] = await store.touch([A])
    removed = await store.remove(A, expected_version=None, now=NOW)

    assert isinstance(removed, Changed)
    assert (touched.link.fields.max_visits, removed.link.fields.max_visits) == (10, 10)


@pytest.mark.services
def test_a_lease_of_visits_reads_one_link(postgres: PrivatePostgres) -> None:
    """Not the whole table, while it holds the link: there may be millions."""
    url = postgres.create_database()
    with psycopg.connect(url) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(f"EXPLAIN {sql.LEASE_VISITS}".encode(), {"slug": "aaa"}).fetchall()

    assert not [line for (line,) in plan if "Seq Scan on links" in line]
