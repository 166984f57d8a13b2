from __future__ import annotations

from functools import partial

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from app.resilience.retry import RetryBudget, full_jitter_s
from app.resilience.window import Window


@pytest.mark.parametrize(
    ("attempt", "limit"), [(0, 0.1), (1, 0.2), (3, 0.8), (4, 1.0), (60, 1.0), (10_000, 1.0)]
)
def test_full_jitter_draws_up_to_a_doubling_limit(attempt, limit):
    draws = [full_jitter_s(attempt, base_s=0.1, cap_s=1.0, random=partial(float, d)) for d in (0.0, 0.5, 1.0)]

    assert draws == pytest.approx([0, limit / 2, limit])


def test_first_retries_need_no_calls():
    budget = RetryBudget(ratio=0.2, min_per_s=0.3, window_s=10)

    assert [budget.take(0.0) for _ in range(5)] == [True, True, True, False, False]
    assert budget.take(10.0)


def test_retries_are_a_share_of_the_calls():
    """An outage in which every call fails adds a fifth to the load."""
    budget = RetryBudget(ratio=0.2, min_per_s=0.0, window_s=10)
    allowed = 0
    for number in range(1000):
        budget.note_call(number / 100)
        allowed += budget.take(number / 100)

    assert allowed == 200


class BudgetMachine(RuleBasedStateMachine):
    """The budget against two lists of times."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 50.0
        self.budget = RetryBudget(ratio=0.25, min_per_s=0.2, window_s=5)
        self.calls: list[int] = []
        self.retries: list[int] = []

    def recent(self, ticks: list[int]) -> int:
        return sum(tick > int(self.now) - 5 for tick in ticks)

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 5.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 10))
    def call(self, count: int) -> None:
        for _ in range(count):
            self.budget.note_call(self.now)
        self.calls += [int(self.now)] * count

    @rule()
    def retry(self) -> None:
        allowed = self.recent(self.retries) + 1 <= 0.2 * 5 + 0.25 * self.recent(self.calls)
        assert self.budget.take(self.now) == allowed
        if allowed:
            self.retries.append(int(self.now))


TestBudget = BudgetMachine.TestCase


def test_window_is_empty_after_a_long_pause():
    window = Window(1, buckets=10)
    window.add(3.0, 0)

    assert window.totals(12.9) == (1,)
    assert window.totals(13.0) == (0,)
    window.add(1e9, 0)
    assert window.totals(1e9) == (1,)
