"""The limiter without the service: installed alone, with the examples of its README."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

PYEXT = Path(__file__).parents[2] / "pyext"
# Where `make` keeps the wheel that it has built and installed.
WHEELS = Path(sys.prefix) / "wheels"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel that the service runs with; build it in an environment that `make` did not make."""
    for path in WHEELS.glob("hopgate_limiter-*.whl"):
        return path
    folder = tmp_path_factory.mktemp("wheels")
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, PYEXT)
    [path] = folder.iterdir()
    return path


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Return the Python of an environment that holds nothing but pip."""
    venv.create(tmp_path / "empty", with_pip=True)
    return tmp_path / "empty" / "bin" / "python"


def pip(python: str | Path, *arguments: str | Path, **environment: str) -> str:
    command = [python, "-I", "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, env=environment or None)
    assert done.returncode == 0, done.stderr
    return done.stdout


def packages(python: Path) -> set[str]:
    lines = pip(python, "list", "--format=freeze").splitlines()
    return {re.split("==| @", line)[0].lower() for line in lines} - {"pip", "setuptools"}


@pytest.mark.timeout(600)
def test_wheel_needs_nothing_and_runs_the_readme(empty, wheel, tmp_path, redis_server):
    assert shutil.which("cc", path=str(tmp_path)) is None
    pip(empty, "install", "--no-index", wheel, PATH=str(tmp_path))

    assert packages(empty) == {"hopgate-limiter"}
    readme = (PYEXT / "README.md").read_text().replace("redis://localhost/1", redis_server.url)
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert examples
    for example in examples:
        python = sys.executable if "from fastapi" in example else empty
        # Outside the sources, so the installed package is imported.
        done = subprocess.run([python, "-I", "-c", example], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, f"{example}\n{done.stderr}"


def test_wheel_says_what_an_index_shows(wheel):
    with zipfile.ZipFile(wheel) as files:
        [metadata] = [name for name in files.namelist() if name.endswith("/METADATA")]
        [tags] = [name for name in files.namelist() if name.endswith("/WHEEL")]
        shown = Parser().parsestr(files.read(metadata).decode())
        licenses = [name for name in files.namelist() if name.endswith("/licenses/LICENSE")]
        assert [files.read(name) for name in licenses] == [(PYEXT.parent / "LICENSE").read_bytes()]
        assert "Tag: cp310-abi3-" in files.read(tags).decode()

    assert (shown["License-Expression"], shown["License-File"]) == ("MIT", "LICENSE")
    assert shown["Requires-Python"] == ">=3.10"
    assert shown["Author"]
    assert shown["Project-URL"]
    assert shown["Keywords"]
    text = shown.get_payload()
    assert isinstance(text, str)
    # An index shows the text alone: what a relative link names is not there.
    assert not re.findall(r"\]\((?!https://)", text)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_source_builds_in_an_empty_environment(empty):
    pip(empty, "install", PYEXT)

    assert packages(empty) == {"hopgate-limiter"}


def test_service_uses_the_installed_limiter():
    import hopgate_limiter

    assert Path(hopgate_limiter.__file__).is_relative_to(sys.prefix)
