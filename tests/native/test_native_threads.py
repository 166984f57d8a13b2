"""Class 16: threads that race for the last units, in one interpreter."""

import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from hopgate_limiter import Limiter, ManualClock, Rate

algorithms = pytest.mark.parametrize("algorithm", ["gcra", "sliding_log", "sliding_window"])


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """Make the interpreter switch threads as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run(threads: int, work: Callable[[int], int]) -> list[int]:
    results = [0] * threads
    ready = threading.Barrier(threads)

    def body(index: int) -> None:
        ready.wait()
        results[index] = work(index)

    pool = [threading.Thread(target=body, args=(index,)) for index in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    return results


@algorithms
def test_threads_admit_exactly_the_burst(algorithm):
    """TB13: n threads × m hits at a frozen clock are exactly min(n·m, burst) admissions."""
    limiter = Limiter(Rate(5000, "1h"), algorithm=algorithm, clock=ManualClock(10**15))
    admitted = run(8, lambda _: sum(limiter.allow("k") for _ in range(2000)))

    assert sum(admitted) == 5000
    stats = limiter.stats()
    assert (stats.allowed, stats.denied) == (5000, 11_000)


@algorithms
def test_refunds_and_hits_balance(algorithm):
    """Units that threads take and refund are all available again."""
    limiter = Limiter(Rate(8, "1h"), algorithm=algorithm, clock=ManualClock(10**15))

    def take_and_return(_: int) -> int:
        for _ in range(1000):
            assert limiter.hit("k")
            limiter.refund("k")
        return 0

    run(8, take_and_return)
    assert limiter.peek("k").remaining == 8


def test_many_keys_in_many_threads():
    """New keys from all threads at once: every key is limited on its own, none is lost in growth."""
    limiter = Limiter("1/h", clock=ManualClock())
    admitted = run(8, lambda _: sum(limiter.allow(key) for key in range(5000)))
    assert sum(admitted) == 5000
    assert limiter.stats().keys == 5000


def test_reconfiguring_under_traffic():
    """configure is atomic: spent units stay spent however often the rates change meanwhile."""
    limiter = Limiter("100/h", clock=ManualClock())

    def work(index: int) -> int:
        if index == 0:
            for number in range(300):
                limiter.configure(f"{100 if number % 2 else 1000}/h burst 100")
            return 0
        return sum(limiter.allow("k") for _ in range(500))

    assert sum(run(4, work)) == 100


def test_slots_of_many_threads_are_distinct():
    """W2: concurrent reservations get slots one interval apart, in any order of calls."""
    limiter = Limiter("1/s", clock=ManualClock())
    slots: list[float] = []

    def reserve(_thread: int) -> int:
        slots.extend(limiter.reserve("k").delay for _ in range(50))
        return 0

    run(8, reserve)
    assert sorted(slots) == [float(second) for second in range(400)]
