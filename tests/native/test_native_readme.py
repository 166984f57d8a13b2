"""The examples and tables of the README hold."""

import json
import re
from pathlib import Path

import hopgate_limiter
import pytest
from hopgate_limiter import _native

from bench.limiter import shared

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "pyext" / "README.md", ROOT / "docs" / "limiter.md"]
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{index}")
    for path in DOCUMENTS
    if path.exists()
    for index, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_example_runs(block, request):
    """Each Python block works as it stands, with a Redis where it names one."""
    if "redis://localhost/1" in block:
        server = request.getfixturevalue("redis_server")
        block = block.replace("redis://localhost/1", server.url)
    exec(compile(block, "example", "exec"), {})


@pytest.mark.skipif(not shared.KEPT.exists(), reason="nothing has been measured")
def test_measured_table_matches_the_results():
    """The README shows the latest measurement."""
    assert shared.readme_table(json.loads(shared.KEPT.read_text())) in shared.README.read_text()


def test_exported_names():
    """The public names, all documented in the stub."""
    stub = Path(hopgate_limiter.__file__).with_suffix(".pyi").read_text()
    for name in hopgate_limiter.__all__:
        assert hasattr(hopgate_limiter, name)
        assert re.search(rf"^(class |def )?{name}\b", stub, re.MULTILINE), name
    public = {name for name in dir(hopgate_limiter) if not name.startswith("_")} - {"TypeAlias"}
    assert public == set(hopgate_limiter.__all__) - {"__version__"}


def test_build_profile_is_exposed():
    """A benchmark can refuse a debug build."""
    assert _native.build_profile in {"debug", "release"}
    assert _native._Baseline().allow("k") is True
