"""Counts clicks during an outage of RabbitMQ, and the clicks that a SIGKILL of a gateway loses."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench import load
from bench.load import Load, Visit
from bench.matrix import zipf
from bench.results import Bar, Check, Result, Run, Side
from bench.site import Site, Stack, numbered_slug

RESULTS = ("clicks", "clicks-killed")
_LINKS = 10_000
_REDIRECTS, _QUICK_REDIRECTS = 1_000_000, 60_000
_KILLS, _QUICK_KILLS = 5, 1
# A worker counts a message in milliseconds; spooled clicks follow within seconds.
_DRAIN_S = 60.0
# The documented loss: the clicks of one second and those of the publish in flight.
_LOST_S = Bar(at_most=1.1)
_EXACT = Bar(at_most=0)


def measure(stack: Stack, run: Run, turn: Callable[[str], None], *, quick: bool) -> list[Result]:
    """Return two results: no loss during an outage of RabbitMQ, a bounded loss on SIGKILL."""
    site = stack.site(_LINKS)
    visit = Visit(paths=site.paths("zipf", zipf([numbered_slug(n) for n in range(_LINKS)], 100_000)))
    with site.worker():
        return [
            _with_outage(stack, site, visit, run, turn, _QUICK_REDIRECTS if quick else _REDIRECTS),
            _killed(site, visit, run, turn, _QUICK_KILLS if quick else _KILLS),
        ]


def turns(*, quick: bool) -> int:
    """Return how often `measure` calls `turn`."""
    return 5 + (_QUICK_KILLS if quick else _KILLS)


def _with_outage(
    stack: Stack, site: Site, visit: Visit, run: Run, turn: Callable[[str], None], redirects: int
) -> Result:
    with site.gateway() as gateway, ThreadPoolExecutor(1) as pool:
        turn("warm-up")
        warm = load.counted(gateway, visit, count=redirects // 20)
        third_s = redirects / warm.per_second / 3
        turn("RabbitMQ is up")
        began = time.monotonic()
        loading = pool.submit(load.counted, gateway, visit, count=redirects)
        time.sleep(third_s)
        turn("RabbitMQ is down")
        stack.rabbitmq.kill()
        killed = time.monotonic()
        time.sleep(third_s)
        turn("RabbitMQ restarts")
        stack.rabbitmq.start()
        down_s = time.monotonic() - killed
        seen = loading.result()
        took_s = time.monotonic() - began
        served = sum(one.requests - one.bad for one in (warm, seen))
        turn("draining")
        drain_s = _wait(lambda: _clicks(site) >= served)
        time.sleep(2.0)  # a click counted twice would appear now
        clicks = _clicks(site)
    remark = (
        f"{served:,} redirects, {clicks:,} clicks. RabbitMQ was down for {down_s:.0f} of {took_s:.0f} s; "
        f"every click was counted {drain_s:.1f} s after the last response."
    )
    return Result(
        "clicks",
        f"{redirects:,} redirects during an outage of RabbitMQ",
        f"`h2load -n{redirects} -c64` over a Zipf list of {_LINKS:,} links, and a worker; every response is "
        "read. RabbitMQ is killed after a third of the time and restarted after another.",
        "per_second",
        [Side("hopgate", "Hopgate", [seen])],
        {},
        run,
        [remark],
        [Check("redirects not counted exactly once", abs(clicks - served), _EXACT)],
    )


def _killed(site: Site, visit: Visit, run: Run, turn: Callable[[str], None], kills: int) -> Result:
    moments = random.Random(0)
    loads: list[Load] = []
    lost_s: list[float] = []
    for number in range(kills):
        turn(f"SIGKILL, {number + 1} of {kills}")
        before = _clicks(site)
        with site.gateway() as gateway, ThreadPoolExecutor(1) as pool:
            loading = pool.submit(load.counted, gateway, visit, count=10_000_000)
            time.sleep(2.0 + moments.random())  # at a random moment between two messages
            os.killpg(gateway.pid, signal.SIGKILL)
            loads.append(loading.result())
        _wait_until_still(site)
        served = loads[-1].requests - loads[-1].bad
        lost_s.append((served - (_clicks(site) - before)) / loads[-1].per_second)
    listed = ", ".join(f"{lost:.2f}" for lost in sorted(lost_s))
    return Result(
        "clicks-killed",
        "A gateway is killed under load",
        f"The same load; SIGKILL after 2 to 3 s, {kills} times. Lost clicks were answered and not counted, "
        "in seconds of traffic.",
        "per_second",
        [Side("hopgate", "Hopgate", loads)],
        {},
        run,
        [f"Seconds of clicks lost: {listed}; median {statistics.median(lost_s):.2f}."],
        [Check("clicks lost, in seconds of traffic,", max(lost_s), _LOST_S, " s")],
    )


def _clicks(site: Site) -> int:
    return site.query("SELECT coalesce(sum(clicks), 0)::bigint FROM click_totals")


def _wait(is_over: Callable[[], bool]) -> float:
    """Wait until *is_over*, for `_DRAIN_S` at most; return the seconds."""
    began = time.monotonic()
    while not is_over() and time.monotonic() - began < _DRAIN_S:
        time.sleep(0.1)
    return time.monotonic() - began


def _wait_until_still(site: Site) -> None:
    """Wait until the count is stable: messages of a killed process may still be in flight."""
    count = -1
    while (now := _clicks(site)) != count:
        count = now
        time.sleep(1.5)
