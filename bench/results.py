"""Results as they are kept: bench/results.json, one entry for each scenario, each saying when and where."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec

from bench.load import Load
from bench.processes import CPUS

RESULTS = Path(__file__).parent / "results.json"
_PACKAGES = (
    "granian", "robyn", "uvloop", "hopgate-limiter", "redis", "hiredis", "psycopg",
    "fastapi", "uvicorn", "blacksheep",
)  # fmt: skip

Measure = Literal["per_second", "p99_ms", "us_each", "rss_mb"]


@dataclass(frozen=True, slots=True)
class Bar:
    """What a ratio must be at least, or at most; `moonshot` is what would be splendid."""

    at_least: float | None = None
    at_most: float | None = None
    moonshot: float | None = None

    def passed(self, ratio: float) -> bool:
        """Is *ratio* good enough?"""
        return (self.at_least is None or ratio >= self.at_least) and (
            self.at_most is None or ratio <= self.at_most
        )


class Run(msgspec.Struct, frozen=True):
    """When, where and of what a scenario was measured."""

    date: str
    sha: str
    machine: str
    processors: int
    versions: str
    rounds: int
    seconds: int
    load_average: float


class Side(msgspec.Struct, frozen=True):
    """One side of a ratio: its figure in each round, and what else was seen (medians, sums)."""

    name: str
    title: str
    loads: list[Load]
    rss_mb: float | None = None


class Check(msgspec.Struct, frozen=True):
    """A promise that is a number of its own and no ratio, such as a count; `unit` follows the number."""

    what: str
    measured: float
    bar: Bar
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Was it kept?"""
        return self.bar.passed(self.measured)


class Result(msgspec.Struct, frozen=True):
    """One scenario. The first side is ours; every other is compared with it by `measure`."""

    name: str
    title: str
    method: str
    measure: Measure
    sides: list[Side]
    bars: dict[str, Bar]
    run: Run
    remarks: list[str] = []
    checks: list[Check] = []

    def ratios(self, side: Side) -> list[float]:
        """Return ours ÷ *side*, round by round."""
        return [
            self._figure(self.sides[0], ours) / self._figure(side, other)
            for ours, other in zip(self.sides[0].loads, side.loads, strict=True)
        ]

    def _figure(self, side: Side, load: Load) -> float:
        if self.measure == "rss_mb":
            assert side.rss_mb is not None
            return side.rss_mb
        return float(getattr(load, self.measure))

    def verdict(self, side: Side) -> bool | None:
        """Does the median pass its bar? None without a bar."""
        bar = self.bars.get(side.name)
        return bar.passed(statistics.median(self.ratios(side))) if bar else None


def describe_run(rounds: int, seconds: int) -> Run:
    """Describe this machine and this code, now."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    sha = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES if find_spec(name.replace("-", "_")))
    return Run(
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        sha=sha or "unknown",
        machine=f"{models[0] if models else platform.machine()}, Linux {platform.release()}",
        processors=len(CPUS),
        versions=f"Python {platform.python_version()}, {packages}",
        rounds=rounds,
        seconds=seconds,
        load_average=os.getloadavg()[0],
    )


def read(path: Path = RESULTS) -> dict[str, Result]:
    """Return what is kept, by scenario; nothing if there is no file yet."""
    if not path.exists():
        return {}
    return {result.name: result for result in msgspec.json.decode(path.read_bytes(), type=list[Result])}


def keep(results: Sequence[Result], order: Sequence[str], path: Path = RESULTS) -> Mapping[str, Result]:
    """Replace what is kept of these scenarios; those that no longer exist are forgotten."""
    known = read(path) | {result.name: result for result in results}
    kept = {name: known[name] for name in order if name in known}
    document = msgspec.json.format(msgspec.json.encode(list(kept.values())), indent=1)
    path.write_bytes(document + b"\n")
    return kept
