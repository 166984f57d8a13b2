"""What the operator lets links lead to: schemes by a list, and no blocked host."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.blocks import BlockIndex
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Slug

# The schemes of web pages.
WEB = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPolicy:
    """
    Holds when a link is made or changed, and again at each visit.

    `schemes`: in lower case. `blocks`: those in force, kept up to date by the process; None: there are none.
    """

    schemes: frozenset[str] = WEB
    blocks: BlockIndex | None = None

    def allows(self, slug: str, url: str) -> bool:
        """May the link *slug* redirect to *url*, which is in canonical form?"""
        blocks = self.blocks
        return url.partition(":")[0] in self.schemes and not (
            blocks is not None and (blocks.has_slug(slug) or blocks.has_host(url))
        )

    def free(self, slug: Slug) -> Slug:
        """Return *slug* for a new link. Raises InvalidInput if it is blocked."""
        if self.blocks is not None and self.blocks.has_slug(slug):
            raise InvalidInput([FieldError("slug", "slug_blocked", "is blocked by the operator")])
        return slug


WEB_ONLY = TargetPolicy()
