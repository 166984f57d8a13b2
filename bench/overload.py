"""Measures goodput, latency and recovery of a gateway at three times its capacity."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench import load
from bench.load import Load, Seen, Visit
from bench.open_loop import Plan, read
from bench.processes import LOAD_CPU, Server
from bench.results import Bar, Check, Result, Run, Side
from bench.site import Stack, flush_redis, numbered_slug

RESULTS = ("overload",)
# So many that none repeats within minutes, and Redis is empty: each visit is looked up in
# PostgreSQL, and none can be served from the L1 cache.
_LINKS, _QUICK_LINKS = 900_000, 150_000
_FOR_CAPACITY = 100_000
# A create costs ten times as much as a refusal, a look-up three times: with look-ups only, a gateway at
# three times its capacity would spend all of its time on refusals.
_CREATE_EVERY = 2
_GOOD = (302, 201)
# Multiples of the capacity; the last phase has the rate of the first.
_USUAL, _TOO_MUCH = 0.5, 3.0
_BEFORE_S, _AFTER_S = 8, 10
_SECONDS, _QUICK_SECONDS = 60, 6
# Start-up effects of the first phase are left out.
_SETTLE_S = 3
# Enough for a pause of a fifth of a second. With fewer, a gateway that is late for a moment would have to
# accept one more connection for each request, which makes it later still.
_OPENED, _CONNECTIONS = 2000, 8000
_TRIES = 3


def measure(stack: Stack, run: Run, turn: Callable[[str], None], *, quick: bool) -> list[Result]:
    """Find the capacity, then send half of it, three times as much, and half again."""
    links, seconds = (_QUICK_LINKS, _QUICK_SECONDS) if quick else (_LINKS, _SECONDS)
    site = stack.site(links)
    slugs = [numbered_slug(number) for number in range(links)]
    some, others = site.paths("some", slugs[:_FOR_CAPACITY]), site.paths("others", slugs[_FOR_CAPACITY:])
    visit = Visit(paths=some, right=_GOOD, create_every=_CREATE_EVERY, key=site.key)
    with site.gateway() as gateway:
        flush_redis(site)
        load.flood(gateway, visit, seconds=2)
        peaks = []
        for number in range(1, _TRIES + 1):
            turn("capacity")
            # Each try starts elsewhere in the list: links requested before would be L1 hits.
            peaks.append(load.flood(gateway, visit, seconds=3, start=number * _FOR_CAPACITY // (_TRIES + 1)))
        peak = max(peaks, key=_goodput)
        capacity = _goodput(peak)
        turn(f"three times {capacity:,.0f}/s")
        phases = [(_USUAL, _BEFORE_S), (_TOO_MUCH, seconds), (_USUAL, _AFTER_S)]
        plan = Plan(
            port=gateway.port,
            paths=str(others),
            key=site.key,
            create_every=_CREATE_EVERY,
            opened=_OPENED,
            connections=_CONNECTIONS,
            phases=[(share * capacity, phase_s) for share, phase_s in phases],
        )
        with _health_checked(gateway) as health:
            seen = _open_loop(plan, site.folder)
    return [_result(peak, seen, seconds, health, run)]


def turns(*, quick: bool) -> int:
    """Return how often `measure` calls `turn`."""
    return _TRIES + 1


def _goodput(seen: Load) -> float:
    return seen.per_second * (1 - seen.bad / seen.requests)


def _open_loop(plan: Plan, folder: Path) -> list[Seen]:
    planned, answers = folder / "plan.json", folder / "answers"
    planned.write_bytes(msgspec.json.encode(plan))
    command = [sys.executable, "-m", "bench.open_loop", str(planned), str(answers)]
    subprocess.run(["taskset", "--cpu-list", str(LOAD_CPU), *command], check=True)
    return read(answers)


def _result(peak: Load, seen: Sequence[Seen], seconds: int, health: Sequence[int], run: Run) -> Result:
    begin_us = min(one.at_us for one in seen)
    too_much_us = begin_us + _BEFORE_S * 1_000_000
    drop_us = too_much_us + seconds * 1_000_000
    before = [one for one in seen if begin_us + _SETTLE_S * 1_000_000 <= one.at_us < too_much_us]
    during = [one for one in seen if too_much_us <= one.at_us < drop_us]
    good = [one for one in during if one.status in _GOOD]
    usual, admitted = load.put_together(before, _GOOD), load.put_together(good, _GOOD)
    admitted = dataclasses.replace(admitted, per_second=len(good) / seconds)
    statuses = Counter(one.status for one in during)
    errors_s = [
        (one.at_us - drop_us) / 1e6 for one in seen if one.at_us >= drop_us and one.status not in _GOOD
    ]
    sent = 1 - statuses[-1] / len(during)
    counts = ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))
    return Result(
        "overload",
        "Overload: three times its capacity",
        "Each link is requested once and Redis is empty, so each is looked up in PostgreSQL; one request in "
        f"{_CREATE_EVERY} is a create. Capacity: the best of three turns of `wrk -c64`. "
        f"Then an open loop (`bench/open_loop.py`): half the capacity for {_BEFORE_S} s, three times the "
        f"capacity for {seconds} s, half for {_AFTER_S} s, on {_OPENED:,} open connections, and more when "
        "all are busy. Latency counts from when a request was due. The load shares a "
        "processor with PostgreSQL.",
        "per_second",
        [
            Side("overload", "302 or 201 at three times its capacity", [admitted]),
            Side("capacity", "capacity", [dataclasses.replace(peak, per_second=_goodput(peak))]),
            Side("half", "half of its capacity", [usual]),
        ],
        {"capacity": Bar(at_least=0.8)},
        run,
        [f"Offered {len(during) / seconds:,.0f}/s: {counts} (0: no answer, -1: not sent)."],
        [
            Check("share of due requests that were sent,", sent, Bar(at_least=0.99)),
            Check("p99 of admitted requests ÷ p99 at half", admitted.p99_ms / usual.p99_ms, Bar(at_most=3)),
            Check("last error after the load drops", max(errors_s, default=0.0), Bar(at_most=5), " s"),
            Check("health checks other than 200", sum(status != 200 for status in health), Bar(at_most=0)),
        ],
    )


@contextmanager
def _health_checked(gateway: Server) -> Iterator[Sequence[int]]:
    """Request /healthz while the body runs and collect the statuses; 0 without a response."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.1):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/healthz", timeout=2) as answer:
                    statuses.append(answer.status)
            except urllib.error.HTTPError as error:
                statuses.append(error.code)
            except OSError:
                statuses.append(0)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask)
        try:
            yield statuses
        finally:
            over.set()
