"""`hopgate links import` and `export`: links from files, and to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands import console
from app.commands.help import Group

# Those of `app.interchange`, which help and completion need not load.
FORMATS = (
    "hopgate", "hopgate-0.1", "yourls", "shlink", "kutt", "bitly", "dub", "chhoto", "shortlinker", "short.io",
    "rebrandly", "csv", "urls",
)  # fmt: skip


def declare(group: Group) -> None:
    """Add the commands to *group*."""
    group.command("import")(links_import)
    group.command("export")(links_export)


def links_import(
    file: Annotated[
        Path,
        typer.Argument(help="CSV with a header, JSON, or one URL a line; - is standard input."),
    ],
    *,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help=f"The format of the file, if it is not recognised: {', '.join(FORMATS)}.",
            autocompletion=lambda: list(FORMATS),
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="COLUMN",
            help="Leave a column out, whatever it restricts. Repeat for several.",
        ),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            metavar="HOST", help="The domain of links that name none. Default: that of the base URL."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Store nothing; tell what an import would do.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Change links that exist to what the file says of them.")
    ] = False,
    allow_refused: Annotated[
        bool, typer.Option("--allow-refused", help="Exit with 0 although rows were refused.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="CSV file to write: line, slug, short and long URL of each link.")
    ] = None,
    refused: Annotated[
        Path | None, typer.Option(help="CSV file to write: each refused row, with the reasons.")
    ] = None,
    json: console.Json = False,
) -> None:
    """
    Import links from a file, of Hopgate or another shortener. Exits with 1 if a row was refused.

    A file is recognised by its columns or refused; so is each row. Importing a file again adds
    only what is new: run it again after an interruption.
    """
    from app.commands import import_links as command

    settings = console.existing_store()
    if dry_run and output is not None:
        console.fail("--output has nothing to list with --dry-run", names_store=False)
    asked = command.ImportRequest(
        file=file,
        form=form,
        ignore=tuple(ignore or ()),
        dry_run=dry_run,
        updates=update,
        output=output,
        refused=refused,
        domain=domain,
    )
    done = console.run(command.import_file(settings, asked))
    if json:
        console.show(done.document())
    else:
        console.print_store()
        command.print_report(done)
    if done.summary.refused and not allow_refused:
        raise SystemExit(1)


def links_export(
    output: Annotated[Path | None, typer.Option(help="The file to write. Default: standard output.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="jsonl, or csv for spreadsheets. Either can be imported.")
    ] = "jsonl",
) -> None:
    """Write every link that is not removed, oldest first: what `hopgate links import` takes back exactly."""
    from app.commands.export_links import export_links
    from app.interchange.writing import ExportFormat

    if form not in list(ExportFormat):
        console.fail(f"{form!r} is neither jsonl nor csv")
    console.run(export_links(console.existing_store(), output, ExportFormat(form)))
