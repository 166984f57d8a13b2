"""The lock file of the benchmark in Rust, which is apart from the workspace: no other check resolves it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def read(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text())


def test_lock_file_beside_governor_names_what_the_limiter_needs() -> None:
    """Else `cargo run --locked` refuses to build it."""
    needed = {
        name
        for name, given in read("pyext/Cargo.toml")["dependencies"].items()
        if not (isinstance(given, dict) and given.get("optional"))
    }
    packages = read("bench/limiter/governor/Cargo.lock")["package"]
    (locked,) = (package for package in packages if package["name"] == "hopgate-limiter")

    assert set(locked["dependencies"]) == needed
