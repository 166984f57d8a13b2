"""Compares the cost of a redirect among a million links with that among a thousand."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from bench.load import Load, Visit, flood, one_by_one
from bench.results import Bar, Result, Run, Side
from bench.site import Site, Stack, flush_redis, numbered_slug

FEW = 1000
# Longer than the lifetime of an entry in the L1 cache.
_FORGET_S = 2.1
_BAR = Bar(at_most=1.15)


def measure(stack: Stack, many: int, run: Run, turn: Callable[[str], None]) -> list[Result]:
    """Return two results, for *many* links against `FEW`; *turn* is called before each visit."""
    turn(f"creating {many:,} links")
    sites = {f"{count:,} links": stack.site(count) for count in (many, FEW)}
    counts = dict(zip(sites, (many, FEW), strict=True))
    l1: dict[str, list[Load]] = {name: [] for name in sites}
    cold: dict[str, list[Load]] = {name: [] for name in sites}
    for number in range(-1, run.rounds):  # the first round only warms up
        for name, site in sites.items():
            visit = _visit(site, counts[name], random.Random(number))
            turn(f"{name}, PostgreSQL look-up")
            flush_redis(site)
            time.sleep(_FORGET_S)
            first = one_by_one(site.server("hopgate"), visit, count=FEW)
            turn(f"{name}, L1 hit")
            later = flood(site.server("hopgate"), visit, seconds=run.seconds)
            if number >= 0:
                cold[name].append(first)
                l1[name].append(later)
    return [
        _result(
            "growth-hot",
            f"{many:,} links against {FEW:,}: L1 hit",
            f"`wrk -c64` over {FEW:,} links in both cases, drawn at random.",
            l1,
            run,
        ),
        _result(
            "growth-cold",
            f"{many:,} links against {FEW:,}: PostgreSQL look-up",
            f"`h2load -c1`, {FEW:,} links once each; Redis and the L1 cache are empty.",
            cold,
            run,
        ),
    ]


def turns(rounds: int) -> int:
    """Return how often `measure` calls `turn`."""
    return 1 + 4 * (rounds + 1)


def _visit(site: Site, links: int, choose: random.Random) -> Visit:
    chosen = choose.sample(range(links), FEW)
    return Visit(paths=site.paths("drawn", [numbered_slug(number) for number in chosen]))


def _result(name: str, title: str, method: str, loads: dict[str, list[Load]], run: Run) -> Result:
    sides = [Side(side, f"Hopgate, {side}", seen) for side, seen in loads.items()]
    return Result(name, title, method, "us_each", sides, {sides[1].name: _BAR}, run)
