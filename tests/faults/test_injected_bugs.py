"""The ledger detects bugs: with each of these injected, it reports the violation that the bug causes."""

from __future__ import annotations

import pytest

from tests.faults.breaks import code
from tests.faults.harness.observer import settle
from tests.faults.harness.stage import Stage
from tests.faults.injected_bugs import INJECTED_BUGS
from tests.faults.matrix import ROWS

pytestmark = [pytest.mark.services, pytest.mark.faults, pytest.mark.timeout(180)]


@pytest.mark.parametrize("bug", INJECTED_BUGS)
def test_ledger_detects(servers, tmp_path, bug):
    target = f"tests.faults.breaks.code:{bug}"
    with Stage(servers, tmp_path, target=target, worker=code.worker_command(bug)) as stage:
        INJECTED_BUGS[bug].story(stage)
        found, _ = settle(stage, within_s=6, hurry=True)

    assert INJECTED_BUGS[bug].explains({violation.rule for violation in found}), found


@pytest.mark.parametrize("bug", INJECTED_BUGS)
def test_same_story_without_bug_is_a_quick_row(bug):
    assert INJECTED_BUGS[bug].story in [row.story for row in ROWS if row.quick]


@pytest.mark.parametrize("bug", code.BUGS)
def test_patch_fits_the_code_it_replaces(bug):
    """A patch with other parameters breaks the worker: the ledger is red, but not for this bug."""
    assert [patch.name for patch in code.BUGS[bug] if not patch.fits] == []
