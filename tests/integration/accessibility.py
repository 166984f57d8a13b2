"""axe-core in a browser: what breaks WCAG 2.2, level AA, on the page that it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.servers.browser import Browser

_SCRIPT = Path(__file__).parents[1] / "clients" / "node_modules" / "axe-core" / "axe.min.js"
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
_RUN = """
return axe.run({runOnly: %r, resultTypes: ['violations']}).then(found => ({
  checked: found.passes.length,
  found: found.violations.flatMap(
    one => one.nodes.map(node => `${one.id}: ${node.html} ${node.failureSummary}`)
  ),
}));
"""


def load(window: Browser) -> None:
    """Have axe-core in each page that *window* opens from now on; skips the test if it is not installed."""
    if not _SCRIPT.exists():
        pytest.skip("needs axe-core, which make .venv/.clients installs")
    window.before_each_page(_SCRIPT.read_text("utf-8"))


def violations(window: Browser) -> list[str]:
    """Return what axe-core finds wrong with the page."""
    told: Any = window.run(_RUN % _TAGS)
    assert told["checked"] > 5, told
    return list(told["found"])
