"""Measures whether the memory of a gateway grows over millions of redirects."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from bench.load import Load, Visit, flood
from bench.results import Bar, Result, Run, Side
from bench.site import Site

_BAR = Bar(at_most=1.05)
_STEPS = 10


def measure(site: Site, visit: Visit, redirects: int, run: Run, turn: Callable[[str], None]) -> Result:
    """Send *redirects* requests to *site*; compare the memory at the end with that after a tenth."""
    server = site.server("hopgate")
    done, steps = 0, list[float]()
    loads: list[Load] = []
    while done < redirects:
        loads.append(flood(server, visit, seconds=run.seconds))
        done += loads[-1].requests
        while len(steps) < _STEPS and done >= redirects * (len(steps) + 1) / _STEPS:
            steps.append(server.rss_mb())
            turn(f"{done:,} redirects, {steps[-1]:.0f} MB")
    whole = dataclasses.replace(loads[-1], requests=done, bad=sum(load.bad for load in loads))
    sides = [
        Side("end", "at the end", [whole], rss_mb=steps[-1]),
        Side("tenth", "after a tenth", [loads[0]], rss_mb=steps[0]),
    ]
    return Result(
        "memory",
        f"Memory over {redirects:,} redirects",
        "`wrk -c64` over the Zipf list on the full stack: links enter the L1 cache, are renewed and evicted.",
        "rss_mb",
        sides,
        {"tenth": _BAR},
        run,
        [f"MB after each tenth: {', '.join(f'{step:.0f}' for step in steps)}."],
    )


def turns() -> int:
    """Return how often `measure` calls `turn`."""
    return _STEPS
