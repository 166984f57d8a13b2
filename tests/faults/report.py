"""
Play the matrix and write what was found.

    python -m tests.faults.report                # all of it, about an hour
    python -m tests.faults.report --row F3       # one row (or several); the others keep their results
    python -m tests.faults.report --row F3 --dry # for the screen: nothing is written
    python -m tests.faults.report --render       # play nothing

Results are kept in tests/faults/results.json and rendered into REPORT.md after every row, so an
interrupted run leaves what it has. Ends with 1 if a row that was played failed.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from app.wire import DEAD_QUEUE
from tests.faults.bugs import BUGS
from tests.faults.drill import CannotPlay, Outcomes
from tests.faults.journal import Kind, Outcome, of_kind
from tests.faults.matrix import FULL_LOAD, NOT_COVERED, ROWS, Row, play
from tests.faults.observer import queue_depths, settle
from tests.faults.sabotaged import worker_command
from tests.faults.stage import Servers, Stage

REPORT = Path(__file__).parent / "REPORT.md"
RESULTS = Path(__file__).parent / "results.json"
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
and shown (`ledger.py`). Figures are explained in `figures.py`. A row that was played again shows \
its last play alone; the history of this file has the others, or the message that changed it says so."""


class Tally(msgspec.Struct, frozen=True):
    """What was written while rows were played, and what became of it; `+` and `-` as of numbers."""

    acknowledged: int = 0
    lost: int = 0
    stale: int = 0
    dead: int = 0
    injected: int = 0

    @classmethod
    def of(cls, stage: Stage, outcomes: Outcomes) -> Tally:
        """Count on *stage* since it was made; but of violations those of *outcomes*: it outlives none."""
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
        mine, others = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Tally(*(a + b for a, b in zip(mine, others, strict=True)))

    def __sub__(self, other: Tally) -> Tally:
        return self + Tally(*(-count for count in msgspec.structs.astuple(other)))

    def __str__(self) -> str:
        return (
            f"{self.acknowledged:,} writes were acknowledged: {self.lost} lost, {self.stale} stale or shown"
            f" wrongly after the drain; {self.dead} dead letters, {self.injected} were injected."
        )


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report. `load` is the machine's load average when the row was over."""

    id: str
    what: str
    expected: str
    measured: str
    broken: list[str] = []
    seconds: float
    when: str
    commit: str
    load: float
    tally: Tally = Tally()

    @property
    def verdict(self) -> str:
        if self.measured.startswith(_NOT_PLAYED):
            return "not played"
        return "FAILED" if self.broken else "holds"


class Runner:
    """Plays rows on a stage that is made anew whenever it can no longer be trusted."""

    def __init__(self, servers: Servers, directory: Path) -> None:
        self._servers = servers
        self._directory = directory
        self._opened = ExitStack()
        self._stage: Stage | None = None
        self._stages = 0
        self._tally = Tally()

    def play(self, row: Row) -> Result:
        """Play *row*; whatever goes wrong is part of the result."""
        began = time.monotonic()
        broken: list[str] = []
        tally = Tally()
        try:
            stage = self._stage_for(row)
            outcomes = play(row, stage, **FULL_LOAD)
            so_far = Tally.of(stage, outcomes)
            tally, self._tally = so_far - self._tally, so_far
            measured, broken = _measured(row, outcomes), _broken(row, outcomes)
            if outcomes.violations or row.needs_own_stage:
                self.close()
        except CannotPlay as reason:
            self.close()
            measured = f"{_NOT_PLAYED}: {reason}"
        except Exception as error:  # noqa: BLE001 - a row that cannot be played is reported, the next one runs
            self.close()
            measured, broken = "", [f"could not be played: {error!r}"[:300]]
            traceback.print_exc()
        expected = "; ".join([row.expected, *map(str, row.bounds)])
        return _result(row.id, row.what, expected, measured, broken, began, tally)

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
        return _result(f"F50 {name}", what, "the ledger goes red", measured, broken, began, Tally())

    def close(self) -> None:
        self._opened.close()
        self._stage = None
        self._tally = Tally()

    def _stage_for(self, row: Row) -> Stage:
        if row.needs_own_stage:
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


def _measured(row: Row, outcomes: Outcomes) -> str:
    figures = outcomes.figures
    names = dict.fromkeys([bound.figure for bound in row.bounds])
    names.update(dict.fromkeys(_SHOWN if row.fault else figures))
    if "warm_p99_ratio" in names:
        names.update(dict.fromkeys(("usual_warm_p99_s", "warm_p99_s")))
    return ", ".join(f"{name} {figures[name]:.3g}" for name in names if name in figures)


def _broken(row: Row, outcomes: Outcomes) -> list[str]:
    figures = outcomes.figures
    broken = [f"{bound}" for bound in row.bounds if not bound.holds(figures.get(bound.figure, float("nan")))]
    broken += [str(violation) for violation in outcomes.violations[:3]]
    if len(outcomes.violations) > 3:
        broken.append(f"and {len(outcomes.violations) - 3} more violations")
    return broken


def _result(
    row_id: str, what: str, expected: str, measured: str, broken: list[str], began: float, tally: Tally
) -> Result:
    return Result(
        id=row_id,
        what=what,
        expected=expected,
        measured=measured,
        broken=broken,
        seconds=time.monotonic() - began,
        when=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        commit=_commit(),
        load=round(os.getloadavg()[0], 1),
        tally=tally,
    )


def render(results: Sequence[Result], unplayed: Mapping[str, str] = NOT_COVERED) -> str:
    """Return the report."""
    failed = sum(1 for result in results if result.broken)
    machine = f"{os.cpu_count()} processors, Linux {platform.release()}"
    lines = [
        "# What holds when things break",
        "",
        _ABOUT,
        "",
        f"{len(results)} rows, {failed} failed; on {machine}.",
        str(sum((result.tally for result in results), Tally())),
        "",
        "| row | fault | expected, and bounds | measured | verdict | played (UTC), commit, load |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        verdict = result.verdict + (f": {'; '.join(result.broken)}" if result.broken else "")
        played = f"{result.when}, {result.commit}, {result.load:g}"
        row = result.id.partition(" ")[0]
        cells = (row, result.what, result.expected, result.measured, verdict, played)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    lines += ["", "Not played here:", ""]
    lines += [f"- {row}: {why}." for row, why in unplayed.items()]
    return "\n".join([*lines, ""])


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "--", "app", "worker", "pyext") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed


def kept() -> dict[str, Result]:
    """Return what was found before, by row, in the order of the matrix; without rows that are no more."""
    found = msgspec.json.decode(RESULTS.read_bytes(), type=list[Result]) if RESULTS.exists() else []
    return _in_order(found)


def _in_order(results: Sequence[Result]) -> dict[str, Result]:
    by_id = {result.id: result for result in results}  # the last one counts
    order = [*(row.id for row in ROWS), *(f"F50 {bug}" for bug in BUGS)]
    return {row: by_id[row] for row in order if row in by_id}


def keep(result: Result) -> None:
    """Let *result* replace what was found before."""
    found = _in_order([*kept().values(), result])
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(list(found.values())), indent=1) + b"\n")
    write()


def write() -> None:
    """Render what is kept."""
    unplayable = {row.id: why for row in ROWS if (why := row.unplayable())}
    REPORT.write_text(render(list(kept().values()), {**NOT_COVERED, **unplayable}))


def _played(runner: Runner, wanted: set[str]) -> Iterator[Result]:
    for row in ROWS:
        if (not wanted or row.id in wanted) and not row.unplayable():
            yield runner.play(row)
    if not wanted or "F50" in wanted:
        for bug in BUGS:
            yield runner.play_bug(bug)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", nargs="+", default=[], metavar="ID", help="F50: the injected bugs")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--render", action="store_true", help="play nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.row) - {row.id for row in ROWS} - {"F50"}:
        parser.error(f"no row {', '.join(sorted(unknown))}")
    if arguments.render:
        write()
        return
    failed = False
    with tempfile.TemporaryDirectory(prefix="hopgate-faults-") as folder, Servers() as servers:
        runner = Runner(servers, Path(folder))
        try:
            for result in _played(runner, set(arguments.row)):
                failed |= bool(result.broken)
                verdict = f"{result.id:<5} {result.verdict:<7} {result.seconds:5.0f} s  {result.what}"
                print(verdict, "; ".join(result.broken), flush=True)
                if arguments.dry:
                    print("     ", result.measured, flush=True)
                else:
                    keep(result)
        finally:
            runner.close()
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
