"""The tree of errors in `app.domain.errors` is the tree that the program has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from app.domain import errors

ROOT = Path(__file__).parents[2]


def drawn() -> dict[str, str]:
    """Each error in the drawing, with the one above it."""
    above: list[tuple[int, str]] = []
    parents = {}
    for line in (errors.__doc__ or "").splitlines():
        if not (match := re.match(r"([ │├└─]*)(\w+)(?: {2,}.*)?$", line)) or not match[1]:
            continue
        depth, name = len(match[1]), match[2]
        above = [(other, parent) for other, parent in above if other < depth]
        if above:
            parents[name] = above[-1][1]
        above.append((depth, name))
    return parents


def classes() -> Iterator[tuple[str, list[str]]]:
    for folder in ("app", "worker"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    yield node.name, [ast.unparse(base) for base in node.bases]


def test_drawing_names_every_error() -> None:
    parents = drawn()
    defined = {
        name: base
        for name, bases in classes()
        for base in bases
        if base in {"HopgateError", *parents} and not name.startswith("_")
    }

    assert len(defined) >= 14
    assert parents == defined
