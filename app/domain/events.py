"""What happened, in the past tense. Events name links; they never carry their contents."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.link import Slug


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """*slug* was created, edited, removed or invalidated, and is now at *version*."""

    slug: Slug
    version: int


@dataclass(frozen=True, slots=True)
class LinksMissed:
    """These slugs were asked for and were in no cache."""

    slugs: tuple[Slug, ...]


Event = LinkChanged | LinksMissed
