"""`hopgate links`: creates, reads, changes and removes links, and counts their visits."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands import console
from app.commands.help import Group

if TYPE_CHECKING:
    from app.domain.domains import DomainIndex
    from app.domain.link import Link, Slug

app = Group(help="Create, read, list, edit, delete, import and export links.")

DomainOption = Annotated[
    str | None,
    typer.Option("--domain", metavar="HOST", help="The link's domain. Default: that of the base URL."),
]
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
ExpiresIn = Annotated[
    str | None, typer.Option(metavar="LIFETIME", help="In place of --expires-at: 90m, 7d, from now on.")
]
ForwardQuery = Annotated[
    bool | None,
    typer.Option("--forward-query/--no-forward-query", help="Append the query of a visit to the target."),
]
OverrideQuery = Annotated[
    bool | None,
    typer.Option(
        "--override-query/--no-override-query",
        help="With --forward-query: in place of the target's parameters of the same names.",
    ),
]
Enabled = Annotated[bool | None, typer.Option("--enabled/--disabled", help="A disabled link answers 410.")]
MaxVisits = Annotated[
    str | None, typer.Option(metavar="NUMBER", help="The most redirects in total, or none.")
]
ExternalId = Annotated[
    str | None, typer.Option(metavar="TEXT", help="The link's name in another system, or none.")
]

_UTM_PANEL = "UTM parameters of the target"
UtmSource = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Such as newsletter, or none.", rich_help_panel=_UTM_PANEL)
]
UtmMedium = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Such as email, or none.", rich_help_panel=_UTM_PANEL)
]
UtmCampaign = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Such as spring-sale, or none.", rich_help_panel=_UTM_PANEL)
]
UtmTerm = Annotated[
    str | None, typer.Option(metavar="TEXT", help="A search term, or none.", rich_help_panel=_UTM_PANEL)
]
UtmContent = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Which of several links, or none.", rich_help_panel=_UTM_PANEL),
]
ExpiredUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Where visitors go once the link is expired, disabled or used up, or none."
    ),
]
Robots = Annotated[
    str | None, typer.Option(metavar="WORDS", help="Rules for crawlers, such as noindex, or none.")
]
Analytics = Annotated[
    bool | None,
    typer.Option("--analytics/--no-analytics", help="Describe visits in statistics, or only count them."),
]


@app.command("create")
def create(
    long_url: Annotated[str, typer.Argument(metavar="URL", help="The target of the redirect.")],
    *,
    slug: Annotated[
        str | None, typer.Option(metavar="SLUG", help="A custom slug. Default: a random one.")
    ] = None,
    domain: DomainOption = None,
    title: Title = None,
    tags: Tags = None,
    redirect_code: RedirectCode = None,
    valid_from: ValidFrom = None,
    expires_at: ExpiresAt = None,
    forward_query: ForwardQuery = None,
    enabled: Enabled = None,
    max_visits: MaxVisits = None,
    external_id: ExternalId = None,
    override_query: OverrideQuery = None,
    utm_source: UtmSource = None,
    utm_medium: UtmMedium = None,
    utm_campaign: UtmCampaign = None,
    utm_term: UtmTerm = None,
    utm_content: UtmContent = None,
    expired_url: ExpiredUrl = None,
    robots: Robots = None,
    analytics: Analytics = None,
    expires_in: ExpiresIn = None,
    json: console.Json = False,
) -> None:
    """Create a link and print its short URL."""
    from app.bootstrap import open_links
    from app.domain import utm
    from app.domain.link import LinkFields
    from app.domain.link_key import name_of
    from app.domain.slug import MOVED
    from app.ports import ExternalIdTaken
    from app.service.links import Created

    settings = console.existing_store()
    lifetime = _lifetime(expires_in, expires_at)
    given = _given(
        long_url=long_url,
        title=title,
        tags=tags,
        redirect_code=redirect_code,
        valid_from=valid_from,
        expires_at=expires_at,
        forward_query=forward_query,
        enabled=enabled,
        max_visits=max_visits,
        external_id=external_id,
        override_query=override_query,
        utm_source=utm_source,
        utm_medium=utm_medium,
        utm_campaign=utm_campaign,
        utm_term=utm_term,
        utm_content=utm_content,
        expired_url=expired_url,
        robots=robots,
        analytics=analytics,
    )
    fields = utm.patched(LinkFields(long_url=long_url), given)

    async def work() -> tuple[Link, DomainIndex]:
        async with open_links(settings, "links create") as (links, domains):
            at = domains.served(domain, "--domain")
            code = at.settings.redirect_code if redirect_code is None else redirect_code
            outcome = await links.create(
                replace(fields, redirect_code=code),
                domain=at,
                expires_in=lifetime,
                custom_slug=slug,
                lengths=MOVED,
            )
            if isinstance(outcome, ExternalIdTaken):
                console.fail(f"the external id {external_id} is that of {name_of(outcome.link.slug)}")
            if not isinstance(outcome, Created):
                console.fail(f"the slug {slug} is taken")
            return outcome.link, domains

    show(*console.run(work()), json=json)


@app.command("get")
def get(slug: SlugArgument, *, domain: DomainOption = None, json: console.Json = False) -> None:
    """Print a link as JSON, with or without --json."""
    from app.bootstrap import open_links

    settings = console.existing_store()

    async def work() -> Any:
        async with open_links(settings, "links get", is_reading=True) as (links, domains):
            name = key(domains, domain, slug)
            return await links.get(name) if name else None, domains

    found, domains = console.run(work())
    show(existing(found, slug), domains, json=True)


@app.command("edit")
def edit(
    slug: SlugArgument,
    *,
    domain: DomainOption = None,
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
    external_id: ExternalId = None,
    override_query: OverrideQuery = None,
    utm_source: UtmSource = None,
    utm_medium: UtmMedium = None,
    utm_campaign: UtmCampaign = None,
    utm_term: UtmTerm = None,
    utm_content: UtmContent = None,
    expired_url: ExpiredUrl = None,
    robots: Robots = None,
    analytics: Analytics = None,
    expires_in: ExpiresIn = None,
    owner: Annotated[
        str | None, typer.Option(metavar="ID", help="The API key that owns the link from now on, or none.")
    ] = None,
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
        external_id=external_id,
        override_query=override_query,
        utm_source=utm_source,
        utm_medium=utm_medium,
        utm_campaign=utm_campaign,
        utm_term=utm_term,
        utm_content=utm_content,
        expired_url=expired_url,
        robots=robots,
        analytics=analytics,
    )
    lifetime = _lifetime(expires_in, expires_at)
    if owner not in (None, "none"):
        from app.commands.keys import check_owner

        console.run(check_owner(settings, owner))
    if not changes and lifetime is None and owner is None:
        console.fail("name at least one field to change; hopgate links edit --help lists them")

    async def work() -> Any:
        async with open_links(settings, "links edit") as (links, domains):
            name = key(domains, domain, slug)
            if name is None:
                return None, domains
            outcome = await links.change(
                name,
                changes,
                expires_in=lifetime,
                expected_version=if_version,
                owner="" if owner == "none" else owner,
            )
            return outcome, domains

    found, domains = console.run(work())
    show(existing(found, slug), domains, json=json)


@app.command("delete")
def delete(
    slug: SlugArgument,
    *,
    domain: DomainOption = None,
    if_version: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Delete only this version of the link.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    json: console.Json = False,
) -> None:
    """Delete a link: its slug is not given out again, and `undo` brings it back. A terminal asks first."""
    from app.bootstrap import open_links

    settings = console.existing_store()
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Delete {slug}?", err=True):
        console.fail("nothing was deleted")

    async def work() -> Any:
        async with open_links(settings, "links delete", is_reading=True) as (links, domains):
            name = key(domains, domain, slug)
            return await links.remove(name, expected_version=if_version) if name else None

    existing(console.run(work()), slug)
    if json:
        console.show({"slug": slug, "deleted": True})
    else:
        console.say(f"{slug if domain is None else f'{domain}/{slug}'} is deleted")


def _given(**options: Any) -> dict[str, Any]:
    """Return the fields of `LinkFields`, and the UTM parameters, that the options name."""
    from app.domain import utm

    fields = {name: value for name, value in options.items() if value is not None}
    if "tags" in fields:
        fields["tags"] = tuple(fields["tags"])
    for name in ("valid_from", "expires_at"):
        if name in fields:
            fields[name] = None if fields[name] == "none" else console.time(fields[name])
    if "max_visits" in fields:
        fields["max_visits"] = None if fields["max_visits"] == "none" else _number(fields["max_visits"])
    for name in ("external_id", "expired_url", "robots", "owner", *utm.NAMES):
        if fields.get(name) == "none":
            fields[name] = None
    return fields


def fields_elsewhere(*, expires_in: str | None, **options: Any) -> dict[str, Any]:
    """Return what the options set, for the API of a gateway, which reads lifetimes itself."""
    _lifetime(expires_in, options["expires_at"])
    fields = _given(**options)
    return fields if expires_in is None else {**fields, "expires_in": expires_in}


def _lifetime(text: str | None, expires_at: str | None) -> timedelta | None:
    from app.domain import lifetime

    if text is not None and expires_at is not None:
        console.fail("--expires-in and --expires-at exclude each other: nothing was done")
    return None if text is None else lifetime.parse(text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        console.fail(f"{text!r} is not a number of visits, nor none")
    return int(text)


def key(domains: DomainIndex, host: str | None, text: str) -> Slug | None:
    """Return the key of the link; None if no link can have it."""
    return domains.served(host, "--domain").known_key(text)


def existing(outcome: Any, slug: str) -> Any:
    """Return *outcome* if it is a link or what was found out about one; else end the command."""
    from app.domain.link_key import name_of
    from app.ports import ExternalIdTaken, VersionMismatch
    from app.service.links import IsAlias, Removed

    match outcome:
        case None:
            console.fail(f"there is no link {slug}")
        case IsAlias(link):
            console.fail(f"{slug} is an alias of {name_of(link.slug)}: name that")
        case Removed():
            console.fail(f"{slug} was removed")
        case VersionMismatch(current):
            console.fail(f"{slug} is at version {current.version}: nothing was changed")
        case ExternalIdTaken(link):
            console.fail(f"the external id is that of {name_of(link.slug)}: nothing was changed")
    return outcome


def show(link: Link, domains: DomainIndex, *, json: bool) -> None:
    """Print *link*: its short URL, or all of it."""
    from app.web.schemas import link_document

    if json:
        console.show(link_document(link, domains))
    else:
        console.say(domains.short_url(link.slug))
