"""`hopgate stats`: what the visits of all links looked like, or of those of a domain or with a tag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.commands import console
from app.commands.help import Group
from app.commands.link_stats import (
    Compare,
    Csv,
    IntervalOption,
    Since,
    TimeZone,
    Top,
    Until,
    check_forms,
    extras_of,
    show_stats,
)

if TYPE_CHECKING:
    from app.service.stats import Overall


def declare(group: Group) -> None:
    """Add the command to *group*."""
    group.command("stats")(stats)


def stats(
    *,
    domain: Annotated[str | None, typer.Option(metavar="HOST", help="Only links of this domain.")] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="TAG", help="Only visits of links that had this tag then.")
    ] = None,
    since: Since = None,
    until: Until = None,
    interval: IntervalOption = None,
    time_zone: TimeZone = None,
    compare: Compare = False,
    top: Top = 10,
    csv: Csv = False,
    json: console.Json = False,
) -> None:
    """Print what visits looked like: of all links, or of those of a domain or with a tag."""
    from app.bootstrap import new_stats, open_store
    from app.domain.domains import DomainIndex
    from app.service.stats import total
    from app.web.stats_schemas import overall_document

    check_forms(csv=csv, json=json)
    settings = console.existing_store()
    first, end = console.time(since), console.time(until)
    extras = extras_of(interval, time_zone, compares=compare, top=top)

    async def work() -> Overall:
        async with open_store(settings) as store:
            domains = DomainIndex(settings.public_url, await store.domains())
            of = total(domains, None if domain is None else domains.served(domain), tag)
            return await new_stats(store).overall(of, since=first, until=end, extras=extras)

    show_stats(overall_document(console.run(work())), csv=csv, json=json)
