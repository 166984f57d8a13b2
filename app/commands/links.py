"""`hopgate links`: creates, reads, lists, changes and removes links, and counts their visits."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands import console
from app.commands.help import Group

if TYPE_CHECKING:
    from app.domain.link import Link, LinkFields, Slug
    from app.settings import Settings

app = Group(help="Create, read, list, edit, delete, import and export links.")
_PAGE = 1000

SlugArgument = Annotated[str, typer.Argument(metavar="SLUG", help="The last part of the short URL.")]
# One option for each field of LinkFields; None leaves the field as it is, "none" empties it.
Title = Annotated[
    str | None, typer.Option(metavar="TEXT", help="A description; plays no part in the redirect.")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Repeat for several; replaces all tags.")
]
NoTags = Annotated[bool, typer.Option("--no-tags", help="Remove every tag.")]
RedirectCode = Annotated[
    int | None, typer.Option(metavar="STATUS", help="301, 302, 307 or 308. Default of a new link: 302.")
]
ValidFrom = Annotated[
    str | None, typer.Option(metavar="TIME", help="Answers 404 before it: 2030-01-31T12:00:00Z, or none.")
]
ExpiresAt = Annotated[
    str | None, typer.Option(metavar="TIME", help="Answers 410 from it on: 2030-01-31T12:00:00Z, or none.")
]
ForwardQuery = Annotated[
    bool | None,
    typer.Option("--forward-query/--no-forward-query", help="Append the query of a visit to the target."),
]
Enabled = Annotated[bool | None, typer.Option("--enabled/--disabled", help="A disabled link answers 410.")]
MaxVisits = Annotated[
    str | None, typer.Option(metavar="NUMBER", help="The most redirects in total, or none.")
]


@app.command("create")
def create(
    long_url: Annotated[str, typer.Argument(metavar="URL", help="The target of the redirect.")],
    *,
    slug: Annotated[
        str | None, typer.Option(metavar="SLUG", help="A custom slug. Default: a random one.")
    ] = None,
    title: Title = None,
    tags: Tags = None,
    redirect_code: RedirectCode = None,
    valid_from: ValidFrom = None,
    expires_at: ExpiresAt = None,
    forward_query: ForwardQuery = None,
    enabled: Enabled = None,
    max_visits: MaxVisits = None,
    json: console.Json = False,
) -> None:
    """Create a link and print its short URL."""
    from app.bootstrap import open_links
    from app.domain.link import LinkFields
    from app.domain.slug import MOVED
    from app.service.links import Created

    settings = console.existing_store()
    fields = LinkFields(
        **_given(
            long_url=long_url,
            title=title,
            tags=tags,
            redirect_code=redirect_code,
            valid_from=valid_from,
            expires_at=expires_at,
            forward_query=forward_query,
            enabled=enabled,
            max_visits=max_visits,
        )
    )

    async def work() -> Link:
        async with open_links(settings, "links create") as links:
            outcome = await links.create(fields, custom_slug=slug, lengths=MOVED)
            if not isinstance(outcome, Created):
                console.fail(f"the slug {slug} is taken")
            return outcome.link

    _show(settings, console.run(work()), json=json)


@app.command("get")
def get(slug: SlugArgument, *, json: console.Json = False) -> None:
    """Print a link as JSON, with or without --json."""
    from app.bootstrap import open_links

    settings = console.existing_store()

    async def work() -> Any:
        async with open_links(settings, "links get") as links:
            name = _slug(slug)
            return await links.get(name) if name else None

    _show(settings, _existing(console.run(work()), slug), json=True)


@app.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="The most to show.")] = 50,
    json: console.Json = False,
) -> None:
    """List links, newest first."""
    from app.bootstrap import open_links
    from app.web.schemas import link_document

    settings = console.existing_store()

    async def work() -> tuple[list[Link], bool]:
        found: list[Link] = []
        async with open_links(settings, "links list") as links:
            after = None
            while len(found) < limit:
                page = await links.page(after=after, limit=min(_PAGE, limit - len(found)))
                found += page.links
                after = page.next_after
                if after is None:
                    break
        return found, after is not None

    found, has_more = console.run(work())
    if json:
        console.show([link_document(link, settings.public_url) for link in found])
    else:
        for link in found:
            console.say(_line(link))
    if has_more:
        console.note(f"there are more than {limit} links: --limit shows more of them")


@app.command("edit")
def edit(
    slug: SlugArgument,
    *,
    long_url: Annotated[str | None, typer.Option(metavar="URL", help="Another target.")] = None,
    title: Title = None,
    tags: Tags = None,
    no_tags: NoTags = False,
    redirect_code: RedirectCode = None,
    valid_from: ValidFrom = None,
    expires_at: ExpiresAt = None,
    forward_query: ForwardQuery = None,
    enabled: Enabled = None,
    max_visits: MaxVisits = None,
    if_version: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Change only this version of the link.")
    ] = None,
    json: console.Json = False,
) -> None:
    """Change what the options name; the rest of the link stays as it is."""
    from app.bootstrap import open_links

    if tags and no_tags:
        console.fail("--tag and --no-tags exclude each other: nothing was changed")
    settings = console.existing_store()
    changes = _given(
        long_url=long_url,
        title=title,
        tags=[] if no_tags else tags,
        redirect_code=redirect_code,
        valid_from=valid_from,
        expires_at=expires_at,
        forward_query=forward_query,
        enabled=enabled,
        max_visits=max_visits,
    )
    if not changes:
        console.fail("name at least one field to change; hopgate links edit --help lists them")

    async def work() -> Any:
        async with open_links(settings, "links edit") as links:
            name = _slug(slug)
            return await links.change(name, changes, expected_version=if_version) if name else None

    _show(settings, _existing(console.run(work()), slug), json=json)


@app.command("delete")
def delete(
    slug: SlugArgument,
    *,
    if_version: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Delete only this version of the link.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    json: console.Json = False,
) -> None:
    """Delete a link for good: its slug is not given out again. A terminal asks for confirmation."""
    from app.bootstrap import open_links

    settings = console.existing_store()
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Delete {slug} for good?", err=True):
        console.fail("nothing was deleted")

    async def work() -> Any:
        async with open_links(settings, "links delete") as links:
            name = _slug(slug)
            return await links.remove(name, expected_version=if_version) if name else None

    _existing(console.run(work()), slug)
    if json:
        console.show({"slug": slug, "deleted": True})
    else:
        console.say(f"{slug} is deleted")


@app.command("stats")
def stats(
    slug: SlugArgument,
    *,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="2030-01-31T12:00:00Z. Default: 24 hours before the end."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="2030-01-31T12:00:00Z. Default: now.")
    ] = None,
    json: console.Json = False,
) -> None:
    """Print how often a link was visited, in total and by the hour (UTC)."""
    from app.bootstrap import open_store, utc_now
    from app.service.stats import HOUR, Stats
    from app.web.schemas import stats_document

    settings = console.existing_store()
    first, end = console.time(since), console.time(until)

    async def work() -> Any:
        async with open_store(settings) as store:
            name = _slug(slug)
            counted = Stats(store, store, clock=utc_now)
            return await counted.hourly(name, since=first, until=end) if name else None

    found = _existing(console.run(work()), slug)
    if json:
        console.show(stats_document(found))
        return
    console.say(f"{found.link.visits:,} visits in total")
    for hour, clicks in enumerate(found.hours):
        if clicks:
            console.say(f"{found.since + hour * HOUR:%Y-%m-%d %H}:00  {clicks:,}")


def _given(**options: Any) -> dict[str, Any]:
    """Return the fields of `LinkFields` that the options name."""
    fields = {name: value for name, value in options.items() if value is not None}
    if "tags" in fields:
        fields["tags"] = tuple(fields["tags"])
    for name in ("valid_from", "expires_at"):
        if name in fields:
            fields[name] = None if fields[name] == "none" else console.time(fields[name])
    if "max_visits" in fields:
        fields["max_visits"] = None if fields["max_visits"] == "none" else _number(fields["max_visits"])
    return fields


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        console.fail(f"{text!r} is not a number of visits, nor none")
    return int(text)


def _slug(text: str) -> Slug | None:
    """Return the slug; None if no link can have it."""
    from app.domain.link import Slug
    from app.domain.slug import is_well_formed

    return Slug(text) if is_well_formed(text) else None


def _existing(outcome: Any, slug: str) -> Any:
    """Return *outcome* if it is a link or what was found out about one; else end the command."""
    from app.ports import VersionMismatch
    from app.service.links import Removed

    match outcome:
        case None:
            console.fail(f"there is no link {slug}")
        case Removed():
            console.fail(f"{slug} was removed")
        case VersionMismatch(current):
            console.fail(f"{slug} is at version {current.version}: nothing was changed")
    return outcome


def _show(settings: Settings, link: Link, *, json: bool) -> None:
    from app.web.schemas import link_document

    if json:
        console.show(link_document(link, settings.public_url))
    else:
        console.say(f"{settings.public_url}/{link.slug}")


def _line(link: Link) -> str:
    from app.bootstrap import utc_now
    from app.interchange.inert import terminal_safe

    state = _state(link.fields, utc_now())
    title = f"  {terminal_safe(link.fields.title)}" if link.fields.title else ""
    return f"{link.slug:<12} {link.visits:>9,} {state:<8} {link.fields.long_url}{title}"


def _state(fields: LinkFields, now: datetime) -> str:
    if not fields.enabled:
        return "disabled"
    if fields.expires_at is not None and fields.expires_at <= now:
        return "expired"
    if fields.valid_from is not None and now < fields.valid_from:
        return "pending"
    return "live"
