"""Which links the current work may see and change: all of them, or what an API key is restricted to."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.domains import Domain
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link
from app.domain.link_key import split_key


@dataclass(frozen=True, slots=True)
class Reach:
    """
    What is beyond it does not exist for its holder, but for the slugs and external ids that it takes.

    Args:
        owner: only links of this owner; None: of any owner and of none.
        domains: only links of the domains with these ids; None: of all domains.
    """

    owner: str | None = None
    domains: frozenset[int] | None = None

    def holds(self, link: Link) -> bool:
        """Return whether *link* is within it; an alias is, if its link is."""
        own = link.alias_of or link.slug
        return self.owner in (None, link.owner) and self.has_domain(split_key(own)[0])

    def has_domain(self, domain_id: int) -> bool:
        """Return whether links of the domain can be within it."""
        return self.domains is None or domain_id in self.domains

    def check_domain(self, domain: Domain) -> None:
        """
        Check that a link may be made for *domain*.

        Raises:
            InvalidInput: it is beyond it.
        """
        if not self.has_domain(domain.domain_id):
            raise InvalidInput([FieldError("domain", "domain_forbidden", "is none that this key may use")])


EVERYTHING = Reach()
