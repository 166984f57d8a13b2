from __future__ import annotations

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.concurrency.bulkhead import Bulkhead


async def test_longest_waiting_call_enters_next():
    bulkhead, order = Bulkhead(1, 10), []
    assert bulkhead.try_enter()

    async def enter(name: str) -> None:
        assert await bulkhead.enter(5)
        order.append(name)
        bulkhead.leave()

    tasks = [asyncio.create_task(enter(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert not bulkhead.try_enter()
    bulkhead.leave()
    await asyncio.gather(*tasks)

    assert order == ["a", "b", "c"]
    assert (bulkhead.running, bulkhead.waiting) == (0, 0)


async def test_wait_ends_in_time():
    bulkhead = Bulkhead(1, 10)
    bulkhead.try_enter()

    assert not await bulkhead.enter(0)
    assert (bulkhead.running, bulkhead.waiting) == (1, 0)


async def test_full_queue_refuses_at_once():
    bulkhead = Bulkhead(1, 0)
    bulkhead.try_enter()

    assert not await bulkhead.enter(3600)


async def test_turn_of_a_cancelled_call_passes_on():
    """Both in one turn of the event loop: the slot must not be lost."""
    bulkhead = Bulkhead(1, 10)
    bulkhead.try_enter()
    first, second = (asyncio.create_task(bulkhead.enter(5)) for _ in range(2))
    await asyncio.sleep(0)

    bulkhead.leave()
    first.cancel()

    assert await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert bulkhead.running == 1


class Machine(RuleBasedStateMachine):
    """The bulkhead against a number and a list."""

    ROOM, QUEUE = 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.bulkhead = Bulkhead(self.ROOM, self.QUEUE)
        self.running = 0
        self.queue: list[asyncio.Task[bool]] = []

    def teardown(self) -> None:
        for task in self.queue:
            task.cancel()
        self.turn()
        self.loop.close()

    def turn(self) -> None:
        async def spin() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        self.loop.run_until_complete(spin())

    @rule()
    def enter(self) -> None:
        task = self.loop.create_task(self.bulkhead.enter(3600))
        self.turn()
        if self.running < self.ROOM:
            assert task.result()
            self.running += 1
        elif len(self.queue) < self.QUEUE:
            assert not task.done()
            self.queue.append(task)
        else:
            assert task.result() is False

    @precondition(lambda self: self.running)
    @rule()
    def leave(self) -> None:
        self.bulkhead.leave()
        self.turn()
        if self.queue:
            assert self.queue.pop(0).result()
        else:
            self.running -= 1

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.queue.pop(data.draw(st.integers(0, len(self.queue) - 1))).cancel()
        self.turn()

    @precondition(lambda self: self.queue)
    @rule()
    def leave_and_give_up_at_once(self) -> None:
        self.bulkhead.leave()
        self.queue.pop(0).cancel()
        self.turn()
        if self.queue:
            assert self.queue.pop(0).result()
        else:
            self.running -= 1

    @invariant()
    def they_agree(self) -> None:
        assert self.bulkhead.running == self.running
        assert self.bulkhead.waiting == len(self.queue)


TestMachine = Machine.TestCase
