"""
Links that are hidden by a page of the service.

A version reserves the paths of its pages, and what its APIs have routes below. A link that was made before
has the slug all the same: a visit of it gets the page, now or when a later version brings it, or an API is
switched on. So the link is named.
"""

from __future__ import annotations

import asyncio

from app.bootstrap import open_store
from app.bootstrap.dependencies import utc_now
from app.domain.domains import Domain, DomainIndex
from app.domain.errors import Unavailable
from app.domain.link import Slug
from app.domain.link_key import key_of
from app.domain.slug import RESERVED, RESERVED_BELOW, is_well_formed
from app.ports import LinkQuery, LinkSort, Position, Store
from app.settings import Settings

_ATTEMPTS, _PAUSE_S = 4, 0.5
# The most that a store is asked for at once.
_ASKED = 1000
REMEDY = "make a link with another slug for its target, and remove this one: hopgate links get SLUG shows it"


async def shadowed(store: Store, public_url: str) -> list[str]:
    """
    Return the links that have a reserved path, at most one for each of a domain, as `DomainIndex.shown`.

    Those of several segments: one for each path that routes may be below.

    Raises:
        Unavailable: the store did not answer.
    """
    domains = DomainIndex(public_url, await store.domains())
    paths = [path for path in sorted(RESERVED) if is_well_formed(path)]
    keys = [key_of(domain.domain_id, path) for domain in domains for path in paths]
    found: list[str] = []
    for start in range(0, len(keys), _ASKED):
        some = keys[start : start + _ASKED]
        links = await store.get_many(some)
        found += [domains.shown(key) for key in some if key in links and links[key].removed_at is None]
    for domain in domains:
        if domain.kinds.segments:
            found += [
                domains.shown(key)
                for path in sorted(RESERVED_BELOW)
                for key in await _below(store, domain, path)
            ]
    return found


async def _below(store: Store, domain: Domain, path: str) -> list[Slug]:
    """Return the first link of *domain* below *path*, if there is one."""
    start = domain.key(f"{path}/")
    query = LinkQuery(domain=domain.domain_id, sort=LinkSort.SLUG, descending=False)
    page = await store.find(query, after=Position(start, start), limit=1, now=utc_now())
    return [link.slug for link in page.links if link.slug.startswith(start)]


async def told(settings: Settings) -> list[str]:
    """Return a line about each link of the store that has a reserved path, or why they are not known."""
    async with open_store(settings) as store:
        for left in reversed(range(_ATTEMPTS)):
            try:
                return [described(slug) for slug in await shadowed(store, settings.public_url)]
            except Unavailable as error:  # a connection may still be opening
                if not left:
                    return [f"links were not compared with the pages of the service: {error}"]
                await asyncio.sleep(_PAUSE_S)
    return []


def described(slug: str) -> str:
    """Return one line about a link with a reserved path."""
    return f"the link {slug} is hidden by a page of the service, of this version or of one to come"
