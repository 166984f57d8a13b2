"""Stored results: bench/results.json, one entry per scenario, with time and machine."""

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
    """The minimum or maximum of a ratio; `moonshot` is a stretch goal."""

    at_least: float | None = None
    at_most: float | None = None
    moonshot: float | None = None

    def passed(self, ratio: float) -> bool:
        """Does *ratio* meet the minimum or maximum?"""
        return (self.at_least is None or ratio >= self.at_least) and (
            self.at_most is None or ratio <= self.at_most
        )


class Run(msgspec.Struct, frozen=True):
    """The time, machine, commit and parameters of a measurement."""

    date: str
    sha: str
    machine: str
    processors: int
    versions: str
    rounds: int
    seconds: int
    load_average: float


class Side(msgspec.Struct, frozen=True):
    """One side of a ratio: its figures in each round."""

    name: str
    title: str
    loads: list[Load]
    rss_mb: float | None = None


class Check(msgspec.Struct, frozen=True):
    """A promise about an absolute number, such as a count, with its `unit`."""

    what: str
    measured: float
    bar: Bar
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Does the number meet its bar?"""
        return self.bar.passed(self.measured)


class Result(msgspec.Struct, frozen=True):
    """One scenario. The first side is Hopgate; the others are compared with it by `measure`."""

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
        """Return ours ÷ *side* for each round."""
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
        """Does the median meet its bar? None without a bar."""
        bar = self.bars.get(side.name)
        return bar.passed(statistics.median(self.ratios(side))) if bar else None


def describe_run(rounds: int, seconds: int) -> Run:
    """Describe this machine and this commit, now."""
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
    """Return the stored results by scenario; empty without a file."""
    if not path.exists():
        return {}
    return {result.name: result for result in msgspec.json.decode(path.read_bytes(), type=list[Result])}


def keep(results: Sequence[Result], order: Sequence[str], path: Path = RESULTS) -> Mapping[str, Result]:
    """Store *results*, drop scenarios that are not in *order*, and return all."""
    known = read(path) | {result.name: result for result in results}
    kept = {name: known[name] for name in order if name in known}
    document = msgspec.json.format(msgspec.json.encode(list(kept.values())), indent=1)
    path.write_bytes(document + b"\n")
    return kept
