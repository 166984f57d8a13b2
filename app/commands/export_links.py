"""`hopgate links export`: every link that is not removed, oldest first, as a stream."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Literal, TextIO, assert_never

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from app.bootstrap import open_store
from app.commands.console import file_output
from app.domain.domains import DomainIndex
from app.domain.errors import HopgateError
from app.interchange import writing
from app.interchange.inert import json_safe, terminal_safe
from app.interchange.writing import ExportFormat
from app.service.link_export import exported
from app.settings import Settings


class UnwritableFile(HopgateError):
    """The file to write cannot be opened."""


async def export_links(settings: Settings, output: Path | None, form: ExportFormat) -> None:
    """
    Write all links to *output*, or to standard output. If it raises, *output* is what it was.

    Raises:
        Unavailable: the store went away; what standard output got so far is not all.
        UnwritableFile: *output* cannot be written.
    """
    with replacing(output) if output is not None else nullcontext(file_output()) as file:
        done = await _export(settings, file, form)
        file.flush()
    Console(stderr=True).print(f"{done:,} link{'' if done == 1 else 's'} exported", highlight=False)


async def _export(settings: Settings, file: TextIO, form: ExportFormat) -> int:
    shown = for_terminal(form) if file.isatty() else str
    file.write(writing.header(form))
    columns = (SpinnerColumn(), TextColumn("exporting"), TextColumn("{task.completed:,.0f} links"))
    done = 0
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("export", total=None)
        async with open_store(settings) as store:
            domains = DomainIndex(settings.public_url, await store.domains())
            async for links in exported(store):
                file.writelines(shown(line) for line in writing.rows(form, links, domains))
                done += len(links)
                progress.update(bar, completed=done)
    return done


def for_terminal(form: ExportFormat) -> Callable[[str], str]:
    """Return what escapes a line's characters that a terminal obeys, or does not show."""
    match form:
        case ExportFormat.CSV:
            return lambda line: terminal_safe(line.removesuffix("\n")) + "\n"
        case ExportFormat.JSONL:
            return json_safe  # the same document
        case _:
            assert_never(form)


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
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
