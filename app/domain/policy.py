"""What the operator lets links lead to: schemes by a list, and no blocked host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from app.domain.blocks import BlockIndex
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Slug
from app.domain.link_key import name_of

# The schemes of web pages.
WEB = frozenset({"http", "https"})


class OwnDomains(Protocol):
    """The part of the domains that targets have to obey."""

    def has_target(self, url: str) -> bool:
        """As `app.domain.domains.DomainIndex.has_target`."""
        ...

    def ignores_case(self, key: str) -> bool:
        """As `app.domain.domains.DomainIndex.ignores_case`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPolicy:
    """
    Holds when a link is made or changed, and again at each visit.

    `schemes`: in lower case. `blocks`: those in force; `domains`: those that are served. The process keeps
    both up to date; None: there are none.
    """

    schemes: frozenset[str] = WEB
    blocks: BlockIndex | None = None
    domains: OwnDomains | None = None

    def allows(self, slug: str, url: str) -> bool:
        """May the link *slug* redirect to *url*, which is in canonical form?"""
        return self.allows_url(url) and not self._blocks_slug(slug)

    def allows_url(self, url: str) -> bool:
        """May anything redirect to *url*, which is in canonical form?"""
        return url.partition(":")[0] in self.schemes and not (
            self.blocks is not None and self.blocks.has_host(url)
        )

    def free(self, slug: Slug) -> Slug:
        """Return *slug* for a new link. Raises InvalidInput if it is blocked."""
        if self._blocks_slug(slug):
            raise InvalidInput([FieldError("slug", "slug_blocked", "is blocked by the operator")])
        return slug

    def _blocks_slug(self, slug: str) -> bool:
        if self.blocks is None:
            return False
        ignores_case = self.domains is not None and self.domains.ignores_case(slug)
        return self.blocks.has_slug(name_of(slug), ignoring_case=ignores_case)


WEB_ONLY = TargetPolicy()
