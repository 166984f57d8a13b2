"""`hopgate links import`: a file of links, recognised or refused, and a report on every row."""

from __future__ import annotations

import csv
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.bootstrap import open_import, own_hosts, target_policy
from app.domain.blocks import BlockIndex
from app.domain.domains import DomainIndex, checked_host
from app.domain.errors import HopgateError, Unavailable
from app.domain.link_key import name_of
from app.interchange import report
from app.interchange.errors import FileRefused
from app.interchange.inert import guarded, terminal_safe
from app.interchange.reading import Reading
from app.interchange.records import Refused, domain_check
from app.interchange.report import ImportReport, Tally
from app.service.link_import import Done
from app.settings import Settings

STDIN = Path("-")
# So many reasons and columns are printed; --json has all.
_SHOWN = 20
_OUTPUT = ("line", "slug", "short_url", "long_url")


class UnreadableFile(HopgateError):
    """The file to import cannot be read, or one to write cannot be opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """
    What to import, and how.

    `form` is the format's name, None: recognise it. `output` and `refused` are files to write: the
    link of each row, and each refused row. `domain` is the host of links that name none.
    """

    file: Path
    form: str | None = None
    ignore: tuple[str, ...] = ()
    dry_run: bool = False
    updates: bool = False
    output: Path | None = None
    refused: Path | None = None
    domain: str | None = None


async def import_file(settings: Settings, asked: ImportRequest) -> ImportReport:
    """
    Import a file; write what became of each row to `output` and `refused`.

    Raises:
        FileRefused: the file is of no known format; nothing was stored or written.
        Unavailable: the store went away; running it again goes on where it stopped.
        UnreadableFile: a file cannot be opened.
    """
    _distinct(asked.file, asked.output, asked.refused)
    domains = DomainIndex(settings.public_url)
    policy = target_policy(settings, BlockIndex(), domains)
    host = None if asked.domain is None else checked_host(asked.domain, "--domain")
    check = domain_check(own_hosts(settings), policy, domains, host)
    with ExitStack() as stack:
        source, size = stack.enter_context(opened(asked.file))
        try:
            reading = Reading(source, check=check, dialect=asked.form, ignore=asked.ignore)
        except FileRefused as error:
            raise FileRefused(f"cannot import {asked.file}: {error}") from None
        links_out = _written(stack, asked.output)
        refused_out = _written(stack, asked.refused)
        if links_out is not None:
            csv.writer(links_out).writerow(_OUTPUT)
        if refused_out is not None:
            refused_out.write(report.refused_header())
        tally = Tally(reading.unit)
        progress = stack.enter_context(_progress())
        bar = progress.add_task("import", total=size)
        try:
            async with open_import(
                settings, policy, domains, updates=asked.updates, dry_run=asked.dry_run
            ) as links:
                domains.served(asked.domain, "--domain")
                async for batch in links.run(reading):
                    for result in batch:
                        _note(result, tally, refused_out)
                    if links_out is not None:
                        _list(batch, domains, links_out)
                    progress.update(bar, completed=source.tell())
        except Unavailable as error:
            message = f"stopped after {tally.accepted:,} links: {error.reason}; run it again to go on"
            raise Unavailable(error.dependency, message) from error
        summary = tally.summary(ignored_columns=reading.left_out, notes=reading.notes)
        return ImportReport(reading.dialect, reading.unit, asked.dry_run, summary)


def _note(result: Done | Refused, tally: Tally, refused_out: TextIO | None) -> None:
    tally.read()
    if isinstance(result, Done):
        tally.accept(result.outcome)
        return
    tally.refuse(result)
    if refused_out is not None:
        refused_out.write(report.refused_rows(result))


def _list(batch: Sequence[Done | Refused], domains: DomainIndex, out: TextIO) -> None:
    writer = csv.writer(out)
    for result in batch:
        if isinstance(result, Done):
            link = result.link
            cells = (name_of(link.slug), domains.short_url(link.slug), link.fields.long_url)
            writer.writerow([result.row.line, *map(guarded, cells)])


# --- the summary -----------------------------------------------------------------------


def print_report(done: ImportReport) -> None:
    """Print what became of the file, for people, on standard error: the result may be a file there."""
    for line in _lines(done):
        print(line, file=sys.stderr, flush=True)


def _lines(done: ImportReport) -> Iterator[str]:
    summary = done.summary
    counts = [f"{_count(summary.imported, 'link')} imported"]
    if summary.updated:
        counts.append(f"{summary.updated:,} updated")
    if summary.same:
        counts.append(f"{summary.same:,} already there")
    counts.append(f"{_count(summary.refused, done.unit)} refused")
    suffix = "; dry run, nothing is stored" if done.dry_run else ""
    yield f"{', '.join(counts)} (format {done.form}{suffix})"
    for reason in summary.reasons[:_SHOWN]:
        yield f"  {reason.rows:,} × {reason.field} {reason.message}"
        for example in reason.examples:
            yield f"      {example}"
    if len(summary.reasons) > _SHOWN:
        yield f"  and {len(summary.reasons) - _SHOWN:,} more reasons: --json has them all"
    if columns := summary.ignored_columns:
        more = f" and {len(columns) - _SHOWN:,} more" if len(columns) > _SHOWN else ""
        yield f"  columns left out: {', '.join(columns[:_SHOWN])}{more}"
    for text in summary.notes:
        yield f"  note: {text}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# --- files -----------------------------------------------------------------------------


def _distinct(*paths: Path | None) -> None:
    """Opening a file to write empties it, so it must not be one that is read or written otherwise."""
    resolved = [path.resolve() for path in paths if path is not None]
    if len(set(resolved)) < len(resolved):
        message = "the file to import, --output and --refused must be three different files"
        raise UnreadableFile(message)


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Give *path*, or standard input, as a file that can be read from any place, and its size."""
    with ExitStack() as stack:
        try:
            file: BinaryIO = _stdin() if path == STDIN else stack.enter_context(path.open("rb"))
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                # What comes through a pipe can be read but once.
                copy = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, copy)
                copy.seek(0)
                file = copy
            size = os.fstat(file.fileno()).st_size
        except OSError as error:
            message = f"cannot read {terminal_safe(str(path))}: {error.strerror}"
            raise UnreadableFile(message) from None
        yield file, size


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        message = "there is no standard input to import"
        raise UnreadableFile(message)
    return sys.stdin.buffer


def _written(stack: ExitStack, path: Path | None) -> TextIO | None:
    if path is None:
        return None
    try:
        return stack.enter_context(path.open("w", encoding="utf-8", newline=""))
    except OSError as error:
        message = f"cannot open {path}: {error.strerror}"
        raise UnreadableFile(message) from None


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("importing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
