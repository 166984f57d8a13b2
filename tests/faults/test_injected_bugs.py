"""A ledger that is always green proves nothing: with each of these bugs put in, it is red."""

from __future__ import annotations

import pytest

from tests.faults.bugs import BUGS
from tests.faults.matrix import ROWS
from tests.faults.observer import settle
from tests.faults.sabotaged import worker_command
from tests.faults.stage import Stage

pytestmark = [pytest.mark.services, pytest.mark.faults, pytest.mark.timeout(180)]


@pytest.mark.parametrize("bug", BUGS)
def test_the_ledger_sees(servers, tmp_path, bug):
    story, rule = BUGS[bug]
    target = f"tests.faults.sabotaged:{bug}"
    with Stage(servers, tmp_path, target=target, worker=worker_command(bug)) as stage:
        story(stage)
        found, _ = settle(stage, within_s=10, hurry=True)

    assert rule in {violation.rule for violation in found}


@pytest.mark.parametrize("bug", BUGS)
def test_the_same_story_without_the_bug_is_a_row_that_must_hold(bug):
    assert BUGS[bug][0] in [row.story for row in ROWS if row.quick]
