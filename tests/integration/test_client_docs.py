"""The examples of the client's documents run, with a real gateway, and its wheel without the service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "app" / "client"
README = re.findall(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)
QUICKSTARTS = dict(
    re.findall(r"```(\w+) quickstart\n(.*?)```", (ROOT / "docs" / "client.md").read_text(), re.DOTALL)
)


@pytest.fixture(scope="module")
def environment(embedded, admin_key):
    return {**os.environ, "HOPGATE_URL": embedded.url, "HOPGATE_KEY": admin_key}


def output_of(command, environment, folder):
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("example", README, ids=range(len(README)))
def test_example_of_the_readme_runs(example, environment, tmp_path):
    output_of([sys.executable, "-I", "-c", example], environment, tmp_path)


def test_python_quickstart_runs(environment, tmp_path):
    said = output_of([sys.executable, "-I", "-c", QUICKSTARTS["python"]], environment, tmp_path)
    assert "from-python Made by Python 0" in said


def test_curl_quickstart_runs(environment, tmp_path):
    said = output_of(["bash", "-c", QUICKSTARTS["sh"]], environment, tmp_path)
    assert said.count('"slug":"from-curl"') == 3
    assert '"title":"Made by curl"' in said


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript_quickstart_runs(environment, tmp_path):
    (tmp_path / "quickstart.mjs").write_text(QUICKSTARTS["js"])
    said = output_of(["node", "quickstart.mjs"], environment, tmp_path)
    assert "http://hop.example/from-js true" in said
    assert "from-js Made by Node 0" in said


@pytest.mark.timeout(300)
def test_wheel_runs_with_httpx_alone(environment, tmp_path):
    """Nothing of the service is there; httpx and what it needs are those of this environment."""
    wheels = tmp_path / "wheels"
    pip = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(PACKAGE)]
    subprocess.run(built, check=True, capture_output=True, timeout=200)
    [wheel] = wheels.iterdir()
    venv.create(tmp_path / "empty", with_pip=False)
    [packages] = (tmp_path / "empty" / "lib").glob("python*/site-packages")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(packages), str(wheel)],
        check=True,
        capture_output=True,
        timeout=200,
    )
    source = Path(pytest.importorskip("httpx").__file__).parents[1]
    for name in ("httpx", "httpcore", "h11", "anyio", "certifi", "idna", "typing_extensions.py"):
        (packages / name).symlink_to(source / name)

    python = str(tmp_path / "empty" / "bin" / "python")
    assert (packages / "hopgate_client" / "py.typed").exists()
    for example in README:
        output_of([python, "-I", "-c", example], environment, tmp_path)
