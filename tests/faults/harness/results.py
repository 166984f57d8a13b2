"""Results of rows, and their report in Markdown."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from app.wire import DEAD_QUEUE
from tests.faults.harness.drill import FULL_LOAD, Outcomes
from tests.faults.harness.journal import Kind, Outcome, of_kind
from tests.faults.harness.observer import queue_depths
from tests.faults.harness.stage import Stage

NOT_RUN = "not run"


_ABOUT = f"""\
Written by `make test-faults`. Every row runs on real servers under a load of \
{FULL_LOAD["visits"]:g} visits, {FULL_LOAD["creates"]:g} creates and {FULL_LOAD["edits"]:g} edits a second, \
or step by step as a story; then every acknowledged operation is compared with the stored, cached \
and served state (`harness/ledger.py`). Figures are explained in `harness/figures.py`. A row shows its \
latest run only; earlier runs are in the history of this file."""


class Tally(msgspec.Struct, frozen=True):
    """Acknowledged writes and violations of some rows; supports `+` and `-`."""

    acknowledged: int = 0
    lost: int = 0
    stale: int = 0
    dead: int = 0
    injected: int = 0

    @classmethod
    def of(cls, stage: Stage, outcomes: Outcomes) -> Tally:
        """Count the writes since *stage* was created, and the violations of *outcomes*."""
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
            f"{self.acknowledged:,} writes were acknowledged: {self.lost} lost, {self.stale} stale in a cache"
            f" or a response after the drain; {self.dead} dead letters, {self.injected} were injected."
        )


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report. `load` is the load average of the machine at the end of the row."""

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
        if self.measured.startswith(NOT_RUN):
            return NOT_RUN
        return "FAILED" if self.broken else "holds"


def result_of(
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


def render(results: Sequence[Result], not_run: Mapping[str, str]) -> str:
    """Return the report as Markdown; *not_run* are rows left out, with the reason."""
    failed = sum(1 for result in results if result.broken)
    machine = f"{os.cpu_count()} processors, Linux {platform.release()}"
    lines = [
        "# Fault matrix",
        "",
        _ABOUT,
        "",
        f"{len(results)} rows, {failed} failed; on {machine}.",
        str(sum((result.tally for result in results), Tally())),
        "",
        "| row | fault | expected, and bounds | measured | verdict | run (UTC), commit, load |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        verdict = result.verdict + (f": {'; '.join(result.broken)}" if result.broken else "")
        when = f"{result.when}, {result.commit}, {result.load:g}"
        row = result.id.partition(" ")[0]
        cells = (row, result.what, result.expected, result.measured, verdict, when)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    lines += ["", "Not run:", ""]
    lines += [f"- {row}: {why}." for row, why in not_run.items()]
    return "\n".join([*lines, ""])


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "--", "app", "worker", "pyext") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed
