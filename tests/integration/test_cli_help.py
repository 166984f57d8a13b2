"""The help of the `hopgate` command, and what shells complete."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.integration.compose_file import ROOT
from tests.servers.hopgate import hopgate


def test_help_imports_no_server_or_driver():
    program = (
        "import sys; sys.argv = ['hopgate', '--help']\n"
        "from app.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = {'robyn', 'granian', 'psycopg', 'redis', 'aio_pika', 'apsw', 'uvloop'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


@pytest.mark.parametrize(
    "group",
    [
        (),
        ("keys",),
        ("links",),
        ("links", "edit"),
        ("links", "import"),
        ("links", "export"),
        ("dlq",),
        ("dlq", "replay"),
        ("check",),
        ("serve",),
        ("doctor",),
        ("top",),
    ],
)
def test_every_command_has_help(group):
    done = hopgate({}, *group, "--help")

    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_help_shows_arguments_in_capitals_and_flags_without_a_type(cli):
    for arguments in (("links", "edit"), ("keys", "revoke"), ("dlq", "drop"), ("links", "import"), ()):
        text = cli({}, *arguments, "--help").stdout
        assert "{" not in text
        assert "<bool>" not in text


def test_serve_help_names_its_settings(cli):
    text = cli({}, "serve", "--help").stdout

    for name in ("HOPGATE_BIND", "HOPGATE_BASE_URL", "HOPGATE_DATA_DIR", "docs/operations.md"):
        assert name in text


def test_completion_of_a_shell_knows_the_commands():
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['hopgate']; from app.cli import main; main()"],
        env={
            **os.environ,
            "_HOPGATE_COMPLETE": "complete_bash",
            "COMP_WORDS": "hopgate links ",
            "COMP_CWORD": "2",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert {"create", "list", "edit", "delete", "stats", "import", "export"} <= set(done.stdout.split())
