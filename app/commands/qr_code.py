"""`hopgate links qr`: the QR code of a link, as a file or in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands import console
from app.commands.help import Group
from app.commands.links import DomainOption, SlugArgument, existing, key


def declare(group: Group) -> None:
    """Add the command to *group*."""
    group.command("qr")(code)


def code(
    slug: SlugArgument,
    *,
    domain: DomainOption = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file.svg or file.png. Default: the terminal."),
    ] = None,
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Width and height, 64 to 2048.")] = 512,
    margin: Annotated[int, typer.Option(metavar="MODULES", help="The light border, 0 to 16.")] = 4,
    color: Annotated[
        str, typer.Option(metavar="RRGGBB", help="Of the dark modules; or rrggbbaa.")
    ] = "000000",
    background: Annotated[str, typer.Option(metavar="RRGGBB", help="Of the rest, likewise.")] = "ffffff",
    error_correction: Annotated[
        str, typer.Option(metavar="LEVEL", help="L, M, Q or H: 7 to 30 percent may be covered.")
    ] = "M",
) -> None:
    """Draw the QR code of a link."""
    from app.bootstrap import open_links
    from app.interchange.inert import can_encode
    from app.web import qr

    style = qr.Style(
        size=size, margin=margin, color=color, background=background, error_correction=error_correction
    )
    wanted = "" if output is None else output.suffix.removeprefix(".").lower()
    if output is not None and wanted not in qr.MEDIA_TYPES:
        console.fail(f"{output} must end in .svg or .png: nothing was written", names_store=False)
    qr.check(style)
    settings = console.existing_store()

    async def work() -> tuple[Any, str]:
        async with open_links(settings, "links qr", is_reading=True) as (links, domains):
            name = key(domains, domain, slug)
            # As it was asked for: that of an alias is the code of the alias.
            return await links.get(name) if name else None, domains.short_url(name or "")

    outcome, url = console.run(work())
    existing(outcome, slug)
    if output is None:
        drawn = qr.in_terminal(url, style.error_correction)
        if not can_encode(drawn, console.encoding()):
            told = f"{console.encoding()} has no characters to draw it with: write it to a file with --output"
            console.fail(told, names_store=False)
        console.say(drawn)
        console.say(url)
        return
    image = qr.draw(url, "svg" if wanted == "svg" else "png", style)
    try:
        output.write_bytes(image)
    except OSError as error:
        console.fail(f"{output} cannot be written: {error.strerror}", names_store=False)
    console.say(str(output))
