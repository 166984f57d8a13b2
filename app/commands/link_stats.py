"""`hopgate links stats`: how often a link was visited, and what its visits looked like."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands import console
from app.commands.help import Group
from app.commands.links import DomainOption, SlugArgument, existing, key

if TYPE_CHECKING:
    from app.service.stats import Extras

Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="2030-01-31T12:00:00Z. Default: 24 hours before the end.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="2030-01-31T12:00:00Z. Default: now.")]
IntervalOption = Annotated[
    str | None, typer.Option(metavar="hour|day", help="Also add all visits up by it, by who made them.")
]
TimeZone = Annotated[
    str | None, typer.Option(metavar="NAME", help="That days begin in: Europe/Vienna. Default: UTC.")
]
Compare = Annotated[bool, typer.Option("--compare", help="Also show the period of the same length before.")]
Top = Annotated[int, typer.Option(min=1, max=250, help="How many values of each field are named.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV, a line for each number.")]

_KINDS = ("people", "bots", "previews", "prefetches")
_SINGULAR = {
    "people": "person",
    "bots": "bot",
    "previews": "preview",
    "prefetches": "prefetch",
    "visits": "visit",
    "visitors": "visitor",
}


def declare(group: Group) -> None:
    """Add the command to *group*."""
    group.command("stats")(stats)


def stats(
    slug: SlugArgument,
    *,
    domain: DomainOption = None,
    since: Since = None,
    until: Until = None,
    interval: IntervalOption = None,
    time_zone: TimeZone = None,
    compare: Compare = False,
    top: Top = 10,
    csv: Csv = False,
    json: console.Json = False,
) -> None:
    """Print how often a link was visited, in total and by the hour (UTC), and what its visits looked like."""
    from app.bootstrap import new_stats, open_store
    from app.domain.domains import DomainIndex
    from app.web.stats_schemas import stats_document

    check_forms(csv=csv, json=json)
    settings = console.existing_store()
    first, end = console.time(since), console.time(until)
    extras = extras_of(interval, time_zone, compares=compare, top=top)

    async def work() -> Any:
        async with open_store(settings) as store:
            domains = DomainIndex(settings.public_url, await store.domains())
            name = key(domains, domain, slug)
            counted = new_stats(store)
            if not name:
                return None, domains
            return await counted.hourly(name, since=first, until=end, extras=extras), domains

    outcome, domains = console.run(work())
    found = stats_document(existing(outcome, slug), domains)
    show_stats(found, csv=csv, json=json)


def check_forms(*, csv: bool, json: bool) -> None:
    """Fail if both are asked for."""
    if csv and json:
        console.fail("--csv and --json exclude each other")


def show_stats(found: Any, *, csv: bool, json: bool) -> None:
    """Print *found* in the form that the options name."""
    from app.web.stats_csv import stats_csv

    if csv:
        # Whole: a value may have a character that ends a line elsewhere.
        console.say_file(stats_csv(found).removesuffix("\n"))
    elif json:
        console.show(found)
    else:
        say_stats(found)


def say_stats(found: Any) -> None:
    """Print *found*, statistics as the API and its client have them, as people read them."""
    from app.domain.visits import OF_VISITS

    if hasattr(found, "total"):
        console.say(f"{_counted('visits', found.total)} in total")
        for hour in found.hours:
            if hour.clicks:
                console.say(f"{hour.hour:%Y-%m-%d %H}:00  {hour.clicks:,}")
    visits = found.visits
    if visits is None:
        return
    if not hasattr(found, "total") or any(getattr(visits, name) for name in _KINDS):
        console.say(_kinds(visits))
        console.say(f"about {_counted('visitors', visits.visitors)}")
    for point in found.series or ():
        told = f"{point.start.isoformat(timespec='minutes')}  {_kinds(point)}"
        console.say(f"{told}, {_refusals(point)}" if hasattr(point, "missed") else told)
    if found.before is not None:
        console.say(f"before: {_kinds(found.before)}, about {_counted('visitors', found.before.visitors)}")
    for dimension in OF_VISITS:
        _say_values(dimension, getattr(visits, dimension))
    if hasattr(found, "missing"):
        console.say(f"without a redirect: {_refusals(found)}")
        _say_values("missing", found.missing)


def _say_values(title: str, values: Iterable[Any]) -> None:
    told = ", ".join(f"{one.value or 'other'} {one.visits:,}" for one in values)
    if told:
        console.say(f"{title}: {told}")


def _refusals(counts: Any) -> str:
    return f"{counts.missed:,} missed, {counts.gone:,} gone"


def extras_of(interval: str | None, time_zone: str | None, *, compares: bool, top: int) -> Extras:
    """Return what the options ask for besides, or fail."""
    from app.service.series import Interval
    from app.service.stats import Extras
    from app.web.parameters import WrongValue
    from app.web.stats_api import read_zone

    if interval not in (None, *(one.value for one in Interval)):
        console.fail(f"--interval {interval!r} is neither hour nor day")
    if time_zone is not None and interval is None:
        console.fail("--time-zone needs --interval")
    try:
        zone = read_zone(time_zone or "UTC")
    except WrongValue as error:
        console.fail(f"--time-zone {time_zone!r} {error}")
    return Extras(None if interval is None else Interval(interval), zone, compares, top)


def _kinds(counts: Any) -> str:
    told = ", ".join(_counted(name, getattr(counts, name)) for name in _KINDS)
    return told if any(getattr(counts, name) for name in _KINDS) else "no visits"


def _counted(name: str, number: int) -> str:
    return f"{number:,} {_SINGULAR[name] if number == 1 else name}"
