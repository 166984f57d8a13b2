"""`hopgate links list` and `search`: links by terms and filters."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands import console
from app.commands.help import Group

# One option for each filter of a listing.
TagsAny = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Links with it. Repeated: with any of them.")
]
TagsAll = Annotated[
    list[str] | None, typer.Option("--all-tags", metavar="TAG", help="Repeat it: links with each of them.")
]
TagsNone = Annotated[
    list[str] | None, typer.Option("--without-tag", metavar="TAG", help="Repeat it: links with none of them.")
]
Domain = Annotated[str | None, typer.Option(metavar="HOST", help="Links of this domain. Default: of all.")]
Host = Annotated[str | None, typer.Option(metavar="HOST", help="Links whose target is on this host.")]
LongUrl = Annotated[str | None, typer.Option(metavar="URL", help="Links with this target.")]
Owner = Annotated[
    str | None, typer.Option(metavar="ID", help="Links that this API key owns; none: those of no key.")
]
State = Annotated[
    list[str] | None, typer.Option(metavar="STATE", help="live, pending, expired or disabled. Repeated: any.")
]
_TIME = "2030-01-31T12:00:00Z"
CreatedSince = Annotated[str | None, typer.Option(metavar="TIME", help=f"Created from then on: {_TIME}.")]
CreatedUntil = Annotated[str | None, typer.Option(metavar="TIME", help="Created before.")]
UpdatedSince = Annotated[str | None, typer.Option(metavar="TIME", help="Changed last from then on.")]
UpdatedUntil = Annotated[str | None, typer.Option(metavar="TIME", help="Changed last before.")]
ExpiresSince = Annotated[str | None, typer.Option(metavar="TIME", help="Expires from then on.")]
ExpiresUntil = Annotated[str | None, typer.Option(metavar="TIME", help="Expires before.")]
Sort = Annotated[
    str | None,
    typer.Option(
        metavar="ORDER", help="created, updated, clicks, title or slug; a minus before it reverses."
    ),
]
Limit = Annotated[int, typer.Option(metavar="NUMBER", min=1, help="The most to show.")]
Count = Annotated[bool, typer.Option("--count", help="Also say how many there are.")]
Terms = Annotated[
    list[str] | None,
    typer.Argument(metavar="TERM", help="Parts of slug, title, target or a tag, of 3 characters or more."),
]


def declare(group: Group) -> None:
    """Add the commands to *group*: one of them has to be told what to look for."""
    group.command("list")(links_list)
    group.command("search", help="Search links by terms. Takes the options of list.")(links_list)


def links_list(
    context: typer.Context,
    terms: Terms = None,
    *,
    tags_any: TagsAny = None,
    tags_all: TagsAll = None,
    tags_none: TagsNone = None,
    domain: Domain = None,
    host: Host = None,
    long_url: LongUrl = None,
    owner: Owner = None,
    state: State = None,
    created_since: CreatedSince = None,
    created_until: CreatedUntil = None,
    updated_since: UpdatedSince = None,
    updated_until: UpdatedUntil = None,
    expires_since: ExpiresSince = None,
    expires_until: ExpiresUntil = None,
    sort: Sort = None,
    limit: Limit = 50,
    count: Count = False,
    json: console.Json = False,
) -> None:
    """List links that have every TERM, in any case, and pass every option: newest first, or by --sort."""
    from app.commands import find_links

    if context.info_name == "search" and not terms:
        console.fail("name a TERM to search for; `hopgate links list` shows all links", names_store=False)
    filters = find_links.filters(
        search=" ".join(terms) if terms else None,
        tag=tags_any,
        tags_all=tags_all,
        tags_none=tags_none,
        host=host,
        long_url=long_url,
        owner="" if owner == "none" else owner,
        state=state,
        created_since=created_since,
        created_until=created_until,
        updated_since=updated_since,
        updated_until=updated_until,
        expires_since=expires_since,
        expires_until=expires_until,
        sort=sort,
    )
    find_links.show(f"links {context.info_name}", filters, domain=domain, limit=limit, count=count, json=json)
