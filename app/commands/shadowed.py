"""
Links that are hidden by a page of the service.

A version reserves the paths of its pages. A link that was made before has the slug all the same: a
visit of it gets the page, now or when a later version brings it. So the link is named.
"""

from __future__ import annotations

import asyncio

from app.bootstrap import open_store
from app.domain.errors import Unavailable
from app.domain.link import Slug
from app.domain.slug import RESERVED, is_well_formed
from app.ports import LinkStore
from app.settings import Settings

_ATTEMPTS, _PAUSE_S = 4, 0.5
REMEDY = "make a link with another slug for its target, and remove this one: hopgate links get SLUG shows it"


async def shadowed(store: LinkStore) -> list[Slug]:
    """
    Return the slugs of links that have a reserved path, in order: at most one for each path.

    Raises:
        Unavailable: the store did not answer.
    """
    paths = [Slug(path) for path in sorted(RESERVED) if is_well_formed(path)]
    found = await store.get_many(paths)
    return [path for path in paths if path in found and found[path].removed_at is None]


async def told(settings: Settings) -> list[str]:
    """Return a line about each link of the store that has a reserved path, or why they are not known."""
    async with open_store(settings) as store:
        for left in reversed(range(_ATTEMPTS)):
            try:
                return [described(slug) for slug in await shadowed(store)]
            except Unavailable as error:  # a connection may still be opening
                if not left:
                    return [f"links were not compared with the pages of the service: {error}"]
                await asyncio.sleep(_PAUSE_S)
    return []


def described(slug: Slug) -> str:
    """Return one line about a link with a reserved path."""
    return f"the link {slug} is hidden by a page of the service, of this version or of one to come"
