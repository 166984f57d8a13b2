"""`BlockStore`: one suite for every adapter."""

from __future__ import annotations

import asyncio

from app.domain.blocks import Block, BlockChange, BlockKind, StoredBlock
from app.ports import Store
from tests.contract.store_links import LATER, NOW

EVIL = Block(BlockKind.HOST, "evil.example")
WORSE = Block(BlockKind.HOST, "worse.example")
SLUG = Block(BlockKind.SLUG, "evil.example")


async def changes_of(store: Store, version: int = 0) -> list[BlockChange]:
    return list(await store.blocks_since(version, limit=100))


async def test_new_store_has_no_blocks(store: Store) -> None:
    assert await store.blocks_version() == 0
    assert await changes_of(store) == []
    page = await store.block_page(before=None, limit=10)
    assert (page.blocks, page.next_before) == ((), None)


async def test_added_blocks_are_numbered_in_order(store: Store) -> None:
    added = await store.add_blocks([EVIL, SLUG], now=NOW)

    assert added == [EVIL, SLUG]
    assert await changes_of(store) == [BlockChange(EVIL, 1), BlockChange(SLUG, 2)]
    assert await store.blocks_version() == 2


async def test_adding_again_changes_nothing(store: Store) -> None:
    """Neither the time nor the version: no gateway has anything to read."""
    await store.add_blocks([EVIL], now=NOW)

    added = await store.add_blocks([EVIL, WORSE, WORSE], now=LATER)

    assert added == [WORSE]
    assert (await store.block_page(before=None, limit=10)).blocks == (
        StoredBlock(WORSE, LATER),
        StoredBlock(EVIL, NOW),
    )


async def test_no_blocks_are_no_change(store: Store) -> None:
    assert list(await store.add_blocks([], now=NOW)) == []
    assert list(await store.remove_blocks([])) == []
    assert await store.blocks_version() == 0


async def test_removal_is_a_change(store: Store) -> None:
    await store.add_blocks([EVIL, SLUG], now=NOW)
    seen = await store.blocks_version()

    removed = await store.remove_blocks([EVIL, WORSE])

    assert removed == [EVIL]
    assert await changes_of(store, seen) == [BlockChange(EVIL, seen + 1, is_removed=True)]
    assert [one.block for one in (await store.block_page(before=None, limit=10)).blocks] == [SLUG]
    assert list(await store.remove_blocks([EVIL])) == []


async def test_block_comes_back_after_its_removal(store: Store) -> None:
    await store.add_blocks([EVIL, SLUG], now=NOW)
    await store.remove_blocks([EVIL])

    added = await store.add_blocks([EVIL], now=LATER)

    assert added == [EVIL]
    assert await changes_of(store) == [BlockChange(SLUG, 2), BlockChange(EVIL, 4)]
    assert (await store.block_page(before=None, limit=10)).blocks[0] == StoredBlock(EVIL, LATER)


async def test_pages_cover_all_blocks_once(store: Store) -> None:
    hosts = [Block(BlockKind.HOST, f"h{number}.example") for number in range(5)]
    await store.add_blocks(hosts, now=NOW)

    found, before = [], None
    while True:
        page = await store.block_page(before=before, limit=2)
        found += [one.block for one in page.blocks]
        before = page.next_before
        if before is None:
            break

    assert found == hosts[::-1]


async def test_changes_are_read_in_parts(store: Store) -> None:
    hosts = [Block(BlockKind.HOST, f"h{number}.example") for number in range(5)]
    await store.add_blocks(hosts, now=NOW)

    first = await store.blocks_since(0, limit=3)
    second = await store.blocks_since(first[-1].version, limit=3)

    assert [change.block for change in [*first, *second]] == hosts


async def test_concurrent_changes_get_versions_of_their_own(store: Store) -> None:
    """A reader that has seen version n misses no change before it."""
    hosts = [Block(BlockKind.HOST, f"h{number}.example") for number in range(20)]

    await asyncio.gather(*(store.add_blocks([host], now=NOW) for host in hosts))

    changes = await changes_of(store)
    assert [change.version for change in changes] == list(range(1, 21))
    assert {change.block for change in changes} == set(hosts)


async def test_many_blocks_are_one_transaction(store: Store) -> None:
    hosts = [Block(BlockKind.HOST, f"h{number}.example") for number in range(5000)]

    assert await store.add_blocks(hosts, now=NOW) == hosts
    assert await store.blocks_version() == 5000
    assert await store.remove_blocks(hosts) == hosts
