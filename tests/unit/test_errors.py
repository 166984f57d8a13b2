"""The trees of errors in `app.domain.errors` and in the client are those that the programs have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hopgate_client import errors as client_errors

from app.domain import errors

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "app" / "client"


def drawn(drawing: str | None) -> dict[str, str]:
    """Each error in the drawing, with the one above it."""
    above: list[tuple[int, str]] = []
    parents = {}
    for line in (drawing or "").splitlines():
        if not (match := re.match(r"([ │├└─]*)(\w+)(?: {2,}.*)?$", line)) or not match[1]:
            continue
        depth, name = len(match[1]), match[2]
        above = [(other, parent) for other, parent in above if other < depth]
        if above:
            parents[name] = above[-1][1]
        above.append((depth, name))
    return parents


def classes(folders: list[Path], *, without: Path | None) -> Iterator[tuple[str, list[str]]]:
    for folder in folders:
        for file in folder.rglob("*.py"):
            if without is not None and file.is_relative_to(without):
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    yield node.name, [ast.unparse(base) for base in node.bases]


@pytest.mark.parametrize(
    ("drawing", "folders", "without"),
    [(errors.__doc__, [ROOT / "app", ROOT / "worker"], CLIENT), (client_errors.__doc__, [CLIENT], None)],
    ids=["service", "client"],
)
def test_drawing_names_every_error(drawing: str | None, folders: list[Path], without: Path | None) -> None:
    parents = drawn(drawing)
    defined = {
        name: base
        for name, bases in classes(folders, without=without)
        for base in bases
        if base in {"HopgateError", *parents} and not name.startswith("_")
    }

    assert len(defined) >= 14
    assert parents == defined
