"""`hopgate links import`: progress while it runs, a summary when it is done."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.bootstrap import open_links, own_hosts
from app.domain.errors import HopgateError, Unavailable
from app.service import link_import
from app.service.link_import import Imported, Refused
from app.settings import Settings

_EXAMPLES = 3
# Undecodable bytes become surrogates, which the rules refuse line by line.
_READ: dict[str, Any] = {"mode": "r", "encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
_WRITE: dict[str, Any] = {"mode": "w", "encoding": "utf-8", "newline": ""}


class UnreadableFile(HopgateError):
    """The file to import cannot be read, or one to write cannot be opened."""


async def import_file(settings: Settings, file: Path, output: Path | None, refused: Path | None) -> None:
    """
    Import *file*; write what became of each line to *output* and *refused*.

    Raises:
        Unavailable: the store went away; running it again goes on where it stopped.
        UnreadableFile: a file cannot be opened, or is none.
    """
    _distinct(file, output, refused)
    console = Console(stderr=True)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    with ExitStack() as stack:
        digest, lines = _measure(file)
        source = stack.enter_context(_opened(file, _READ))
        links_out = _csv(stack, output, ["line", "slug", "short_url", "long_url"])
        refused_out = _csv(stack, refused, ["line", "long_url", "field", "code", "reason"])
        progress = stack.enter_context(
            Progress(
                TextColumn("importing"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=console,
            )
        )
        bar = progress.add_task("import", total=lines)
        try:
            async with open_links(settings) as links:
                hosts = own_hosts(settings)
                async for batch in link_import.run(
                    links, link_import.rows(source), digest=digest, own_hosts=hosts
                ):
                    for result in batch:
                        if isinstance(result, Imported):
                            counts["before" if result.before else "new"] += 1
                            link = result.link
                            if links_out is not None:
                                short = f"{settings.public_url}/{link.slug}"
                                links_out.writerow([result.row.line, link.slug, short, link.fields.long_url])
                        else:
                            counts["refused"] += 1
                            _note(result, reasons, examples, refused_out)
                    progress.update(bar, completed=batch[-1].row.line)
        except Unavailable as error:
            done = counts["new"] + counts["before"]
            message = f"stopped after {done} links: {error.reason}; run it again to go on"
            raise Unavailable(error.dependency, message) from error
        progress.update(bar, completed=lines)
    _summarise(console, counts, reasons, examples)


def _note(
    result: Refused,
    reasons: Counter[str],
    examples: dict[str, list[str]],
    out: Any,
) -> None:
    url = result.row.values.get("long_url", "").encode("utf-8", "backslashreplace").decode()
    for error in result.errors:
        reason = f"{error.field} {error.message}"
        reasons[reason] += 1
        if len(examples.setdefault(reason, [])) < _EXAMPLES:
            examples[reason].append(f"line {result.row.line}: {url[:80]}")
        if out is not None:
            out.writerow([result.row.line, url, error.field, error.code, error.message])


def _summarise(
    console: Console, counts: Counter[str], reasons: Counter[str], examples: dict[str, list[str]]
) -> None:
    before = f", {counts['before']:,} were there from an earlier run" if counts["before"] else ""
    done = f"{_count(counts['new'], 'link')} imported{before}, {_count(counts['refused'], 'line')} refused"
    console.print(done, highlight=False)
    for reason, count in reasons.most_common():
        console.print(f"  {count:,} × {reason}", highlight=False, markup=False)
        for example in examples[reason]:
            console.print(f"      {example}", highlight=False, markup=False)


def _distinct(*paths: Path | None) -> None:
    """Opening a file to write empties it, so it must not be one that is read or written otherwise."""
    resolved = [path.resolve() for path in paths if path is not None]
    if len(set(resolved)) < len(resolved):
        message = "the file to import, --output and --refused must be three different files"
        raise UnreadableFile(message)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _measure(file: Path) -> tuple[str, int]:
    """Return the digest of *file* and how many lines it has."""
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    try:
        if not file.is_file():
            message = f"cannot import {file}: it is read twice, so it must be a regular file, not a pipe"
            raise UnreadableFile(message)
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                lines += chunk.count(b"\n")
                last = chunk[-1:]
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise UnreadableFile(message) from None
    return digest.hexdigest(), lines + (last != b"\n")


def _opened(path: Path, how: dict[str, Any]) -> TextIO:
    try:
        file: TextIO = path.open(**how)
    except OSError as error:
        message = f"cannot open {path}: {error.strerror}"
        raise UnreadableFile(message) from None
    return file


def _csv(stack: ExitStack, path: Path | None, header: list[str]) -> Any:
    if path is None:
        return None
    writer = csv.writer(stack.enter_context(_opened(path, _WRITE)))
    writer.writerow(header)
    return writer
