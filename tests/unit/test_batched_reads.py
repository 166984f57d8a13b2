from __future__ import annotations

import asyncio

import pytest

from app.adapters import batched_reads
from app.adapters.batched_reads import BatchedReads
from app.domain.errors import Unavailable


class Source:
    """Answers each key with itself, remembers the batches, and can be held back or fail."""

    def __init__(self):
        self.batches = []
        self.open = asyncio.Event()
        self.open.set()
        self.error = None

    async def __call__(self, keys):
        self.batches.append(list(keys))
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return [key.upper() for key in keys]


@pytest.fixture
def source():
    return Source()


async def test_what_is_asked_for_together_is_read_together_and_each_gets_its_own(source):
    reads = BatchedReads(source)

    answers = await asyncio.gather(*(reads.get(key) for key in ("a", "b", "a", "c")))

    assert answers == ["A", "B", "A", "C"]
    assert source.batches == [["a", "b", "c"]]


async def test_a_lone_read_goes_at_once(source):
    reads = BatchedReads(source)

    assert [await reads.get(key) for key in ("a", "b")] == ["A", "B"]
    assert source.batches == [["a"], ["b"]]


async def test_while_enough_is_under_way_the_rest_gathers_into_one_batch(source):
    source.open.clear()
    reads = BatchedReads(source)
    tasks = []
    for number in range(batched_reads._MAX_UNDER_WAY + 5):
        tasks.append(asyncio.create_task(reads.get(f"k{number}")))
        for _ in range(3):
            await asyncio.sleep(0)

    source.open.set()

    assert await asyncio.gather(*tasks) == [f"K{number}" for number in range(len(tasks))]
    assert [len(batch) for batch in source.batches] == [1] * batched_reads._MAX_UNDER_WAY + [5]


async def test_a_batch_is_bounded(source):
    reads = BatchedReads(source)
    count = batched_reads._MAX_BATCH + 1

    await asyncio.gather(*(reads.get(f"k{number}") for number in range(count)))

    assert sorted(len(batch) for batch in source.batches) == [1, batched_reads._MAX_BATCH]


async def test_who_is_cancelled_cancels_nobody_else(source):
    source.open.clear()
    reads = BatchedReads(source)
    first, second = (asyncio.create_task(reads.get("a")) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()
    source.open.set()

    assert await second == "A"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_outage_is_told_to_all_who_asked_and_is_over_when_it_is_over(source):
    source.error = Unavailable("redis", "away")
    reads = BatchedReads(source)

    answers = await asyncio.gather(reads.get("a"), reads.get("b"), return_exceptions=True)
    source.error = None

    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    assert await reads.get("a") == "A"


async def test_closing_leaves_nobody_waiting(source):
    """Neither those whose read is under way nor those whose turn has not come."""
    source.open.clear()
    reads = BatchedReads(source)
    asking = []
    for number in range(batched_reads._MAX_UNDER_WAY + 1):
        asking.append(asyncio.create_task(reads.get(f"k{number}")))
        for _ in range(3):
            await asyncio.sleep(0)

    await reads.aclose()

    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unavailable}
