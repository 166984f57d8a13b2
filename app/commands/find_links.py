"""What `hopgate links list` and `search` do: filters from options, and links as lines or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from app.commands import console
from app.domain.errors import InvalidInput

if TYPE_CHECKING:
    from app.domain.domains import DomainIndex
    from app.domain.link import Link, LinkFields
    from app.service.find import Filters

_PAGE = 200
_NAMES = {"tags_all": "all-tags", "tags_none": "without-tag"}


def filters(
    *,
    tag: Sequence[str] | None,
    tags_all: Sequence[str] | None,
    tags_none: Sequence[str] | None,
    state: Sequence[str] | None,
    sort: str | None,
    **others: str | None,
) -> Filters:
    """Return what the options ask for; a command that breaks a rule ends with one line."""
    from app.ports import LinkCondition
    from app.service.find import SORTS, Filters

    if sort is not None and sort not in SORTS:
        console.fail(f"--sort must be one of {', '.join(SORTS)}", names_store=False)
    states = [one.value for one in LinkCondition]
    for one in state or ():
        if one not in states:
            console.fail(f"--state must be one of {', '.join(states)}", names_store=False)
    values: dict[str, Any] = {
        name: console.time(text) if name.endswith(("_since", "_until")) else text
        for name, text in others.items()
    }
    return Filters(
        tag=tuple(tag or ()),
        tags_all=tuple(tags_all or ()),
        tags_none=tuple(tags_none or ()),
        state=tuple(map(LinkCondition, state or ())),
        sort=sort,
        **values,
    )


def show(command: str, asked: Filters, *, domain: str | None, limit: int, count: bool, json: bool) -> None:
    """Print up to *limit* links of *domain*, or of all, that pass *asked*, and if *count* how many do."""
    from app.bootstrap import open_listings
    from app.web.schemas import link_document

    settings = console.existing_store()
    try:
        unbound = asked.query()
    except InvalidInput as error:
        raise InvalidInput([replace(one, field=_option(one.field)) for one in error.errors]) from None

    async def work() -> tuple[list[Link], DomainIndex, bool, int | None]:
        found: list[Link] = []
        async with open_listings(settings, command) as (listings, domains):
            named = domains.served(domain, "--domain")
            query = replace(unbound, domain=None if domain is None else named.domain_id)
            after, total = None, None
            while len(found) < limit:
                wanted = min(_PAGE, limit - len(found))
                page = await listings.page(query, after=after, limit=wanted, counted=count and not found)
                total = page.count if not found else total
                found += page.links
                after = page.next_after
                if after is None:
                    break
        return found, domains, after is not None, total

    found, domains, has_more, total = console.run(work())
    if json:
        console.show([link_document(link, domains) for link in found])
    else:
        for link in found:
            console.say(line(domains.shown(link.slug), link.visits, link.fields))
    note(limit, has_more=has_more, counted=count, total=total)


def note(limit: int, *, has_more: bool, counted: bool, total: int | None) -> None:
    """Print how many links there are, if they were *counted*, and whether there are more than are shown."""
    if counted:
        console.note("counting takes too long" if total is None else f"{total:,} links")
    if has_more:
        console.note(f"there are more than {limit} links: --limit shows more of them")


def _option(field: str) -> str:
    """Return what the user has typed for the filter *field*."""
    return "TERM" if field == "search" else f"--{_NAMES.get(field, field.replace('_', '-'))}"


def line(shown: str, visits: int, fields: Any) -> str:
    """Return a link as people read it; *fields* has those of `LinkFields`."""
    from app.bootstrap import utc_now
    from app.interchange.inert import terminal_safe

    state = _state(fields, utc_now())
    title = f"  {terminal_safe(fields.title)}" if fields.title else ""
    return f"{shown:<12} {visits:>9,} {state:<8} {fields.long_url}{title}"


def _state(fields: LinkFields, now: datetime) -> str:
    if not fields.enabled:
        return "disabled"
    if fields.expires_at is not None and fields.expires_at <= now:
        return "expired"
    if fields.valid_from is not None and now < fields.valid_from:
        return "pending"
    return "live"
