"""The limiter as somebody gets it who wants nothing else: installed alone, and used as its README says."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

PYEXT = Path(__file__).parents[2] / "pyext"


@pytest.mark.timeout(600)
def test_it_installs_into_an_empty_environment_pulls_nothing_and_its_examples_run(tmp_path, redis_server):
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"

    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYEXT],
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert installed.returncode == 0, installed.stderr

    listed = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True)
    names = {line.partition("==")[0].partition(" @")[0].lower() for line in listed.stdout.splitlines()}
    assert names - {"pip", "setuptools"} == {"hopgate-limiter"}
    readme = (PYEXT / "README.md").read_text().replace("redis://localhost/1", redis_server.url)
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert examples
    for example in examples:
        # Away from the sources, so that it is the installed package that answers.
        done = subprocess.run([python, "-I", "-c", example], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, f"{example}\n{done.stderr}"


def test_the_service_uses_the_same_package():
    import hopgate_limiter

    assert Path(hopgate_limiter.__file__).is_relative_to(sys.prefix)
