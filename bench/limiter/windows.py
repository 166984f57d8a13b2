"""The worst window of a log of admissions, found exactly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

Interval = tuple[int, int]
"""Just before the call and just after it, ns: the admission was made at some time in between."""


class Worst(NamedTuple):
    """The window with the most admissions beyond the rate."""

    units: float
    """Admissions inside the window less rate × length: at most the burst, if the limit was kept."""
    start_ns: int
    end_ns: int


def worst_window(admissions: Sequence[Interval], per_second: float) -> Worst:
    """
    Return the window (s, t] with the most admissions inside it, less its refill.

    An admission counts if it was certainly made in the window: begun after s and over by t. So a bound that
    is found broken is broken, for any duration of the calls. n · log n: windows end where a call does and
    start just before one. Ended calls are put into a tree ordered by their beginning; a weight is 1 for each
    call less the refill until the next one begins, so that a window's excess is the sum of all weights from
    its first call on.
    """
    if not admissions:
        return Worst(0.0, 0, 0)
    rate = per_second / 1e9
    starts = sorted(before for before, _ in admissions)
    place = {number: rank for rank, number in enumerate(_by_start(admissions))}
    size = 1 << (len(starts) - 1).bit_length()
    gaps = [rate * (late - early) for early, late in itertools.pairwise(starts)]
    total = [0.0] * size + [-gap for gap in gaps] + [0.0] * (size - len(gaps))
    # The best sum of a node's last weights, where a window may start: before a call that has ended.
    best = [float("-inf")] * (2 * size)
    for node in range(size - 1, 0, -1):
        total[node] = total[2 * node] + total[2 * node + 1]
    worst = Worst(0.0, starts[0], starts[0])
    for number in sorted(range(len(admissions)), key=lambda number: admissions[number][1]):
        node = size + place[number]
        total[node] += 1.0
        best[node] = total[node]
        while node > 1:
            node //= 2
            _join(total, best, node)
        end = admissions[number][1]
        # The tree counts up to the last beginning; the window ends here.
        units = best[1] + rate * (starts[-1] - end)
        if units > worst.units:
            worst = Worst(units, 0, end)
    if not worst.units:
        return worst
    return worst._replace(start_ns=_start_of(admissions, rate, worst.end_ns))


def _join(total: list[float], best: list[float], node: int) -> None:
    left, right = 2 * node, 2 * node + 1
    total[node] = total[left] + total[right]
    best[node] = max(best[right], best[left] + total[right])


def _by_start(admissions: Sequence[Interval]) -> list[int]:
    return sorted(range(len(admissions)), key=lambda number: admissions[number][0])


def _start_of(admissions: Sequence[Interval], rate: float, end_ns: int) -> int:
    """Return the start of the worst window that ends at `end_ns`."""
    inside = sorted((before for before, after in admissions if after <= end_ns), reverse=True)
    excess = {before: count - rate * (end_ns - before) for count, before in enumerate(inside, start=1)}
    return max(excess, key=lambda before: excess[before])
