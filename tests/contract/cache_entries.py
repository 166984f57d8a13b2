"""Entries that tests put into a `LinkCache`."""

from __future__ import annotations

from app.domain.link import Resolution, Slug
from app.ports import LinkCache

A, B = Slug("aaaaaaa"), Slug("bbbbbbb")


def live(slug: Slug, version: int) -> Resolution:
    return Resolution(
        slug, version, f"https://example.com/{slug}/{version}", 301, True, 1.5, 9e9, metered=True
    )


async def cached(cache: LinkCache, slug: Slug) -> Resolution | None:
    """Return what *cache* holds of *slug*."""
    return (await cache.get_many([slug])).get(slug)
