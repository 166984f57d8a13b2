"""
Runs every command once in this process and prints what became of each, as JSON lines.

    python -m tests.integration.every_command FILE [--without PACKAGE]... [--except COMMAND]...

FILE is given to commands that read one.
"""

from __future__ import annotations

import argparse
import contextlib
import contextvars
import io
import json
import sys
from collections.abc import Iterator


class Blocker:
    """Makes packages look as if they were not installed."""

    def __init__(self, packages: list[str]) -> None:
        self._packages = packages

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self._packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def commands(group, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*names, name))
        else:
            yield (*names, name), command


def required(command, file: str) -> list[str]:
    """Return an argument for each one that *command* needs, and hosts or terms where it takes some."""
    values = {
        "HOST": "example.com",
        "TERM": "example",
        "URL": "https://example.com/",
        "SLUG": "abc",
        "NAME": "x",
        "ID": "abcdefgh",
    }
    return [
        values.get(param.metavar, file)
        for param in command.params
        if param.param_type_name == "argument" and (param.required or param.metavar in {"HOST", "TERM"})
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--except", action="append", default=[], dest="excepted")
    given = parser.parse_args()
    sys.meta_path.insert(0, Blocker(given.without))
    import typer

    from app import cli

    for names, command in commands(typer.main.get_command(cli.app)):
        if " ".join(names) in given.excepted:
            continue
        sys.argv = ["hopgate", *names, *required(command, given.file)]
        if names == ("links", "edit"):
            sys.argv += ["--title", "x"]
        if names == ("domains", "edit"):
            sys.argv += ["--min-slug-length", "4"]
        if names in {("dlq", "drop"), ("restore",)}:
            sys.argv += ["--yes"]
        if names == ("backup",):
            sys.argv[-1] += ".backup"  # it replaces no file
        out, errors = io.StringIO(), io.StringIO()
        code: int | str = 0
        crash = ""
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                contextvars.copy_context().run(cli.main)
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException as error:  # noqa: BLE001 - what this program looks for
                crash = repr(error)
        result = {"command": " ".join(names), "code": code, "crash": crash}
        print(json.dumps({**result, "stdout": out.getvalue(), "stderr": errors.getvalue()}), flush=True)


if __name__ == "__main__":
    main()
