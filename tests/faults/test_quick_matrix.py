"""
The quick rows of the matrix with a small load: the ledger and the statuses.

Only the full matrix (`make test-faults`) bounds times. A row with a load runs alone all the same: a
look-up has a quarter of a second, and on a machine that other tests keep busy some take longer
before any fault. Such a 503 says nothing about the row.
"""

from __future__ import annotations

import pytest

from tests.faults.harness.drill import QUICK
from tests.faults.harness.row import Row, play
from tests.faults.harness.stage import Stage
from tests.faults.matrix import ROWS

pytestmark = [pytest.mark.services, pytest.mark.faults, pytest.mark.timeout(180)]

# On a slow machine, a request may miss its deadline.
_SPARE_SHARE = 0.05


@pytest.fixture(scope="module")
def stage(servers, tmp_path_factory):
    with Stage(servers, tmp_path_factory.mktemp("stage")) as stage:
        yield stage


# Rows with a load wait most of the time, so two processes share them, each with servers of its own.
_SHARES = 2


def _marks(row: Row) -> list[pytest.MarkDecorator]:
    if row not in _LOADED:
        return []
    share = _LOADED.index(row) % _SHARES
    return [pytest.mark.alone, pytest.mark.xdist_group(f"faults-{share}")]


_QUICK = [row for row in ROWS if row.quick]
_LOADED = [row for row in _QUICK if row.fault is not None]
_CASES = [pytest.param(row, id=f"{row.id}-{row.what}", marks=_marks(row)) for row in _QUICK]


@pytest.mark.parametrize("row", _CASES)
def test_ledger_holds_after(stage: Stage, row: Row):
    outcomes = play(row, stage, QUICK)

    assert outcomes.violations == []
    for bound in row.bounds:
        if not bound.figure.endswith(("_s", "_ratio")):
            spare = _SPARE_SHARE if "errors" in bound.figure else 0
            value = outcomes.figures[bound.figure]
            assert bound.holds(value - spare), f"{bound}: {value:g}, {outcomes.failures}"
