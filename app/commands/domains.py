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
    json: console.Json = False,
) -> None:
    """Serve another host. Its visitors have to reach this service."""
    from app.domain.domains import DomainSettings
    from app.domain.link_key import name_of
    from app.service.domains import DomainInUse, DomainTaken

    settings = DomainSettings(**_given(root_url, not_found_url, expired_url, min_slug_length))

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
    json: console.Json = False,
) -> None:
    """Change what the options name; the rest of the domain stays as it is."""
    patch = _given(root_url, not_found_url, expired_url, min_slug_length)
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


def _given(
    root_url: str | None, not_found_url: str | None, expired_url: str | None, min_slug_length: int | None
) -> dict[str, Any]:
    """Return the settings that the options name."""
    urls = {"root_url": root_url, "not_found_url": not_found_url, "expired_url": expired_url}
    given: dict[str, Any] = {
        name: None if url == "none" else url for name, url in urls.items() if url is not None
    }
    return given if min_slug_length is None else {**given, "min_slug_length": min_slug_length}


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
