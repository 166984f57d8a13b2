"""`hopgate links rename` and `alias`: another slug for a link, and further ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands import console
from app.commands.help import Group
from app.commands.links import DomainOption, SlugArgument, existing, key, show

if TYPE_CHECKING:
    from app.domain.domains import Domain, DomainIndex
    from app.domain.link import Slug
    from app.service.aliases import Aliases

NewSlug = Annotated[str, typer.Argument(metavar="NEW", help="The slug to have instead.")]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="The further slug.")]
OtherDomain = Annotated[
    str | None, typer.Option(metavar="HOST", help="The domain of that slug. Default: that of the link.")
]
IfVersion = Annotated[
    int | None, typer.Option(metavar="NUMBER", help="Change only this version of the link.")
]
# The operation, the link, and the domain of the other slug.
_Change = Callable[["Aliases", "Slug", "Domain"], Awaitable[Any]]


def declare(group: Group) -> None:
    """Add the commands to *group*."""
    group.command("rename")(rename)
    aliases = Group(help="Give links further slugs, and take them away.")
    aliases.command("add")(add)
    aliases.command("remove")(remove)
    group.add_typer(aliases, name="alias")


def rename(
    slug: SlugArgument,
    new: NewSlug,
    *,
    domain: DomainOption = None,
    new_domain: OtherDomain = None,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="The former slug answers 410, and is no alias.")
    ] = False,
    if_version: IfVersion = None,
    json: console.Json = False,
) -> None:
    """Give a link another slug; the former one becomes an alias."""
    from app.domain.slug import MOVED

    async def change(aliases: Aliases, name: Slug, at: Domain) -> Any:
        return await aliases.rename(name, at, new, MOVED, keep_old=not drop_old, expected_version=if_version)

    show(*_changed("rename", change, slug, domain, new_domain), json=json)


def add(
    slug: SlugArgument,
    alias: Alias,
    *,
    domain: DomainOption = None,
    alias_domain: OtherDomain = None,
    if_version: IfVersion = None,
    json: console.Json = False,
) -> None:
    """Give a link a further slug."""
    from app.domain.slug import MOVED

    async def change(aliases: Aliases, name: Slug, at: Domain) -> Any:
        return await aliases.add(name, at, alias, MOVED, expected_version=if_version)

    link, domains = _changed("alias add", change, slug, domain, alias_domain)
    if json:
        show(link, domains, json=True)
    else:
        console.say(domains.short_url(domains.served(alias_domain or domain, "--alias-domain").key(alias)))


def remove(
    slug: SlugArgument,
    alias: Alias,
    *,
    domain: DomainOption = None,
    alias_domain: OtherDomain = None,
    if_version: IfVersion = None,
    json: console.Json = False,
) -> None:
    """Take an alias from a link; its slug stays taken."""

    async def change(aliases: Aliases, name: Slug, at: Domain) -> Any:
        return await aliases.remove(name, at.key(alias), expected_version=if_version)

    link, domains = _changed("alias remove", change, slug, domain, alias_domain)
    if json:
        show(link, domains, json=True)
    else:
        console.say(f"{alias} is no alias of {slug} any more")


def _changed(
    command: str, change: _Change, slug: str, domain: str | None, other: str | None
) -> tuple[Any, DomainIndex]:
    """Make *change* to the link, and return it; end the command if there is none."""
    from app.bootstrap import open_aliases
    from app.domain.link_key import name_of
    from app.service.aliases import NoAlias
    from app.service.links import SlugTaken

    settings = console.existing_store()

    async def work() -> tuple[Any, DomainIndex]:
        async with open_aliases(settings, f"links {command}") as (aliases, domains):
            name = key(domains, domain, slug)
            at = domains.served(other or domain, "--domain")
            return None if name is None else await change(aliases, name, at), domains

    outcome, domains = console.run(work())
    match outcome:
        case SlugTaken(link, taken):
            console.fail(f"the slug {name_of(taken or link.slug)} is taken: nothing was changed")
        case NoAlias():
            console.fail(f"{slug} has no such alias: nothing was changed")
    return existing(outcome, slug), domains
