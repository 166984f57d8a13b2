from __future__ import annotations

import asyncio

import pytest

from app.concurrency.tarpit import Tarpit


class Sleep:
    """Records the durations, and lasts until the test ends it."""

    def __init__(self):
        self.asked = []
        self.over = asyncio.Event()

    async def __call__(self, seconds):
        self.asked.append(seconds)
        await self.over.wait()


@pytest.fixture
def sleep():
    return Sleep()


@pytest.fixture
def tarpit(monotonic, sleep):
    return Tarpit(free_per_s=8, burst=3, delay_s=0.1, max_held=2, monotonic=monotonic, sleep=sleep)


async def started(*coroutines):
    tasks = [asyncio.create_task(one) for one in coroutines]
    await asyncio.sleep(0)
    return tasks


async def test_few_responses_pass_at_once(tarpit, sleep, monotonic):
    for _ in range(5):
        for _ in range(3):
            await tarpit.hold()
        monotonic.now += 1

    assert sleep.asked == []


async def test_responses_beyond_the_rate_are_delayed(tarpit, sleep, monotonic):
    for _ in range(3):
        await tarpit.hold()
    tasks = await started(tarpit.hold())
    assert (sleep.asked, tarpit.held) == ([0.1], 1)

    monotonic.now += 1 / 8
    await tarpit.hold()
    sleep.over.set()
    await asyncio.gather(*tasks)

    assert (sleep.asked, tarpit.held) == ([0.1], 0)


async def test_delayed_responses_are_bounded(tarpit, sleep):
    """Each delayed response takes memory."""
    tasks = await started(*(tarpit.hold() for _ in range(3 + 2 + 10)))

    assert len(sleep.asked) == 2
    assert sum(task.done() for task in tasks) == 3 + 10
    sleep.over.set()
    await asyncio.gather(*tasks)


async def test_cancelled_response_is_released(tarpit, sleep):
    tasks = await started(*(tarpit.hold() for _ in range(5)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert tarpit.held == 0
