"""
Run the fault matrix and write the report.

    python -m tests.faults.report                # every row, about an hour
    python -m tests.faults.report --row F3       # one row or several; the others keep their results
    python -m tests.faults.report --row F3 --dry # print only, write nothing
    python -m tests.faults.report --render       # render the report from earlier results

Results go to tests/faults/results.json and REPORT.md after every row, so an interrupted run keeps
its rows. The exit code is 1 if a row failed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tests.faults.breaks.code import worker_command
from tests.faults.harness.drill import FULL_LOAD, CannotPlay, Outcomes
from tests.faults.harness.observer import settle
from tests.faults.harness.results import NOT_RUN, Result, Tally, render, result_of
from tests.faults.harness.row import Row, play
from tests.faults.harness.servers import Servers
from tests.faults.harness.stage import Stage
from tests.faults.injected_bugs import INJECTED_BUGS
from tests.faults.matrix import NOT_COVERED, ROWS

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


class Runner:
    """Runs rows on one stage, which is replaced after a failed row or one with its own settings."""

    def __init__(self, servers: Servers, directory: Path) -> None:
        self._servers = servers
        self._directory = directory
        self._opened = ExitStack()
        self._stage: Stage | None = None
        self._stages = 0
        self._tally = Tally()

    def play(self, row: Row) -> Result:
        """Run *row*; an exception is part of the result."""
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
            measured = f"{NOT_RUN}: {reason}"
        except Exception as error:  # noqa: BLE001 - reported as a failed row; the next row runs
            self.close()
            measured, broken = "", [f"could not run: {error!r}"[:300]]
            traceback.print_exc()
        expected = "; ".join([row.expected, *map(str, row.bounds)])
        return result_of(row.id, row.what, expected, measured, broken, began, tally)

    def play_bug(self, name: str) -> Result:
        """Inject a bug; the row holds if the ledger reports a violation."""
        began = time.monotonic()
        self.close()
        bug = INJECTED_BUGS[name]
        directory = self._new_directory()
        target = f"tests.faults.breaks.code:{name}"
        with Stage(self._servers, directory, target=target, worker=worker_command(name)) as stage:
            bug.story(stage)
            found, _ = settle(stage, within_s=12, hurry=True)
        rules = {violation.rule for violation in found}
        broken = [] if bug.explains(rules) else [f"the ledger must report {bug.breaks}, and no other cause"]
        measured = f"broken: {', '.join(sorted(rules)) or 'nothing'}; {len(found)} violations"
        what = f"injected bug: {name.replace('_', ' ')}"
        return result_of(f"F50 {name}", what, "the ledger goes red", measured, broken, began, Tally())

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


def kept() -> dict[str, Result]:
    """Return the stored results of existing rows, in the order of the matrix."""
    found = msgspec.json.decode(RESULTS.read_bytes(), type=list[Result]) if RESULTS.exists() else []
    return _in_order(found)


def _in_order(results: Sequence[Result]) -> dict[str, Result]:
    by_id = {result.id: result for result in results}  # the last result of a row wins
    order = [*(row.id for row in ROWS), *(f"F50 {bug}" for bug in INJECTED_BUGS)]
    return {row: by_id[row] for row in order if row in by_id}


def keep(result: Result) -> None:
    """Store *result* in place of an earlier result of its row, and render the report."""
    found = _in_order([*kept().values(), result])
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(list(found.values())), indent=1) + b"\n")
    write()


def write() -> None:
    """Render the stored results."""
    unplayable = {row.id: why for row in ROWS if (why := row.unplayable())}
    REPORT.write_text(render(list(kept().values()), {**NOT_COVERED, **unplayable}))


def _played(runner: Runner, wanted: set[str]) -> Iterator[Result]:
    for row in ROWS:
        if (not wanted or row.id in wanted) and not row.unplayable():
            yield runner.play(row)
    if not wanted or "F50" in wanted:
        for bug in INJECTED_BUGS:
            yield runner.play_bug(bug)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--row", nargs="+", default=[], metavar="ID", help="rows to run; F50: the injected bugs"
    )
    parser.add_argument("--dry", action="store_true", help="print only, write nothing")
    parser.add_argument("--render", action="store_true", help="render earlier results, run nothing")
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
