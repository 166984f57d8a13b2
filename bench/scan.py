"""Measures the effect of a scan, which guesses slugs, on visitors and on services."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench import load
from bench.load import Load, Visit
from bench.processes import LOAD_CPU, Server
from bench.results import Bar, Check, Result, Run, Side
from bench.site import Stack, numbered_slug

RESULTS = ("scan-one", "scan-many")
_SCRIPT = Path(__file__).parent / "lua" / "scan.lua"
_LINKS, _PER_SECOND = 200, 500
_ROUNDS, _SECONDS = 3, 4
# Each stays below the limit of one client.
_VISITORS = [f"192.0.2.{number}" for number in range(1, 17)]
_MANY = 10_000
_BURST = 60
_AS_SHIPPED = {
    "HOPGATE_LIMIT_REDIRECT": "100/s burst 200",
    "HOPGATE_LIMIT_NOT_FOUND": f"60/min burst {_BURST}",
    "HOPGATE_TRUSTED_PROXIES": "127.0.0.1",
}


class _Scan(msgspec.Struct, frozen=True):
    """Guesses, their duration in µs, and counts of 404, 429, 503 and other responses."""

    guesses: int
    us: int
    absent: int
    refused: int
    shed: int
    other: int


def measure(stack: Stack, run: Run, turn: Callable[[str], None], *, quick: bool) -> list[Result]:
    """Visit warm links at a steady rate, alone and beside a scan from one address and from many."""
    site = stack.site(_LINKS)
    visit = Visit(paths=site.paths("warm", [numbered_slug(n) for n in range(_LINKS)]), connections=32)
    rounds = 1 if quick else _ROUNDS
    with site.worker(), site.gateway(_AS_SHIPPED) as gateway:

        def visited() -> Load:
            return load.at_rate(gateway, visit, seconds=_SECONDS, rate=_PER_SECOND, addresses=_VISITORS)

        visited()
        results = []
        for name, addresses in zip(RESULTS, (1, _MANY), strict=True):
            alone, beside, scans = list[Load](), list[Load](), list[_Scan]()
            memory_mb, looked_up = _redis_mb(stack), _looked_up(gateway)
            for _ in range(rounds):
                turn("visitors alone")
                alone.append(visited())
                turn(f"beside a scan from {addresses:,}")
                with _scanning(gateway, addresses, scans):
                    beside.append(visited())
            grown_mb, looked_up = _redis_mb(stack) - memory_mb, _looked_up(gateway) - looked_up
            sides = [Side("beside", "Visitors beside the scan", beside), Side("alone", "alone", alone)]
            checks = [
                Check("visitors not redirected", sum(one.bad for one in beside), Bar(at_most=0)),
                Check("growth of Redis", grown_mb, Bar(at_most=1), " MB"),
            ]
            if addresses == 1:
                # The links themselves, and the unknown slugs that one address may request meanwhile.
                most = _LINKS + _BURST + 2 * rounds * (_SECONDS + 2)
                checks.append(Check("look-ups in PostgreSQL", looked_up, Bar(at_most=most)))
            results.append(_result(name, addresses, sides, _sum(scans), looked_up, checks, run))
    return results


def turns(*, quick: bool) -> int:
    """Return how often `measure` calls `turn`."""
    return 4 * (1 if quick else _ROUNDS)


def _result(
    name: str,
    addresses: int,
    sides: Sequence[Side],
    scan: _Scan,
    looked_up: int,
    checks: list[Check],
    run: Run,
) -> Result:
    origin = "one address" if addresses == 1 else f"{addresses:,} addresses, so that no limit is reached"
    seconds = scan.us / 1e6
    remark = (
        f"{scan.guesses / seconds:,.0f} guesses/s: {scan.absent:,} × 404, {scan.refused:,} × 429, "
        f"{scan.shed:,} × 503, {scan.other:,} others; {looked_up / seconds:,.0f}/s looked up in PostgreSQL."
    )
    return Result(
        name,
        f"Visitors beside a scan from {'one address' if addresses == 1 else 'many addresses'}",
        f"`h2load --rps`: {_PER_SECOND} visits/s of {_LINKS} links by {len(_VISITORS)} clients, alone and "
        f"while `wrk -c64` guesses slugs as fast as possible, from {origin}. Limits have their defaults. "
        "wrk runs with a nice value of 19, because real scanners run on other machines.",
        "p99_ms",
        list(sides),
        {"alone": Bar(at_most=2)},
        run,
        [remark],
        checks,
    )


@contextmanager
def _scanning(gateway: Server, addresses: int, scans: list[_Scan]) -> Iterator[None]:
    """Guess while the body runs, for a second longer than a visit; append the counts to *scans*."""
    command = ["nice", "-n19", "taskset", "--cpu-list", str(LOAD_CPU), "wrk", "-t1", "-c64"]
    command += [f"-d{_SECONDS + 1}s", "-s", str(_SCRIPT), f"http://127.0.0.1:{gateway.port}/"]
    command += ["--", str(addresses)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as scanning:
        try:
            time.sleep(0.5)  # until wrk is at full speed
            yield
            output, _ = scanning.communicate(timeout=30)
        finally:
            scanning.kill()
    scans.append(msgspec.json.decode(output.splitlines()[-1], type=_Scan))


def _sum(scans: Sequence[_Scan]) -> _Scan:
    return _Scan(*map(sum, zip(*map(msgspec.structs.astuple, scans), strict=True)))


def _looked_up(gateway: Server) -> int:
    """Return the number of look-ups in PostgreSQL, from the metrics of the gateway."""
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/metrics") as answer:
        found = re.search(r'hopgate_look_ups_total\{source="store"\} (\S+)', answer.read().decode())
    return int(float(found[1])) if found else 0


def _redis_mb(stack: Stack) -> float:
    return int(str(stack.redis.info()["used_memory"])) / 1e6
