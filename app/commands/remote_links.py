"""`hopgate links` for a gateway elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from typing import Any

import typer
from hopgate_client import Gone, Hopgate, HopgateError, Link, LinkHistory, NotFound, PreconditionFailed

from app.commands import console, find_links, link_history
from app.commands.link_stats import check_forms, show_stats
from app.commands.links import fields_elsewhere
from app.commands.remote import doubt

_PAGE = 200


def create(gateway: Hopgate, *, json: bool, **options: Any) -> None:
    """Create a link and print its short URL."""
    _show(gateway.links.create(**fields_elsewhere(**options)), json=json)


def get(gateway: Hopgate, *, slug: str, domain: str | None, json: bool) -> None:
    """Print a link as JSON, with or without --json."""
    del json
    with _about(slug):
        console.show(gateway.links.get(slug, domain=domain))


def edit(
    gateway: Hopgate,
    *,
    slug: str,
    domain: str | None,
    if_version: int | None,
    tags: list[str] | None,
    no_tags: bool,
    json: bool,
    **options: Any,
) -> None:
    """Change what the options name; the rest of the link stays as it is."""
    if tags and no_tags:
        console.fail("--tag and --no-tags exclude each other: nothing was changed", names_store=False)
    changes = fields_elsewhere(tags=[] if no_tags else tags, **options)
    if not changes:
        console.fail("name at least one field to change; hopgate links edit --help lists them")
    with _about(slug):
        changed = gateway.links.change(slug, domain=domain, if_version=if_version, **changes)
    if changed is None:
        _say_done(slug, "changed", json=json)
    else:
        _show(changed, json=json)


def delete(
    gateway: Hopgate, *, slug: str, domain: str | None, if_version: int | None, yes: bool, json: bool
) -> None:
    """Delete a link. A terminal asks first."""
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Delete {slug}?", err=True):
        console.fail("nothing was deleted")
    with _about(slug):
        gateway.links.remove(slug, domain=domain, if_version=if_version)
    if json:
        console.show({"slug": slug, "deleted": True})
    else:
        console.say(f"{slug if domain is None else f'{domain}/{slug}'} is deleted")


def list_(
    gateway: Hopgate,
    *,
    context: typer.Context,
    terms: list[str] | None,
    tags_any: list[str] | None,
    domain: str | None,
    limit: int,
    count: bool,
    json: bool,
    **options: Any,
) -> None:
    """List links that have every TERM and pass every option."""
    if context.info_name == "search" and not terms:
        console.fail("name a TERM to search for; `hopgate links list` shows all links", names_store=False)
    asked = find_links.filters(search=" ".join(terms) if terms else None, tag=tags_any, **options)
    named = {one.name: getattr(asked, one.name) for one in fields(asked)}
    filters: dict[str, Any] = {name: value for name, value in named.items() if value}
    filters["state"] = [one.value for one in asked.state]
    if asked.owner == "":
        filters["owner"] = "none"
    if domain is not None:
        filters["domain"] = domain
    found: list[Link] = []
    cursor, total, is_first = None, None, True
    while is_first or (cursor is not None and len(found) < limit):
        wanted = min(_PAGE, limit - len(found))
        page = gateway.links.page(limit=wanted, cursor=cursor, count=count and is_first, **filters)
        total = page.count if is_first else total
        found += page.links
        cursor, is_first = page.next_cursor, False
    if json:
        console.show(found)
    elif found:
        default = gateway.domains.list()[0].host
        for link in found:
            shown = link.slug if link.domain == default else f"{link.domain}/{link.slug}"
            console.say(find_links.line(shown, link.visits, link))
    find_links.note(limit, has_more=cursor is not None, counted=count, total=total)


def stats(
    gateway: Hopgate,
    *,
    slug: str,
    domain: str | None,
    since: str | None,
    until: str | None,
    interval: str | None,
    time_zone: str | None,
    compare: bool,
    top: int,
    csv: bool,
    json: bool,
) -> None:
    """Print how often a link was visited, in total and by the hour (UTC)."""
    check_forms(csv=csv, json=json)
    first, end = console.time(since), console.time(until)
    with _about(slug):
        found = gateway.links.stats(
            slug,
            domain=domain,
            since=first,
            until=end,
            interval=interval,
            time_zone=time_zone,
            compare=compare or None,
            top=top,
        )
    show_stats(found, csv=csv, json=json)


def history(gateway: Hopgate, *, slug: str, domain: str | None, limit: int, json: bool) -> None:
    """List the changes of a link, removed or not, newest first."""
    whole: LinkHistory | None = None
    while whole is None or (whole.next_cursor is not None and len(whole.changes) < limit):
        cursor, shown = (None, ()) if whole is None else (whole.next_cursor, whole.changes)
        with _about(slug):
            page = gateway.links.history(
                slug, domain=domain, limit=min(_PAGE, limit - len(shown)), cursor=cursor
            )
        whole = replace(page, changes=(*shown, *page.changes))
    if json:
        console.show(whole)
    else:
        link_history.say(whole)


def undo(gateway: Hopgate, *, slug: str, domain: str | None, if_version: int | None, json: bool) -> None:
    """Undo the last change of a link, its removal too."""
    with _about(slug):
        link = gateway.links.undo(slug, domain=domain, if_version=if_version)
    if link is not None:
        _show(link, json=json)
        return
    # The change is undone, whatever becomes of the question which of the two it is.
    with suppress(HopgateError):
        if {"links:read", "admin"} & {*gateway.me().scopes}:
            _say_done(slug, "deleted again", json=json)
            return
    _say_done(slug, "undone", json=json)


def _show(link: Link, *, json: bool) -> None:
    if json:
        console.show(link)
    else:
        console.say(link.short_url)


def _say_done(slug: str, what: str, *, json: bool) -> None:
    if json:
        console.show({"slug": slug, what.partition(" ")[0]: True})
    else:
        console.say(f"{slug} is {what}")


@contextmanager
def _about(slug: str) -> Iterator[None]:
    """Say of the link *slug* what a command on the gateway's own machine would say."""
    try:
        yield
    except NotFound:
        console.fail(f"there is no link {slug}")
    except Gone as error:
        console.fail(f"{slug} was removed{doubt(error)}")
    except PreconditionFailed as error:
        if error.may_have_applied or error.link is None:
            raise
        console.fail(f"{slug} is at version {error.link.version}: nothing was changed")
