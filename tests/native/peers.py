"""
Scenarios of other limiters' test suites, replayed here: what runs them.

A scenario is a rate, an algorithm and a script of words, each a call on a manual clock and its outcome:

    hit5 no2   a hit of 5 units is admitted, one of 2 is refused
    fit5 full  a peek says that 5 units would be admitted, that one would be refused
    left3      3 units are left
    wait1.5    one unit has to wait for 1.5 s; wait5=2.5: 5 units for 2.5 s
    empty1.5   the key is as new after 1.5 s
    never6     6 units never fit
    +1.5       1.5 s pass
    back2      2 units are given back; `clear` forgets the key
    hit*10     ten times; b:hit: for the key "b"

A scenario that words cannot say is a function. One that this limiter decides otherwise says why, and checks
what it does instead.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import pytest
from hopgate_limiter import Limiter, ManualClock

_WORD = re.compile(
    r"((?P<key>[a-z0-9]+):)?(?P<verb>\+|[a-z]+)(?P<number>[\d.]+)?(=(?P<expected>[\d.]+))?(\*(?P<times>\d+))?"
)

Play = Callable[[], Coroutine[object, object, None] | None]


@dataclass(frozen=True)
class Scenario:
    """What one test of a suite asks of a limiter."""

    name: str
    play: Play
    by_design: str = ""
    """Why this limiter decides otherwise; empty if it agrees."""


def script(
    name: str, rates: str, words: str, algorithm: str = "gcra", *, by_design: str = "", start_s: float = 1e6
) -> Scenario:
    """Make a scenario of words."""
    return Scenario(name, lambda: play(rates, words, algorithm, start_s), by_design)


def play(rates: str, words: str, algorithm: str, start_s: float) -> None:
    """Run *words* against a new limiter."""
    clock = ManualClock(round(start_s * 1e9))
    limiter = Limiter(rates, algorithm=algorithm, clock=clock)  # type: ignore[arg-type]
    for word in words.split():
        parsed = _WORD.fullmatch(word)
        assert parsed, word
        for _ in range(int(parsed["times"] or 1)):
            _step(limiter, clock, parsed)


Ask = Callable[[Limiter, str, int, float], object]
_ASK: dict[str, Ask] = {
    "hit": lambda limiter, key, cost, _: limiter.hit(key, cost),
    "no": lambda limiter, key, cost, _: not limiter.hit(key, cost),
    "fit": lambda limiter, key, cost, _: limiter.peek(key, cost),
    "full": lambda limiter, key, cost, _: not limiter.peek(key, cost),
    "left": lambda limiter, key, cost, _: limiter.peek(key).remaining == cost,
    "wait": lambda limiter, key, cost, seconds: math.isclose(
        limiter.peek(key, cost).retry_after, seconds, abs_tol=1e-6
    ),
    "empty": lambda limiter, key, _, seconds: math.isclose(
        limiter.peek(key).reset_after, seconds, abs_tol=1e-6
    ),
    "never": lambda limiter, key, cost, _: limiter.hit(key, cost).retry_after == math.inf,
}


def _step(limiter: Limiter, clock: ManualClock, word: re.Match[str]) -> None:
    key, verb, number, expected = word["key"] or "k", word["verb"], word["number"] or "1", word["expected"]
    if verb == "+":
        clock.advance(round(float(number) * 1e9))
    elif verb == "back":
        limiter.refund(key, int(number))
    elif verb == "clear":
        limiter.reset(key)
    elif verb in ("wait", "empty") and expected is None:
        assert _ASK[verb](limiter, key, 1, float(number)), word[0]
    else:
        assert _ASK[verb](limiter, key, int(number), float(expected or 0)), word[0]


def both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    """Make one scenario of two."""

    def play_both() -> None:
        first()
        second()

    return play_both


def scenarios(suite: str, rows: list[Scenario]) -> pytest.MarkDecorator:
    """Parametrise a test by the scenarios of *suite*."""
    assert len({row.name for row in rows}) == len(rows), suite
    ids = [f"{suite}-{'by_design-' if row.by_design else ''}{row.name}" for row in rows]
    return pytest.mark.parametrize("scenario", rows, ids=ids)


def run(scenario: Scenario) -> None:
    """Run it, in an event loop if it needs one."""
    if inspect.iscoroutinefunction(scenario.play):
        asyncio.run(scenario.play())
    else:
        assert scenario.play() is None
