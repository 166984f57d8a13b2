"""The check of the words: it finds what is planted, and nothing in plain sentences."""

from __future__ import annotations

import subprocess

import pytest

from tests.words import findings

# Put together here, so that this file passes the check itself.
PLANTED = {
    "a machine as a person": "# " + "who" + "ever holds the lock goes on",
    "no component": "# " + "no" + "body waits for it",
    "a clause as subject": '"""' + "W" + "ho asks waits for the same answer." + '"""',
    "a clause after a colon": "# refused: " + "wh" + "o comes later waits",
    "a rumour": "# the gateway " + "hears" + " of the change",
    "an empty docstring": '"""Se' + 'e `LinkStore.add`."""',
    "a name that was given up": "class " + "Entran" + "ce:",
    "a riddle of a test": "def test_" + "who" + "_found_nothing_finds_nothing():",
}


def words(tmp_path, text):
    (tmp_path / "module.py").write_text(f"x = 1\n{text}\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return list(findings(tmp_path))


@pytest.mark.parametrize("case", PLANTED)
def test_planted_line_is_named(tmp_path, case):
    found = words(tmp_path, PLANTED[case])

    assert [(one.path, one.line) for one in found] == [("module.py", 2)]


@pytest.mark.parametrize(
    "line",
    [
        "# An operator who reads the log finds the guard's name.",
        "# Coalesces concurrent calls for the same key into one.",
        "# The component records who made the change.",
    ],
)
def test_plain_line_passes(tmp_path, line):
    assert words(tmp_path, line) == []
