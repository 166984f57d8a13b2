"""
Play the whole matrix and write what was found: `python -m tests.faults.report [--row ID ...]`.

Writes tests/faults/REPORT.md after every row, so an interrupted run leaves what it has. Ends
with 1 if a row failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.wire import DEAD_QUEUE
from tests.faults.bugs import BUGS
from tests.faults.drill import CannotPlay, Outcomes
from tests.faults.journal import Kind, Outcome, of_kind
from tests.faults.matrix import FULL_LOAD, NOT_COVERED, ROWS, Row, play
from tests.faults.observer import queue_depths, settle
from tests.faults.sabotaged import worker_command
from tests.faults.stage import Servers, Stage

REPORT = Path(__file__).parent / "REPORT.md"
_SHOWN = (
    "visit_p99_s",
    "visit_max_s",
    "create_p99_s",
    "write_errors",
    "first_create_s",
    "stale_s",
    "drain_s",
)


_NOT_PLAYED = "not played"

_ABOUT = f"""\
Written by `make test-faults`. Every row is played on real servers under a load of \
{FULL_LOAD["visits"]:g} visits, {FULL_LOAD["creates"]:g} creates and {FULL_LOAD["edits"]:g} edits a second, \
or told as a story; afterwards everything acknowledged is compared with what is stored, cached \
and shown (`ledger.py`). Figures are explained in `figures.py`."""


@dataclass(frozen=True)
class Result:
    """One line of the report."""

    id: str
    what: str
    expected: str
    measured: str
    broken: Sequence[str]
    seconds: float

    @property
    def verdict(self) -> str:
        if self.measured.startswith(_NOT_PLAYED):
            return "not played"
        return "FAILED" if self.broken else "holds"


@dataclass(frozen=True)
class Tally:
    """What a stage has seen so far; `+` is that of several stages."""

    acknowledged: int = 0
    lost: int = 0
    stale: int = 0
    dead: int = 0
    injected: int = 0

    @classmethod
    def of(cls, stage: Stage, outcomes: Outcomes) -> Tally:
        """Count after a row was played; *outcomes* are the stage's, as it does not outlive a violation."""
        writes = of_kind(stage.history(), Kind.CREATE, Kind.EDIT, Kind.DELETE)
        rules = Counter(violation.rule for violation in outcomes.violations)
        return cls(
            acknowledged=sum(1 for op in writes if op.outcome is Outcome.DONE),
            lost=rules["I1"],
            stale=rules["I4"] + rules["I5"],
            dead=queue_depths(stage).get(DEAD_QUEUE, 0),
            injected=stage.poison,
        )

    def __add__(self, other: Tally) -> Tally:
        mine, others = astuple(self), astuple(other)
        return Tally(*(a + b for a, b in zip(mine, others, strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.acknowledged:,} writes were acknowledged: {self.lost} lost, {self.stale} stale or shown"
            f" wrongly after the drain; {self.dead} dead letters, {self.injected} were injected."
        )


class Runner:
    """Plays rows on a stage that is made anew whenever it can no longer be trusted."""

    def __init__(self, servers: Servers, directory: Path) -> None:
        self._servers = servers
        self._directory = directory
        self._opened = ExitStack()
        self._stage: Stage | None = None
        self._stages = 0
        self._tallies: dict[Path, Tally] = {}

    @property
    def tally(self) -> Tally:
        """Of all rows played so far, but not of injected bugs."""
        return sum(self._tallies.values(), Tally())

    def play(self, row: Row) -> Result:
        """Play *row*; whatever goes wrong is part of the result."""
        began = time.monotonic()
        try:
            stage = self._stage_for(row)
            outcomes = play(row, stage, **FULL_LOAD)
            self._tallies[stage.directory] = Tally.of(stage, outcomes)
        except CannotPlay as reason:
            self.close()
            return Result(
                row.id, row.what, row.expected, f"{_NOT_PLAYED}: {reason}", (), time.monotonic() - began
            )
        except Exception as error:  # noqa: BLE001 - a row that cannot be played is reported, the next one runs
            self.close()
            broken = [f"could not be played: {error!r}"[:300]]
            traceback.print_exc()
            return Result(row.id, row.what, row.expected, "", broken, time.monotonic() - began)
        if outcomes.violations or row.settings or row.worker:
            self.close()
        return _result(row, outcomes, time.monotonic() - began)

    def play_bug(self, name: str) -> Result:
        """Put a bug in; the row holds if the ledger breaks."""
        began = time.monotonic()
        self.close()
        story, rule = BUGS[name]
        directory = self._new_directory()
        target = f"tests.faults.sabotaged:{name}"
        with Stage(self._servers, directory, target=target, worker=worker_command(name)) as stage:
            story(stage)
            found, _ = settle(stage, within_s=12, hurry=True)
        rules = sorted({violation.rule for violation in found})
        broken = [] if rule in rules else [f"the ledger does not break {rule}"]
        measured = f"broken: {', '.join(rules) or 'nothing'}; {len(found)} violations"
        what = f"injected bug: {name.replace('_', ' ')}"
        return Result("F50", what, "the ledger goes red", measured, broken, time.monotonic() - began)

    def close(self) -> None:
        self._opened.close()
        self._stage = None

    def _stage_for(self, row: Row) -> Stage:
        if row.settings or row.worker:
            self.close()
        if self._stage is None:
            worker = worker_command(row.worker) if row.worker else None
            stage = Stage(self._servers, self._new_directory(), settings=dict(row.settings), worker=worker)
            self._stage = self._opened.enter_context(stage)
        return self._stage

    def _new_directory(self) -> Path:
        self._stages += 1
        directory = self._directory / f"stage-{self._stages}"
        directory.mkdir()
        return directory


def _result(row: Row, outcomes: Outcomes, seconds: float) -> Result:
    figures = outcomes.figures
    broken = [f"{bound}" for bound in row.bounds if not bound.holds(figures.get(bound.figure, float("nan")))]
    broken += [str(violation) for violation in outcomes.violations[:3]]
    if len(outcomes.violations) > 3:
        broken.append(f"and {len(outcomes.violations) - 3} more violations")
    names = dict.fromkeys([bound.figure for bound in row.bounds])
    names.update(dict.fromkeys(_SHOWN if row.fault else figures))
    if "warm_p99_ratio" in names:
        names.update(dict.fromkeys(("usual_warm_p99_s", "warm_p99_s")))
    measured = ", ".join(f"{name} {figures[name]:.3g}" for name in names if name in figures)
    expected = "; ".join([row.expected, *map(str, row.bounds)])
    return Result(row.id, row.what, expected, measured, broken, seconds)


def render(
    results: Sequence[Result],
    tally: Tally,
    started: datetime,
    unplayed: Mapping[str, str] = NOT_COVERED,
) -> str:
    """Return the report."""
    failed = sum(1 for result in results if result.broken)
    lines = [
        "# What holds when things break",
        "",
        _ABOUT,
        "",
        _summary(len(results), failed, started),
        str(tally),
        "",
        "| row | fault | expected, and bounds | measured | verdict |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        verdict = result.verdict + (f": {'; '.join(result.broken)}" if result.broken else "")
        cells = (result.id, result.what, result.expected, result.measured, verdict)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    lines += ["", "Not played here:", ""]
    lines += [f"- {row}: {why}." for row, why in unplayed.items()]
    return "\n".join([*lines, ""])


def _summary(rows: int, failed: int, started: datetime) -> str:
    when = f"{started:%Y-%m-%d %H:%M} UTC"
    return f"{rows} rows, {failed} failed. {when}, commit {_commit()}, {_machine()}."


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "--", "app", "worker", "pyext") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed


def _machine() -> str:
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} processors, Linux {platform.release()}, load {load:.1f} at the end"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", action="append", help="play only this row (F50 for the injected bugs)")
    parser.add_argument("--output", type=Path, default=REPORT)
    arguments = parser.parse_args()
    wanted = set(arguments.row or [])
    started = datetime.now(UTC)
    results: list[Result] = []
    unplayed = dict(NOT_COVERED)

    def note(runner: Runner, result: Result) -> None:
        results.append(result)
        broken = "; ".join(result.broken)
        print(
            f"{result.id:<5} {result.verdict:<7} {result.seconds:5.0f} s  {result.what}  {broken}", flush=True
        )
        arguments.output.write_text(render(results, runner.tally, started, unplayed))

    with tempfile.TemporaryDirectory(prefix="hopgate-faults-") as folder, Servers() as servers:
        runner = Runner(servers, Path(folder))
        try:
            for row in ROWS:
                if wanted and row.id not in wanted:
                    continue
                if why := row.unplayable():
                    unplayed[row.id] = why
                else:
                    note(runner, runner.play(row))
            if not wanted or "F50" in wanted:
                for bug in BUGS:
                    note(runner, runner.play_bug(bug))
        finally:
            runner.close()
    raise SystemExit(1 if any(result.broken for result in results) else 0)


if __name__ == "__main__":
    main()
