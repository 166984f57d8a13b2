"""
Prove that four processes on one Redis keep one limit through outages of Redis.

    python -m bench.limiter.four_processes            # a minute for each `on_error` policy

They call at ten times the limit; meanwhile Redis is killed and comes back empty, twice. Every process logs
each admission with the time just before and just after the call, on a shared clock. Then no window may hold
more than `burst + rate · length`, and while Redis is up at least 95 % of the rate is used.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.limiter.compare import RESULTS
from bench.limiter.sections import put
from bench.limiter.windows import Interval, Worst, worst_window
from tests.servers.redis import PrivateRedis

PROCESSES = 4
RATE, BURST = 1000, 200
DEMAND = 10
"""The demand, in multiples of the limit."""
POLICIES = ("share", "deny")
SOURCES = ("lease", "redis", "local", "negative-cache", "fallback")
_NOTE = (
    f"Written by `python -m bench.limiter.four_processes`: {PROCESSES} processes call at {DEMAND} times "
    f"{RATE}/s burst {BURST}, while Redis is killed and comes back empty, twice. The limit is kept if no "
    "window admits more than its refill and a burst. The design requires 95 % of the rate while Redis is up."
)
_START_S = 1.5
"""From the time when all are ready: by then each has counted the nodes."""
_BACK_S = 2.0
"""The time in which a process detects that Redis is back, and the recovery after it."""


@dataclass(frozen=True)
class Admission:
    """One admission: its time, its process, and the origin of the decision."""

    before_ns: int
    after_ns: int
    process: int
    source: str

    @property
    def interval(self) -> Interval:
        """Return the time of the call."""
        return self.before_ns, self.after_ns


@dataclass(frozen=True)
class Proof:
    """The evaluation of the logs."""

    policy: str
    admissions: list[Admission]
    ups: list[tuple[int, int]]
    """The spans in which Redis was up, ns."""
    redis_errors: list[int]
    """The failures of each process: requests without a reply in time, and attempts to reach Redis."""

    def worst(self) -> Worst:
        """Return the worst window."""
        return worst_window([admission.interval for admission in self.admissions], RATE)

    def share(self, *, settled_s: float = 0.0) -> float:
        """Return the part of the rate that was used while Redis was up, `settled_s` after it came."""
        ups = [(start + int(settled_s * 1e9), end) for start, end in self.ups]
        inside = sum(start < a.before_ns <= end for a in self.admissions for start, end in ups)
        return inside / (RATE * sum(end - start for start, end in ups) / 1e9)

    def sources(self, start_ns: int = 0, end_ns: int = 2**63) -> Counter[str]:
        """Count the admissions of a window by origin."""
        return Counter(a.source for a in self.admissions if a.before_ns > start_ns and a.after_ns <= end_ns)


def ask(url: str, policy: Literal["share", "deny", "allow"], seconds: float, log: Path) -> None:
    """Run one of the processes: wait for the start, call at a steady pace, and log the admissions."""
    from hopgate_limiter import Limiter, RedisSync

    limiter = Limiter(f"{RATE}/s burst {BURST}", sync=RedisSync(url, prefix="four:", on_error=policy))
    per_second = DEMAND * RATE / PROCESSES
    rows = array("q")
    clock = time.monotonic_ns
    limiter.hit("warm-up")
    print("ready", flush=True)
    start_ns = int(input())
    while clock() < start_ns:
        time.sleep(0.001)
    for number in range(int(seconds * per_second)):
        due = start_ns + int(number * 1e9 / per_second)
        while (left := due - clock()) > 0:
            time.sleep(left / 1e9)
        before = clock()
        decision = limiter.hit("hot")
        after = clock()
        if decision:
            rows.extend((before, after, SOURCES.index(decision.source)))
    print(limiter.stats().redis_errors)
    limiter.close()
    log.write_bytes(rows.tobytes())


def prove(policy: str, seconds: float, outages: Sequence[tuple[float, float]]) -> Proof:
    """
    Run the four processes for *seconds*.

    Args:
        outages: the time at which Redis is killed and how long it stays down, s.
    """
    with PrivateRedis() as server, tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(number) for number in range(PROCESSES)]
        base = [sys.executable, "-m", "bench.limiter.four_processes", "--ask", server.url, policy]
        commands = [[*base, str(seconds), str(log)] for log in logs]
        children = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for command in commands
        ]
        try:
            for child in children:
                assert child.stdout is not None
                child.stdout.readline()
            start_ns = time.monotonic_ns() + int(_START_S * 1e9)
            for child in children:
                assert child.stdin is not None
                child.stdin.write(f"{start_ns}\n")
                child.stdin.flush()
            ups, up_since = [], start_ns
            for at_s, away_s in outages:
                _sleep_until(start_ns + int(at_s * 1e9))
                ups.append((up_since, time.monotonic_ns()))
                server.kill()
                _sleep_until(start_ns + int((at_s + away_s) * 1e9))
                server.start()
                up_since = time.monotonic_ns()
            ups.append((up_since, start_ns + int(seconds * 1e9)))
            said = [child.communicate(timeout=seconds + 30)[0] for child in children]
            if any(child.returncode for child in children):
                raise RuntimeError("a process failed, see above")
        finally:
            for child in children:
                child.kill()
                child.wait()
        admissions = [row for number, log in enumerate(logs) for row in _read(log, number)]
    return Proof(policy, admissions, ups, [int(text) for text in said])


def _sleep_until(ns: int) -> None:
    time.sleep(max(0.0, (ns - time.monotonic_ns()) / 1e9))


def _read(log: Path, process: int) -> list[Admission]:
    rows = array("q")
    rows.frombytes(log.read_bytes())
    columns = zip(rows[0::3], rows[1::3], rows[2::3], strict=True)
    return [Admission(before, after, process, SOURCES[source]) for before, after, source in columns]


def describe(proof: Proof) -> list[str]:
    """Return the findings, a line each."""
    worst = proof.worst()
    start = proof.ups[0][0]
    window = f"({(worst.start_ns - start) / 1e9:.3f} s, {(worst.end_ns - start) / 1e9:.3f} s]"
    verdict = "kept" if worst.units <= BURST else "BROKEN"
    lines = [
        f"on_error={proof.policy}: {len(proof.admissions):,} admitted; {dict(proof.sources())}",
        (
            f"  limit {verdict}: at most {worst.units:.1f} of a burst of {BURST}, in {window}: "
            f"{dict(proof.sources(worst.start_ns - 1, worst.end_ns))}"
        ),
        (
            f"  used while Redis was up: {proof.share():.1%}; "
            f"from {_BACK_S:g} s after it came: {proof.share(settled_s=_BACK_S):.1%}"
        ),
        f"  missed answers, by process: {proof.redis_errors}",
    ]
    for (_, gone), (back, _) in zip(proof.ups, proof.ups[1:], strict=False):
        away = proof.sources(gone, back).total() / (RATE * (back - gone) / 1e9)
        after = proof.sources(back, back + int(_BACK_S * 1e9)).total() / RATE / _BACK_S
        lines.append(
            f"  away from {(gone - start) / 1e9:.1f} to {(back - start) / 1e9:.1f} s: used {away:.1%}, "
            f"in the {_BACK_S:g} s after: {after:.1%}"
        )
    return lines


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of less than 60 nothing is kept")
    parser.add_argument("--policies", nargs="+", default=POLICIES, choices=POLICIES)
    parser.add_argument("--ask", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ask:
        url, policy, seconds, log = args.ask
        ask(url, policy, float(seconds), Path(log))
        return
    s = args.seconds / 60
    lines: list[str] = []
    for policy in args.policies:
        found = describe(prove(policy, args.seconds, [(20 * s, 3 * s), (40 * s, 3 * s)]))
        print("\n".join(found), flush=True)
        lines += ["```text", *found, "```"]
    if s >= 1:
        put(RESULTS, "four processes", "\n".join(["## Four processes, one limit", "", _NOTE, "", *lines]))


if __name__ == "__main__":
    main()
