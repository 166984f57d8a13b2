"""The page about API keys: its commands run, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import app
from tests.integration.api_calls import create
from tests.servers.hopgate import environment, hopgate, make_key

PAGE = Path(app.__file__).parent.parent / "docs" / "keys.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_commands_of_the_page_run(api, embedded, tmp_path):
    create(api, slug="sale")
    key = make_key(embedded.settings, "admin")
    program = tmp_path / "hopgate"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m app.cli "$@"\n')
    program.chmod(0o755)
    names = {"KEY": key, "ID": key.split("_")[1], "URL": embedded.url}
    settings = environment(embedded.settings) | names | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = "set -e\n" + "".join(BLOCK.findall(PAGE.read_text()))

    done = subprocess.run(
        ["sh", "-c", script],
        env=settings,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=PAGE.parent.parent,
    )

    assert done.returncode == 0, done.stderr
    assert '"code"' not in done.stdout
    listed = hopgate(embedded.settings, "keys", "list").stdout
    assert "own links" in listed
    assert "from 127.0.0.0/8" in listed
    assert api.get("/api/v1/links/sale").json()["owner"] is None
    assert f"hg_{names['ID']}_" in done.stdout.splitlines()[-1]
