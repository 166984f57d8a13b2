"""`hopgate links export`: every link that is not removed, newest first, as a stream."""

from __future__ import annotations

import csv
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from enum import StrEnum
from pathlib import Path
from typing import Literal, TextIO

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
_COLUMNS = (
    "slug", "long_url", "title", "tags", "redirect_code", "valid_from", "expires_at", "max_visits",
    "forward_query", "enabled",
)  # fmt: skip
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
    Write all links to *output*, or to standard output. If it raises, *output* is what it was.

    Raises:
        Unavailable: the store went away; what standard output got so far is not all.
        UnwritableFile: *output* cannot be written.
    """
    with _replacing(output) if output is not None else nullcontext(sys.stdout) as file:
        done = await _export(settings, file, form)
        file.flush()
    Console(stderr=True).print(f"{done:,} link{'' if done == 1 else 's'} exported", highlight=False)


async def _export(settings: Settings, file: TextIO, form: ExportFormat) -> int:
    write = _csv_writer(file) if form is ExportFormat.CSV else _json_writer(file, settings.public_url)
    columns = (SpinnerColumn(), TextColumn("exporting"), TextColumn("{task.completed:,.0f} links"))
    done, after = 0, None
    with Progress(*columns, console=Console(stderr=True)) as progress:
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
    return done


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
        fields.valid_from.isoformat() if fields.valid_from else "",
        fields.expires_at.isoformat() if fields.expires_at else "",
        "" if fields.max_visits is None else str(fields.max_visits),
        str(fields.forward_query).lower(),
        str(fields.enabled).lower(),
    ]


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """Give a file that becomes *path* at the end of the body, unless that raises."""
    if path.exists():
        if not path.is_file():
            # A pipe or a device takes what it is given; nothing can be put in its place.
            with _opened(path, "w") as file:
                yield file
            return
        _opened(path, "r+").close()  # what may not be written may not be replaced either
    target = path.resolve()
    beside = target.with_name(f".hopgate-{secrets.token_hex(8)}")
    file = _opened(path, "x", beside)
    try:
        with file:
            yield file
        with suppress(FileNotFoundError):
            shutil.copymode(target, beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _opened(path: Path, mode: Literal["w", "r+", "x"], beside: Path | None = None) -> TextIO:
    try:
        return (beside or path).open(mode, encoding="utf-8", newline="")
    except OSError as error:
        message = f"cannot open {path}: {error.strerror}"
        raise UnwritableFile(message) from None
