"""`LinkReplica`: copies of the store that lag behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from app.domain.link import Resolution, Slug

REPLICA_LAG_S = 5.0


class LinkReplica(Protocol):
    """
    Copies of the store that lag by at most `REPLICA_LAG_S`. For redirects only.

    A redirect uses a replica's answer if it is not older than every change the process knows of.
    The answer proves nothing else, and is never written to a shared cache.
    """

    async def resolve(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """
        Return the links that are live in one copy. For all other slugs, ask the store.

        At most 1,000 slugs. Never raises. Empty if no copy is known to be current enough, or none
        answers in time. Links that are gone or not yet valid in the copy are left out like unknown
        ones: the store may have changed since.
        """
        ...
