"""A row of the matrix: a fault or a story, the expected behaviour, and bounds; `play` runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.faults.harness.drill import Fault, Outcomes, Story, Timing, run
from tests.faults.harness.observer import settle
from tests.faults.harness.stage import Stage, garbage_collection_paused


@dataclass(frozen=True)
class Bound:
    """A figure (see `figures.py`) that must lie between `least` and `most`."""

    figure: str
    most: float = float("inf")
    least: float = float("-inf")

    def holds(self, value: float) -> bool:
        return self.least <= value <= self.most

    def __str__(self) -> str:
        sign, limit = ("≤", self.most) if self.least == float("-inf") else ("≥", self.least)
        return f"{self.figure} {sign} {limit:g}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """
    One row: a `fault` under a load, or a `story` step by step. Afterwards the ledger must hold.

    Args:
        bounds: further promises.
        quick: also part of `make test`, which checks the ledger and statuses but no times.
        settings: additional settings of Hopgate.
        worker: a bug of `breaks/code.py` to inject into the worker.
        alone: leaves so much data that later rows on the same stage would take longer.
        unplayable: returns why this machine cannot run the row; empty if it can.
    """

    id: str
    what: str
    expected: str
    fault: Fault | None = None
    story: Story | None = None
    bounds: tuple[Bound, ...] = ()
    quick: bool = False
    timing: Timing = field(default_factory=Timing)
    load: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    worker: str | None = None
    alone: bool = False
    unplayable: Callable[[], str] = str

    @property
    def needs_own_stage(self) -> bool:
        return self.alone or bool(self.settings) or self.worker is not None


def play(row: Row, stage: Stage, timing: Timing | None = None, **load: object) -> Outcomes:
    """Run *row* on *stage*; *timing* and *load* replace the defaults of the row."""
    with garbage_collection_paused():
        if row.fault is not None:
            return run(stage, row.fault, timing or row.timing, **{**load, **row.load})
        assert row.story is not None
        figures = row.story(stage)
        hurry = timing is not None and timing.hurry
        found, drain_s = settle(stage, hurry=hurry)
        return Outcomes(found, {"drain_s": drain_s, **figures})


def most(**limits: float) -> tuple[Bound, ...]:
    """Return bounds that figures must not exceed."""
    return tuple(Bound(figure, most=limit) for figure, limit in limits.items())


def least(**limits: float) -> tuple[Bound, ...]:
    """Return bounds that figures must reach."""
    return tuple(Bound(figure, least=limit) for figure, limit in limits.items())
