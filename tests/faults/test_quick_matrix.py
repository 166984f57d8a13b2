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


_CASES = [
    pytest.param(row, id=f"{row.id}-{row.what}", marks=[] if row.fault is None else [pytest.mark.alone])
    for row in ROWS
    if row.quick
]


@pytest.mark.parametrize("row", _CASES)
def test_ledger_holds_after(stage: Stage, row: Row):
    outcomes = play(row, stage, QUICK)

    assert outcomes.violations == []
    for bound in row.bounds:
        if not bound.figure.endswith(("_s", "_ratio")):
            spare = _SPARE_SHARE if "errors" in bound.figure else 0
            value = outcomes.figures[bound.figure]
            assert bound.holds(value - spare), f"{bound}: {value:g}, {outcomes.failures}"
