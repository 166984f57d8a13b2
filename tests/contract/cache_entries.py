"""What tests put into a `LinkCache`."""

from __future__ import annotations

from app.domain.link import Resolution, Slug

A, B = Slug("aaaaaaa"), Slug("bbbbbbb")


def live(slug: Slug, version: int) -> Resolution:
    return Resolution(
        slug, version, f"https://example.com/{slug}/{version}", 301, True, 1.5, 9e9, metered=True
    )
