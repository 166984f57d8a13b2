"""`hopgate doctor`, `hopgate top` and `hopgate check`: what they find, printed."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from app.commands import console


def declare(group: typer.Typer) -> None:
    """Add the commands to *group*."""
    for command in (doctor, top, check):
        group.command()(command)


def doctor(*, json: console.Json = False) -> None:
    """Check settings and every dependency; name what fails, with a remedy. Exits with 1 if one fails."""
    from app.commands import doctor as command

    settings = console.settings()
    findings = console.run(command.examine(settings))
    if json:
        console.show(findings)
    else:
        for finding in findings:
            console.say(f"{finding.mark:<4} {finding.name:<10} {finding.detail}")
            if finding.remedy:
                console.say(f"     {'':<10} → {finding.remedy}")
    if not all(finding.healthy for finding in findings):
        raise SystemExit(1)


def top(
    *,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The gateway to read, or the HOPGATE_METRICS_BIND of a worker. Default: HOPGATE_URL, or the"
            " gateway that serves from the data folder, or HOPGATE_BIND.",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Show the figures of one second and exit, as without a terminal.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print them as JSON and exit.")] = False,
) -> None:
    """
    Show what a gateway does, second by second. Ctrl-C ends it.

    It reads /metrics and /readyz, and needs no key.
    """
    from app import settings as environment
    from app.commands import running
    from app.commands import top as command
    from app.commands.local import LocalConnection

    settings = environment.load()
    url = url or settings.url
    if url is None:
        settings = running.as_running(settings)
        source = command.Source(settings.local_url, connect=partial(LocalConnection, settings))
    else:
        source = command.Source(url.rstrip("/"))
    command.show(source, once=once, as_json=json, say=console.show)


def check(
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop wrong entries, and make every cache read them again.")
    ] = False,
    json: console.Json = False,
) -> None:
    """Compare every cached entry with the store. Exits with 1 if one is wrong and not repaired."""
    from app.commands import check as command

    settings = console.settings()
    found = console.run(command.check(settings, repair=repair))
    if json:
        console.show(found)
    else:
        for one in found.wrong:
            console.say(f"{one.slug}  {one.fault}: cached version {one.cached}, stored version {one.stored}")
        repaired = ", all of them repaired" if found.repaired else ""
        console.say(f"{found.checked:,} cached entries, {len(found.wrong):,} wrong{repaired}")
    if found.wrong and not found.repaired:
        raise SystemExit(1)
