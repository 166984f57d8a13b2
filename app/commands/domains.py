"""`hopgate domains`: the hosts that links are visited at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands import console
from app.commands.help import Group

if TYPE_CHECKING:
    from app.domain.domains import Domain
    from app.service.domains import Domains

app = Group(help="Serve further hosts, each with links of its own: every gateway does within a second.")

HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="The host, without scheme and port.")]
# One option for each field of DomainSettings; None leaves it as it is, "none" empties it.
RootUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Where visitors of the host alone are redirected, or none.")
]
NotFoundUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where visitors of a link that is not there are redirected, or none."),
]
ExpiredUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where visitors of a link that is gone are redirected, or none."),
]
MinSlugLength = Annotated[
    int | None, typer.Option(metavar="NUMBER", help="The fewest characters of a slug that is chosen.")
]
SlugLength = Annotated[
    str | None, typer.Option(metavar="NUMBER", help="The characters of a random slug, or none: as usual.")
]
MultiSegment = Annotated[
    bool | None,
    typer.Option("--multi-segment/--single-segment", help="New links may have slugs such as a/b, or not."),
]
Unicode = Annotated[
    bool | None,
    typer.Option("--unicode/--ascii", help="New links may have slugs of other letters and emoji, or not."),
]
RedirectCode = Annotated[
    int | None, typer.Option(metavar="CODE", help="301, 302, 307 or 308: of new links that name none.")
]
RobotsOption = Annotated[
    str | None, typer.Option("--robots", metavar="POLICY", help="allow or disallow: what robots.txt says.")
]


@app.command("add")
def add(
    host: HostArgument,
    *,
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", help="Slugs are stored, and looked up, in lower case. For good.")
    ] = False,
    root_url: RootUrl = None,
    not_found_url: NotFoundUrl = None,
    expired_url: ExpiredUrl = None,
    min_slug_length: MinSlugLength = None,
    slug_length: SlugLength = None,
    multi_segment: MultiSegment = None,
    unicode: Unicode = None,
    redirect_code: RedirectCode = None,
    robots: RobotsOption = None,
    json: console.Json = False,
) -> None:
    """Serve another host. Its visitors have to reach this service."""
    from app.domain.domains import DomainSettings
    from app.domain.link_key import name_of
    from app.service.domains import DomainInUse, DomainTaken

    given = settings_of(
        root_url=root_url,
        not_found_url=not_found_url,
        expired_url=expired_url,
        min_slug_length=min_slug_length,
        slug_length=slug_length,
        multi_segment=multi_segment,
        unicode=unicode,
        redirect_code=redirect_code,
        robots=robots,
    )
    settings = DomainSettings(**given)

    async def work(domains: Domains) -> Domain:
        outcome = await domains.add(host, settings, case_sensitive=not ignore_case)
        match outcome:
            case DomainTaken():
                console.fail(f"{host} is a domain already")
            case DomainInUse(slug):
                console.fail(
                    f"links lead to {host}, {name_of(slug)} among them: it would send them in a circle"
                )
        return outcome

    _show(work, json=json)


@app.command("edit")
def edit(
    host: HostArgument,
    *,
    root_url: RootUrl = None,
    not_found_url: NotFoundUrl = None,
    expired_url: ExpiredUrl = None,
    min_slug_length: MinSlugLength = None,
    slug_length: SlugLength = None,
    multi_segment: MultiSegment = None,
    unicode: Unicode = None,
    redirect_code: RedirectCode = None,
    robots: RobotsOption = None,
    json: console.Json = False,
) -> None:
    """Change what the options name; the rest of the domain stays as it is."""
    patch = settings_of(
        root_url=root_url,
        not_found_url=not_found_url,
        expired_url=expired_url,
        min_slug_length=min_slug_length,
        slug_length=slug_length,
        multi_segment=multi_segment,
        unicode=unicode,
        redirect_code=redirect_code,
        robots=robots,
    )
    if not patch:
        console.fail("name at least one setting to change; hopgate domains edit --help lists them")

    async def work(domains: Domains) -> Domain:
        changed = await domains.change(host, patch)
        if changed is None:
            console.fail(f"there is no domain {host}")
        return changed

    _show(work, json=json)


@app.command("list")
def list_(*, json: console.Json = False) -> None:
    """List the domains, the default one first."""
    from app.bootstrap import open_domains
    from app.web.domains_api import domain_document

    settings = console.existing_store()

    async def work() -> list[Any]:
        async with open_domains(settings) as domains:
            return [domain_document(one, domains.index) for one in await domains.all()]

    found = console.run(work())
    if json:
        console.show(found)
        return
    for one in found:
        console.say(f"{one.host}{'  (default)' if one.is_default else ''}")


@app.command("remove")
def remove(host: HostArgument, *, json: console.Json = False) -> None:
    """Serve a host no more. Its links have to be removed first."""
    from app.bootstrap import open_domains
    from app.domain.link_key import name_of
    from app.service.domains import DomainInUse

    settings = console.existing_store()

    async def work() -> Any:
        async with open_domains(settings) as domains:
            return await domains.remove(host)

    outcome = console.run(work())
    match outcome:
        case None:
            console.fail(f"there is no domain {host}")
        case DomainInUse(slug):
            console.fail(f"{host} has links, {name_of(slug)} among them: remove them first")
    if json:
        console.show({"host": outcome.host, "removed": True})
    else:
        console.say(f"{outcome.host} is served no more")


def settings_of(**options: Any) -> dict[str, Any]:
    """Return the settings that the options name."""
    from app.domain.domains import PAGES, Robots

    given = {name: value for name, value in options.items() if value is not None}
    for name in (*PAGES, "slug_length"):
        if given.get(name) == "none":
            given[name] = None
    length = given.get("slug_length")
    if length is not None:
        if not (length.isascii() and length.isdigit() and len(length) <= 9):
            console.fail(f"{length!r} is no number of characters, nor none")
        given["slug_length"] = int(length)
    if "robots" in given:
        if given["robots"] not in list(Robots):
            console.fail(f"{given['robots']!r} is neither allow nor disallow")
        given["robots"] = Robots(given["robots"])
    return given


def _show(work: Callable[[Domains], Awaitable[Domain]], *, json: bool) -> None:
    from app.bootstrap import open_domains
    from app.web.domains_api import domain_document

    settings = console.existing_store()

    async def done() -> Any:
        async with open_domains(settings) as domains:
            return domain_document(await work(domains), domains.index)

    document = console.run(done())
    if json:
        console.show(document)
    else:
        console.say(document.host)
