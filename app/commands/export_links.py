"""`hopgate links export`: every link that is not removed, newest first, as a stream."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TextIO

import msgspec
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from app.bootstrap import open_store
from app.domain.errors import HopgateError
from app.domain.link import Link
from app.settings import Settings
from app.web.schemas import link_document

_PAGE = 1000
# What `hopgate links import` reads.
_COLUMNS = ("slug", "long_url", "title", "tags", "redirect_code", "expires_at", "max_visits")
# A spreadsheet would run what begins so.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class ExportFormat(StrEnum):
    """JSON lines hold every field; CSV holds what can be imported again."""

    JSONL = "jsonl"
    CSV = "csv"


class UnwritableFile(HopgateError):
    """The file to write cannot be opened."""


async def export_links(settings: Settings, output: Path | None, form: ExportFormat) -> None:
    """
    Write all links to *output*, or to standard output.

    Raises:
        Unavailable: the store went away; what was written so far is not all.
        UnwritableFile: *output* cannot be opened.
    """
    file = _opened(output) if output is not None else sys.stdout
    try:
        await _export(settings, file, form)
    finally:
        if output is not None:
            file.close()


async def _export(settings: Settings, file: TextIO, form: ExportFormat) -> None:
    write = _csv_writer(file) if form is ExportFormat.CSV else _json_writer(file, settings.public_url)
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("exporting"), TextColumn("{task.completed:,.0f} links"))
    done, after = 0, None
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("export", total=None)
        async with open_store(settings) as store:
            while True:
                page = await store.page(after=after, limit=_PAGE)
                write(page.links)
                done += len(page.links)
                progress.update(bar, completed=done)
                after = page.next_after
                if after is None:
                    break
    console.print(f"{done:,} link{'' if done == 1 else 's'} exported", highlight=False)


def _json_writer(file: TextIO, public_url: str) -> Callable[[Iterable[Link]], None]:
    encoder = msgspec.json.Encoder()

    def write(links: Iterable[Link]) -> None:
        file.writelines(encoder.encode(link_document(link, public_url)).decode() + "\n" for link in links)

    return write


def _csv_writer(file: TextIO) -> Callable[[Iterable[Link]], None]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)

    def write(links: Iterable[Link]) -> None:
        writer.writerows(_row(link) for link in links)

    return write


def _row(link: Link) -> list[str]:
    fields = link.fields
    return [
        link.slug,
        fields.long_url,
        _inert(fields.title),
        _inert(",".join(fields.tags)),
        str(fields.redirect_code),
        fields.expires_at.isoformat() if fields.expires_at else "",
        "" if fields.max_visits is None else str(fields.max_visits),
    ]


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        message = f"cannot open {path}: {error.strerror}"
        raise UnwritableFile(message) from None
