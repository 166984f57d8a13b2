from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from app.resilience.batches import Batches

_wish: ContextVar[str] = ContextVar("wish", default="none")


class Work:
    """Remembers the batches, and can be held back."""

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


async def test_what_comes_in_one_turn_is_one_batch_each_key_once(work):
    batches = Batches(work, max_under_way=2, max_batch=10)
    for key in ("a", "b", "a", "c"):
        batches.add(key)
    await turns()

    assert work.batches == [["a", "b", "c"]]


async def test_what_comes_in_the_turn_in_which_all_have_ended_is_worked_on(work):
    batches = Batches(work, max_under_way=2, max_batch=10)
    batches.add("a")
    batches.add("b")
    asyncio.get_running_loop().call_soon(batches.add, "c")  # after both tasks, before their callbacks
    await turns()

    assert work.batches == [["a", "b"], ["c"]]


async def test_a_lone_key_goes_at_once(work):
    batches = Batches(work, max_under_way=2, max_batch=10)
    for key in ("a", "b"):
        batches.add(key)
        await turns()

    assert work.batches == [["a"], ["b"]]


async def test_while_enough_is_under_way_the_rest_gathers(work):
    work.open.clear()
    batches = Batches(work, max_under_way=2, max_batch=3)
    for number in range(7):
        batches.add(number)
        await turns()
    assert work.batches == [[0], [1]]

    work.open.set()
    await turns()

    assert sorted(work.batches) == [[0], [1], [2, 3, 4], [5, 6]]


async def test_a_key_that_comes_again_while_it_is_worked_on_is_worked_on_again(work):
    work.open.clear()
    batches = Batches(work, max_under_way=1, max_batch=3)
    batches.add("a")
    await turns()
    batches.add("a")
    work.open.set()
    await turns()

    assert work.batches == [["a"], ["a"]]


async def test_a_batch_has_not_the_context_of_whoever_asked_first(work):
    """A deadline among it: it would end the answers of all others."""
    batches = Batches(work, max_under_way=1, max_batch=3)
    token = _wish.set("mine")
    batches.add("a")
    _wish.reset(token)
    await turns()

    assert work.wishes == ["none"]


async def test_draining_waits_for_what_is_under_way_and_what_waits(work):
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


async def test_closing_gives_up_what_is_under_way_and_what_waits(work):
    work.open.clear()
    batches = Batches(work, max_under_way=1, max_batch=1)
    batches.add("a")
    await turns()
    batches.add("b")

    await batches.aclose()
    work.open.set()
    await turns()

    assert work.batches == [["a"]]
