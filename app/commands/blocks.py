"""`hopgate blocks`: blocks hosts and slugs, lists them and unblocks them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands import console
from app.commands.help import Group

if TYPE_CHECKING:
    from app.domain.blocks import Block, StoredBlock
    from app.settings import Settings

app = Group(help="Block hosts and slugs: their links answer 451, on every gateway within a second.")

# Lines that one transaction stores.
_BATCH = 5000
_PAGE = 1000
# So many refused lines are printed; --json has all.
_SHOWN = 20

Hosts = Annotated[
    list[str] | None,
    typer.Argument(metavar="HOST", help="Hosts, without scheme and port. Subdomains are included."),
]
Slugs = Annotated[
    list[str] | None, typer.Option("--slug", metavar="SLUG", help="A slug; repeat for several.")
]


@app.command("add")
def add(hosts: Hosts = None, *, slug: Slugs = None, json: console.Json = False) -> None:
    """Block hosts with their subdomains, and slugs."""
    settings = console.existing_store()
    asked = named(hosts, slug)
    added = console.run(_changed(settings, asked, is_removal=False))
    if json:
        console.show({"added": added, "present": len(set(asked)) - added})
    else:
        console.say(f"{count_of(added)} added, {len(set(asked)) - added:,} there already")


@app.command("remove")
def remove(hosts: Hosts = None, *, slug: Slugs = None, json: console.Json = False) -> None:
    """Unblock hosts and slugs. Exits with 1 if one of them was not blocked."""
    settings = console.existing_store()
    asked = named(hosts, slug)
    removed = console.run(_changed(settings, asked, is_removal=True))
    unknown = len(set(asked)) - removed
    if json:
        console.show({"removed": removed, "unknown": unknown})
    else:
        console.say(f"{count_of(removed)} removed, {unknown:,} not there")
    if unknown:
        raise SystemExit(1)


@app.command("list")
def list_(*, json: console.Json = False) -> None:
    """List all blocks, latest first."""
    found = console.run(_all(console.existing_store()))
    if json:
        console.show(
            [
                {"kind": one.block.kind, "value": one.block.value, "created_at": one.created_at}
                for one in found
            ]
        )
        return
    for one in found:
        console.say(f"{one.created_at:%Y-%m-%d}  {one.block.kind}  {one.block.value}")


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="A host a line, or a hosts file; - is standard input. # begins a comment.")
    ],
    *,
    slugs: Annotated[bool, typer.Option("--slugs", help="The lines are slugs.")] = False,
    allow_refused: Annotated[
        bool, typer.Option("--allow-refused", help="Exit with 0 although lines were refused.")
    ] = False,
    json: console.Json = False,
) -> None:
    """
    Block what a list names. Exits with 1 if a line was refused.

    Importing a list again adds only what is new; it removes nothing.
    """
    report = console.run(_import(console.existing_store(), file, is_slugs=slugs))
    if json:
        console.show(report)
    else:
        console.print_store()
        for line in _described(report):
            print(line, file=sys.stderr, flush=True)
    if report.refused and not allow_refused:
        raise SystemExit(1)


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """A refused line."""

    line: int
    problem: str


@dataclass(slots=True)
class ImportReport:
    """What became of a list; `lines` is how many it has."""

    lines: int
    added: int
    present: int
    refused: list[RefusedEntry]


async def _import(settings: Settings, file: Path, *, is_slugs: bool) -> ImportReport:
    from app.bootstrap import open_blocks
    from app.commands.import_links import opened
    from app.domain.blocks import blocked_host, blocked_slug
    from app.domain.errors import Unavailable
    from app.interchange.block_lists import RefusedLine, read_list
    from app.interchange.inert import terminal_safe

    report = ImportReport(0, 0, 0, [])
    with ExitStack() as stack:
        source, _ = stack.enter_context(opened(file))
        lines = read_list(source, blocked_slug if is_slugs else blocked_host)
        async with open_blocks(settings) as blocks:
            while batch := list(islice(lines, _BATCH)):
                asked: dict[Block, None] = {}
                for line in batch:
                    report.lines = line.number
                    if isinstance(line, RefusedLine):
                        report.refused.append(RefusedEntry(line.number, terminal_safe(line.problem)))
                    else:
                        asked.update(dict.fromkeys(line.blocks))
                try:
                    added = await blocks.add(list(asked)) if asked else ()
                except Unavailable as error:
                    message = f"stopped after {report.added:,} blocks: {error.reason}; run it again to go on"
                    raise Unavailable(error.dependency, message) from error
                report.added += len(added)
                report.present += len(asked) - len(added)
    return report


def _described(report: ImportReport) -> Iterator[str]:
    refused = len(report.refused)
    yield (
        f"{count_of(report.added)} added, {report.present:,} there already,"
        f" {refused:,} line{'' if refused == 1 else 's'} refused"
    )
    for one in report.refused[:_SHOWN]:
        yield f"  line {one.line}: {one.problem}"
    if refused > _SHOWN:
        yield f"  and {refused - _SHOWN:,} more: --json has them all"


async def _changed(settings: Settings, asked: Sequence[Block], *, is_removal: bool) -> int:
    from app.bootstrap import open_blocks

    async with open_blocks(settings) as blocks:
        return len(await (blocks.remove(asked) if is_removal else blocks.add(asked)))


async def _all(settings: Settings) -> list[StoredBlock]:
    from app.bootstrap import open_blocks

    found: list[StoredBlock] = []
    async with open_blocks(settings) as blocks:
        before: int | None = None
        while True:
            page = await blocks.page(before=before, limit=_PAGE)
            found += page.blocks
            before = page.next_before
            if before is None:
                return found


def named(hosts: Sequence[str] | None, slugs: Sequence[str] | None) -> list[Block]:
    """Return the blocks that the arguments name; every wrong one is named. Raises InvalidInput."""
    from app.domain.blocks import blocked_host, blocked_slug
    from app.domain.errors import FieldError, InvalidInput

    problems: list[FieldError] = []
    found: list[Block] = []
    readers: list[tuple[Sequence[str], Callable[[str], Block]]] = [
        (hosts or (), blocked_host),
        (slugs or (), blocked_slug),
    ]
    for texts, read in readers:
        for text in texts:
            try:
                found.append(read(text))
            except InvalidInput as error:
                problems += error.errors
    if problems:
        raise InvalidInput(problems)
    if not found:
        console.fail("name a host, or a slug with --slug", names_store=False)
    return found


def count_of(number: int) -> str:
    """Return how many blocks, in words."""
    return f"{number:,} block{'' if number == 1 else 's'}"
