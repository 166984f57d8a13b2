"""The polls that streams of live numbers share."""

from __future__ import annotations

import asyncio

import pytest

from app.console.live import POLL_S, Polls
from app.domain.errors import Unavailable
from app.resilience.admission import LATE_TICKS, AdmissionController


class Figures:
    """What polls ask; each answer is the number of those before it, and takes *takes_s*."""

    def __init__(self, clock) -> None:
        self.clock = clock
        self.admission = AdmissionController(monotonic=clock)
        self.polls: Polls[str, int] = Polls(self.admission, monotonic=clock)
        self.asked = 0
        self.takes_s = 0.0
        self.fails: Exception | None = None

    async def ask(self) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        self.clock.now += self.takes_s
        if self.fails is not None:
            raise self.fails
        return self.asked

    async def get(self, key: str = "link") -> int | None:
        return await self.polls.get(key, self.ask)


@pytest.fixture
def figures(monotonic) -> Figures:
    return Figures(monotonic)


async def test_readers_share_one_poll_a_second(figures):
    assert await asyncio.gather(*(figures.get() for _ in range(100))) == [1] * 100

    figures.clock.now += 0.99 * POLL_S
    assert await figures.get() == 1
    figures.clock.now += 0.02 * POLL_S
    assert await asyncio.gather(*(figures.get() for _ in range(100))) == [2] * 100
    assert await figures.get("another") == 3


async def test_slow_figures_are_asked_for_less_often(figures):
    figures.takes_s = 1.0
    await figures.get()

    figures.clock.now += 8.9
    assert await figures.get() == 1
    figures.clock.now += 0.2
    assert await figures.get() == 2


@pytest.mark.parametrize("error", [Unavailable("store", "away"), TimeoutError()])
async def test_figures_that_cannot_be_asked_for_stay(figures, error):
    figures.fails = error
    assert await figures.get("first") is None
    assert await figures.get("first") is None
    assert figures.asked == 1

    figures.fails = None
    figures.clock.now += 1.1 * POLL_S
    assert await figures.get("first") == 2
    figures.fails = error
    figures.clock.now += 1.1 * POLL_S
    assert await figures.get("first") == 2
    assert figures.asked == 3


async def test_overloaded_process_asks_for_nothing(figures):
    await figures.get()
    for _ in range(LATE_TICKS):
        figures.admission.tick(0.06)

    figures.clock.now += 1.1 * POLL_S
    assert await figures.get() == 1
    assert await figures.get("another") is None
    assert figures.asked == 1
    assert figures.admission.in_flight == 0


async def test_figures_without_readers_are_forgotten(figures):
    for number in range(50):
        await figures.get(str(number))
    figures.clock.now += 60
    await figures.get("present")

    assert list(figures.polls._kept) == ["present"]
