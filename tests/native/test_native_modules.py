"""The modules of the Rust crates import each other without circles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PYEXT = Path(__file__).parents[2] / "pyext"

Module = tuple[str, ...]
"""A path from the crate's root, which is the empty tuple."""

_COMMENT = re.compile(r"//[^\n]*")
_USE = re.compile(r"\b(?P<reexport>pub(?:\([^)]*\))?\s+)?use\s+(?P<tree>[^;]+);")
_PATH = re.compile(r"\b(?:crate|super|self)(?:::\w+)+")


def _expand(tree: str) -> Iterator[str]:
    """Yield each path of a `use` tree, as `a::{b, c::{d}}`."""
    tree = "".join(re.sub(r"\bas\s+\w+", "", tree).split())
    opening = tree.find("{")
    if opening < 0:
        yield tree
        return
    prefix, depth, start = tree[:opening], 0, opening + 1
    for at in range(opening, len(tree)):
        depth += {"{": 1, "}": -1}.get(tree[at], 0)
        if (tree[at] == "," and depth == 1) or depth == 0:
            if tree[start:at]:
                yield from _expand(prefix + tree[start:at])
            start = at + 1
        if depth == 0:
            return


class Crate:
    """The modules below a folder, and which one each path leads to."""

    def __init__(self, sources: Path) -> None:
        self.texts: dict[Module, str] = {}
        for path in sorted(sources.rglob("*.rs")):
            parts = path.relative_to(sources).with_suffix("").parts
            module = parts[:-1] if parts[-1] in {"lib", "mod"} else parts
            self.texts[module] = _COMMENT.sub("", path.read_text())
        self.reexports = {module: dict(self._reexports(module, text)) for module, text in self.texts.items()}

    def imports(self) -> dict[Module, set[Module]]:
        """Return the modules that each module uses, other than its ancestors and descendants."""
        edges: dict[Module, set[Module]] = {}
        for module, text in self.texts.items():
            paths = {path for use in _USE.finditer(text) for path in _expand(use["tree"])}
            paths.update(_PATH.findall(_USE.sub("", text)))
            targets = {self._resolve(module, path.split("::")) for path in paths} - {None}
            edges[module] = {target for target in targets if target and not _is_related(module, target)}
        return edges

    def _reexports(self, module: Module, text: str) -> Iterator[tuple[str, list[str]]]:
        for use in _USE.finditer(text):
            if use["reexport"]:
                for path in _expand(use["tree"]):
                    yield path.split("::")[-1], path.split("::")

    def _resolve(self, module: Module, path: list[str]) -> Module | None:
        """Follow *path* as seen from *module*; None if it leads out of the crate."""
        first, *rest = path
        if first == "crate":
            here: Module = ()
        elif first == "super":
            here = module[:-1]
        elif first == "self":
            here = module
        elif (*module, first) in self.texts:
            here, rest = module, path
        else:
            return None
        for at, name in enumerate(rest):
            if name == "super":
                here = here[:-1]
            elif (*here, name) in self.texts:
                here = (*here, name)
            elif name in self.reexports.get(here, {}):
                target = self._resolve(here, self.reexports[here][name])
                return here if target is None else target
            else:
                return here if at else (here or None)
        return here


def _is_related(one: Module, other: Module) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def circle(edges: Mapping[Module, set[Module]]) -> list[Module]:
    """Return a circle of imports, empty if there is none."""
    done: set[Module] = set()

    def visit(module: Module, trail: list[Module]) -> list[Module]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges.get(module, ())):
            if found := visit(target, [*trail, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := visit(module, []))), [])


@pytest.mark.parametrize(
    ("sources", "module", "used"),
    [
        ("src", "limiter", {("engine",), ("shared", "completion")}),
        ("front/src", "plane", {("table",), ("limits",)}),
    ],
)
def test_crate_has_no_import_circle(sources, module, used):
    """Only a module and its parent may use each other: a parent re-exports its children."""
    edges = Crate(PYEXT / sources).imports()

    assert edges[module,] >= used
    assert circle(edges) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"lib": "pub use a::A;", "a": "use crate::b::B;", "b": "use crate::A;"}, ["a", "b", "a"]),
        (
            {"a": "use crate::d::e;", "d/mod": "pub use e::X;", "d/e": "fn f() { crate::a::g() }"},
            ["a", "d::e", "a"],
        ),
        ({"a": "use crate::d::{X, Y};", "d/mod": "pub use e::X;", "d/e": "use super::f::Y;", "d/f": ""}, []),
    ],
)
def test_import_circle_is_found(tmp_path, files, expected):
    """Through re-exports, groups and paths in the code; parents do not count."""
    for name, text in files.items():
        path = tmp_path / f"{name}.rs"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    assert ["::".join(module) for module in circle(Crate(tmp_path).imports())] == expected
