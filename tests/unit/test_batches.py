from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from app.concurrency.batches import Batches

_wish: ContextVar[str] = ContextVar("wish", default="none")


class Work:
    """Records the batches, and can be held back."""

    def __init__(self):
        self.batches = []
        self.wishes = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, keys):
        self.batches.append(keys)
        self.wishes.append(_wish.get())
        await self.open.wait()


@pytest.fixture
def work():
    return Work()


async def turns(count=3):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_keys_of_one_turn_form_one_batch(work):
    batches = Batches(work, max_under_way=2, max_batch=10)
    for key in ("a", "b", "a", "c"):
        batches.add(key)
    await turns()

    assert work.batches == [["a", "b", "c"]]


async def test_key_added_as_batches_end_is_kept(work):
    batches = Batches(work, max_under_way=2, max_batch=10)
    batches.add("a")
    batches.add("b")
    asyncio.get_running_loop().call_soon(batches.add, "c")  # after both tasks, before their callbacks
    await turns()

    assert work.batches == [["a", "b"], ["c"]]


async def test_end_of_a_batch_whose_keys_another_has_taken_is_told(work):
    """What waits for room, by `under_way`, would wait for ever."""
    told: list[int] = []
    batches: Batches[str] = Batches(
        work, max_under_way=2, max_batch=10, on_end=lambda: told.append(batches.under_way)
    )
    for key in ("a", "b"):
        batches.add(key)
    await batches.drain()

    assert work.batches == [["a", "b"]]
    assert told == [1, 0]


async def test_lone_key_starts_at_once(work):
    batches = Batches(work, max_under_way=2, max_batch=10)
    for key in ("a", "b"):
        batches.add(key)
        await turns()

    assert work.batches == [["a"], ["b"]]


async def test_keys_gather_while_enough_batches_run(work):
    work.open.clear()
    batches = Batches(work, max_under_way=2, max_batch=3)
    for number in range(7):
        batches.add(number)
        await turns()
    assert work.batches == [[0], [1]]

    work.open.set()
    await turns()

    assert sorted(work.batches) == [[0], [1], [2, 3, 4], [5, 6]]


async def test_key_added_during_its_work_is_repeated(work):
    work.open.clear()
    batches = Batches(work, max_under_way=1, max_batch=3)
    batches.add("a")
    await turns()
    batches.add("a")
    work.open.set()
    await turns()

    assert work.batches == [["a"], ["a"]]


async def test_batch_does_not_inherit_the_first_context(work):
    """A deadline in that context would end the work for all other keys."""
    batches = Batches(work, max_under_way=1, max_batch=3)
    token = _wish.set("mine")
    batches.add("a")
    _wish.reset(token)
    await turns()

    assert work.wishes == ["none"]


async def test_drain_waits_for_running_and_waiting_keys(work):
    work.open.clear()
    batches = Batches(work, max_under_way=1, max_batch=1)
    batches.add("a")
    batches.add("b")
    drained = asyncio.create_task(batches.drain())
    await turns()
    assert not drained.done()

    work.open.set()
    await drained

    assert work.batches == [["a"], ["b"]]


async def test_close_cancels_running_and_waiting_keys(work):
    work.open.clear()
    batches = Batches(work, max_under_way=1, max_batch=1)
    batches.add("a")
    await turns()
    batches.add("b")

    await batches.aclose()
    work.open.set()
    await turns()

    assert work.batches == [["a"]]


async def test_keys_added_at_the_end_go_on_in_the_same_task():
    """What waits for room adds its keys when a batch ends, which does not count as under way then."""
    seen: list[tuple[list[str], int]] = []
    waiting = ["b", "c"]

    async def work(keys):
        seen.append((keys, batches.under_way))
        await asyncio.sleep(0)

    def on_end():
        assert batches.under_way == 0
        if waiting:
            batches.add_many([waiting.pop(0)])
            assert batches.under_way == 1

    batches: Batches[str] = Batches(work, max_under_way=1, max_batch=10, on_end=on_end)
    batches.add("a")
    await batches.drain()

    assert seen == [(["a"], 1), (["b"], 1), (["c"], 1)]
    assert batches.under_way == 0
