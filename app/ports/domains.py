"""`DomainStore`: the hosts that links are visited at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from app.domain.domains import Domain, DomainSettings


class DomainStore(Protocol):
    """
    Domains, which are few, and the version of their latest change.

    Changes are numbered in the order of their commits. Raises (every method): Unavailable.
    """

    async def domains_version(self) -> int:
        """Return the version of the latest change. Cheap: it is asked all the time."""
        ...

    async def domains(self) -> Sequence[Domain]:
        """Return all by their ids, removed ones included; the host of the default one is empty."""
        ...

    async def add_domain(
        self, host: str, settings: DomainSettings, *, case_sensitive: bool, now: datetime
    ) -> Domain | None:
        """
        Store a domain, or bring a removed one back with *settings*; None if it is there.

        One that is brought back keeps its id, and whether its slugs have case.
        """
        ...

    async def change_domain(
        self, domain_id: int, settings: DomainSettings, *, expected_version: int, now: datetime
    ) -> Domain | None:
        """Replace the settings; None if the domain is not at *expected_version*, or is removed."""
        ...

    async def remove_domain(self, domain_id: int, *, now: datetime) -> bool:
        """Mark the domain removed; False if it is absent or removed. Its links stay."""
        ...
