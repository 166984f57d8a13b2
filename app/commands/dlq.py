"""`hopgate dlq`: lists, replays and drops dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands import console
from app.commands.help import Group

if TYPE_CHECKING:
    from app.settings import Settings

app = Group(help="List, replay and drop dead letters.")


@app.command("list")
def list_(
    *,
    limit: Annotated[
        int,
        typer.Option(
            metavar="NUMBER", min=1, max=10_000, help="The most to show of each queue, oldest first."
        ),
    ] = 20,
    json: console.Json = False,
) -> None:
    """List the dead letters: events that failed six times, or cannot be read. None is removed."""
    command, settings = _dead_letters()
    found = console.run(command.listed(settings, limit))
    if json:
        console.show(found)
        return
    for one in found.letters:
        console.say(f"{one.event:<24} {one.attempts} attempts  {one.reason}")
    console.say(f"{found.depth} dead letters" if found.depth != 1 else "1 dead letter")


@app.command("replay")
def replay(
    *,
    limit: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, help="The most to replay, oldest first. Default: all."),
    ] = None,
    json: console.Json = False,
) -> None:
    """Return dead letters to the queue of the workers. Unreadable ones stay."""
    command, settings = _dead_letters()
    replayed, unreadable = console.run(command.replay(settings, limit))
    if json:
        console.show({"replayed": replayed, "unreadable": unreadable})
    else:
        left = f", {unreadable} left: they cannot be read" if unreadable else ""
        console.say(f"{replayed} replayed{left}")


@app.command("drop")
def drop(
    *,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="Drop only those that cannot be read.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    json: console.Json = False,
) -> None:
    """
    Delete dead letters for good.

    `hopgate check --repair` repairs the cache entries that they stood for. The clicks of dropped
    batches are lost.
    """
    command, settings = _dead_letters()
    if not yes and not console.agrees("Delete them for good?"):
        console.fail("nothing was dropped")
    dropped = console.run(command.drop(settings, unreadable_only=unreadable))
    if json:
        console.show({"dropped": dropped})
    else:
        console.say(f"{dropped} dropped")


def _dead_letters() -> tuple[Any, Settings]:
    """Return the commands on dead letters, and the settings of a stack."""
    settings = console.settings()
    if settings.embedded:
        console.fail("an embedded gateway has no dead letters: there is no broker between it and its worker")
    from app.commands import dead_letters

    return dead_letters, settings
