"""Waiters that give up: their slots go to the others, and the rate holds."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

import pytest
from hopgate_limiter import Limiter, ManualClock, Rate, RateLimitExceeded, Reservation
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.budgets import examples

SECOND = 10**9
algorithms = pytest.mark.parametrize("algorithm", ["gcra", "sliding_log", "sliding_window"])
quick = settings(max_examples=examples(60))


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def wait_s(limiter: Limiter) -> float:
    return limiter.peek("k").retry_after


def orders(tasks: list[asyncio.Task[object]]) -> Iterator[list[asyncio.Task[object]]]:
    yield tasks
    yield tasks[::-1]
    yield tasks[1::2] + tasks[::2]


@algorithms
@pytest.mark.parametrize("order", range(3))
async def test_all_waiters_cancelled(algorithm, order):
    """In whatever order they go, a key without waiters owes what was admitted, and nothing else."""
    clock = ManualClock(SECOND)
    limiter = Limiter("10/s", algorithm=algorithm, clock=clock)
    assert limiter.allow("k", 10)
    owed = wait_s(limiter)
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(limiter.acquire_async("k")) for _ in range(1000)]
    await turns(2)
    assert wait_s(limiter) > 90
    for task in list(orders(tasks))[order]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert wait_s(limiter) == owed


@algorithms
async def test_all_waiters_of_a_group_time_out(algorithm):
    """`asyncio.timeout` around a task group leaves nothing booked."""
    limiter = Limiter("10/s", algorithm=algorithm)
    assert limiter.allow("k", 10)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05), asyncio.TaskGroup() as group:
            for _ in range(200):
                group.create_task(limiter.acquire_async("k"))

    assert wait_s(limiter) <= (0.1 if algorithm == "gcra" else 1.1)


@algorithms
async def test_waiters_behind_a_cancelled_one_move_up(algorithm):
    """Those that stay are served in order, at the rate, as if the others had never come."""
    clock = ManualClock(SECOND)
    limiter = Limiter("1/s", algorithm=algorithm, precision=1000, clock=clock)
    assert limiter.allow("k")
    served: list[int] = []

    async def client(number: int) -> None:
        assert await limiter.acquire_async("k")
        served.append(number)

    tasks = [asyncio.create_task(client(number)) for number in range(10)]
    await turns()
    for gone in (0, 1, 4, 5, 6):
        tasks[gone].cancel()
    await turns()
    for expected in ([2], [2, 3], [2, 3, 7], [2, 3, 7, 8], [2, 3, 7, 8, 9]):
        assert served == expected[:-1]
        clock.advance(SECOND + SECOND // 1000)
        await turns()
        assert served == expected
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
async def test_a_key_with_impatient_clients_serves_its_rate(algorithm):
    """Twice the rate, each client gone after a while: the key still admits its rate."""
    limiter = Limiter("100/s burst 10" if algorithm == "gcra" else "10/100ms", algorithm=algorithm)
    served = 0

    async def client() -> None:
        nonlocal served
        with suppress(TimeoutError):
            await asyncio.wait_for(limiter.acquire_async("k"), 0.03)
            served += 1

    async with asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(200):
            await asyncio.sleep(start + number * 0.005 - loop.time())
            group.create_task(client())

    # One second and the burst: 110 at the most.
    assert 80 <= served <= 113


@algorithms
def test_cancelled_reservations_come_back_with_the_last(algorithm):
    """A reserved time never moves; once nothing is reserved behind them, cancelled slots are free again."""
    clock = ManualClock(SECOND)
    limiter = Limiter("1/s", algorithm=algorithm, precision=1000, clock=clock)
    assert limiter.allow("k")
    owed = wait_s(limiter)
    slots = [limiter.reserve("k") for _ in range(5)]
    last = slots[-1].delay
    for slot in slots[:-1]:
        slot.cancel()
        assert slots[-1].delay == last
        assert wait_s(limiter) > last
    slots[-1].cancel()

    assert wait_s(limiter) == owed


def test_threads_move_up():
    """A thread that waits behind a reservation takes its time when that is cancelled."""
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    assert limiter.allow("k")
    first = limiter.reserve("k")
    thread = threading.Thread(target=lambda: limiter.acquire("k"))
    thread.start()
    while limiter.stats().allowed < 3:
        thread.join(0.001)
    first.cancel()
    clock.advance(SECOND)
    thread.join(5)
    assert not thread.is_alive()


async def test_a_waiter_cancelled_when_its_slot_has_come_gives_it_back():
    """Its slot has started, but it has not: nothing was used."""
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    assert limiter.allow("k")
    first, second = (asyncio.create_task(limiter.acquire_async("k")) for _ in range(2))
    await turns()
    clock.advance(SECOND)
    first.cancel()
    await turns()

    assert second.done()
    assert await second
    assert wait_s(limiter) == 1.0


class Crowd:
    """Callers of one key that wait, reserve, hit and leave, and the calls served."""

    def __init__(self, algorithm: str) -> None:
        self.clock = ManualClock(1000)
        self.limiter = Limiter(Rate(4, "40ns"), algorithm=algorithm, precision=5, clock=self.clock)  # type: ignore[arg-type]
        self.served: list[tuple[int, int]] = []
        self.waiting: list[tuple[Reservation, int]] = []
        self.reserved: list[tuple[Reservation, int, int]] = []

    def serve(self) -> None:
        while self.waiting and self.waiting[0][0].delay == 0.0:
            slot, cost = self.waiting.pop(0)
            slot._serve()
            self.served.append((self.clock.now_ns, cost))

    def pass_time(self, ns: int) -> None:
        for _ in range(ns):
            self.clock.advance(1)
            self.serve()

    def wait(self, cost: int) -> None:
        _, slot = self.limiter._reserve("k", cost, None)
        assert slot is not None
        self.waiting.append((slot, cost))

    def reserve(self, cost: int) -> None:
        slot = self.limiter.reserve("k", cost)
        self.reserved.append((slot, self.clock.now_ns + round(slot.delay * 1e9), cost))

    def hit(self, cost: int) -> None:
        if self.limiter.allow("k", cost):
            self.served.append((self.clock.now_ns, cost))

    def leave(self, number: int) -> None:
        if self.waiting:
            self.waiting.pop(-number % len(self.waiting))[0].cancel()

    def cancel(self, number: int) -> None:
        if self.reserved:
            self.reserved.pop(-number % len(self.reserved))[0].cancel()

    def peek(self, cost: int) -> None:
        seen = self.limiter.peek("k", cost)
        assert seen.allowed or seen.retry_after > 0.0


@algorithms
@quick
@given(
    plan=st.lists(
        st.tuples(
            st.sampled_from(["wait", "wait", "wait", "reserve", "hit", "leave", "cancel", "peek"]),
            st.integers(1, 4),
            st.sampled_from([0, 0, 1, 10, 35]),
        ),
        max_size=40,
    )
)
def test_whatever_is_cancelled_the_rate_holds(algorithm, plan):
    """TB1, SL1: the calls that are served keep the rate, whichever leave, and all are served."""
    crowd = Crowd(algorithm)
    for verb, number, wait in plan:
        crowd.pass_time(wait)
        getattr(crowd, verb)(number)
        crowd.serve()
    crowd.pass_time(50 * len(plan))
    assert crowd.waiting == []

    hits = sorted(crowd.served + [(at, cost) for _, at, cost in crowd.reserved])
    for i, (start, _) in enumerate(hits):
        total = 0
        for end, cost in hits[i:]:
            total += cost
            if algorithm == "gcra":
                assert total <= 4 + Fraction(end - start, 10)
            elif end - start < 40:
                assert total <= 4


@algorithms
def test_looser_rate_frees_a_key_with_reservations(algorithm):
    """TB14 with waiters: after `configure` a call waits for what the new rate demands, not the old."""
    clock = ManualClock(SECOND)
    limiter = Limiter("1/h", algorithm=algorithm, clock=clock)
    assert limiter.allow("k")
    slot = limiter.reserve("k")
    limiter.configure(Rate(1000, "1h" if algorithm != "gcra" else "1s", name="1/h"))

    assert limiter.allow("k")
    assert slot.delay < 1.0


@pytest.mark.parametrize("change", ["configure", "reset", "refund", "cancel"])
async def test_waiters_wake_when_there_is_room(change):
    """Whatever makes room for a waiter wakes it: tasks and threads."""
    limiter = Limiter("1/h")
    first = limiter.reserve("k")
    if change == "cancel":
        first = limiter.reserve("k")
    tasks = [
        asyncio.create_task(limiter.acquire_async("k")),
        asyncio.create_task(asyncio.to_thread(limiter.acquire, "k")),
    ]
    while limiter.stats().allowed < (4 if change == "cancel" else 3):
        await asyncio.sleep(0.001)
    match change:
        case "configure":
            limiter.configure("1000/s")
        case "reset":
            limiter.reset("k")
        case "refund":
            limiter.refund("k")
        case _:
            first.cancel()
            limiter.refund("k")
    done, pending = await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert done
    limiter.configure("1000/s")
    if pending:
        await asyncio.wait(pending, timeout=5)
    assert all(task.done() for task in tasks)


def test_a_reservation_too_late_takes_nothing():
    """A refused reservation leaves no trace behind others that wait."""
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    assert limiter.allow("k")
    waiting = limiter.reserve("k")
    with pytest.raises(RateLimitExceeded):
        limiter.reserve("k", max_wait=1.5)
    waiting.cancel()
    assert wait_s(limiter) == 1.0
