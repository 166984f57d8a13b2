"""A model of `FindStore` in plain Python, with which the adapters are compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from app.domain.link import Link
from app.domain.link_key import split_key
from app.domain.search import searched_text
from app.ports import FoundPage, LinkCondition, LinkQuery, LinkSort, Position, Store, TagCount, TimeRange


def condition(link: Link, now: datetime) -> LinkCondition:
    fields = link.fields
    if not fields.enabled:
        return LinkCondition.DISABLED
    if fields.expires_at is not None and fields.expires_at <= now:
        return LinkCondition.EXPIRED
    if fields.valid_from is not None and fields.valid_from > now:
        return LinkCondition.PENDING
    return LinkCondition.LIVE


def is_in(time: datetime | None, period: TimeRange) -> bool:
    if period == TimeRange():
        return True
    if time is None:
        return False
    return (period.since is None or period.since <= time) and (period.until is None or time < period.until)


def passes(link: Link, query: LinkQuery, now: datetime) -> bool:
    fields, tags = link.fields, set(link.fields.tags)
    text = searched_text(link.slug, fields.title, fields.long_url, fields.tags)
    return (
        link.removed_at is None
        and all(term in text for term in query.terms)
        and (not query.tags_any or bool(tags & set(query.tags_any)))
        and tags >= set(query.tags_all)
        and not tags & set(query.tags_none)
        and query.host in (None, re.sub(r":[0-9]+$", "", urlsplit(fields.long_url).netloc))
        and query.long_url in (None, fields.long_url)
        and query.owner in (None, link.owner or "")
        and (not query.domains or split_key(link.slug)[0] in query.domains)
        and (not query.conditions or condition(link, now) in query.conditions)
        and is_in(link.created_at, query.created)
        and is_in(link.updated_at, query.updated)
        and is_in(fields.expires_at, query.expires)
    )


def listed(links: Sequence[Link], query: LinkQuery, now: datetime) -> list[Link]:
    """Return those of *links*, in the order in which they were stored, that *query* lists, in its order."""

    def key(numbered: tuple[int, Link]) -> Any:
        place, link = numbered
        keys: dict[LinkSort, Any] = {
            LinkSort.STORED: (place,),
            LinkSort.CREATED: (link.created_at, place),
            LinkSort.UPDATED: (link.updated_at, place),
            LinkSort.CLICKS: (link.visits, link.slug),
            LinkSort.TITLE: (link.fields.title, place),
            LinkSort.SLUG: (link.slug,),
        }
        return keys[query.sort]

    found = [(place, link) for place, link in enumerate(links) if passes(link, query, now)]
    return [link for _, link in sorted(found, key=key, reverse=query.descending)]


def tag_counts(links: Iterable[Link]) -> list[TagCount]:
    tags = Counter(tag for link in links if link.removed_at is None for tag in set(link.fields.tags))
    return [TagCount(tag, tags[tag]) for tag in sorted(tags)]


def retagged(link: Link, tag: str, new: str | None) -> Link:
    """Return *link* with *new* in place of *tag*; its version and time stay."""
    tags = link.fields.tags
    if new is None or new in tags:
        kept = tuple(one for one in tags if one != tag)
    else:
        kept = tuple(new if one == tag else one for one in tags)
    return replace(link, fields=replace(link.fields, tags=kept))


async def all_pages(store: Store, query: LinkQuery, *, limit: int, now: datetime) -> list[Link]:
    """Return the links of every page."""
    found: list[Link] = []
    after: Position | None = None
    while True:
        page: FoundPage = await store.find(query, after=after, limit=limit, now=now)
        assert len(page.links) == limit or page.next_after is None
        found += page.links
        if (after := page.next_after) is None:
            return found
