"""What a connection pool reports about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class PoolState:
    """Connections that calls use, that are idle, and the most there may be; and calls that wait for one."""

    used: int
    idle: int
    most: int
    waiting: int

    @classmethod
    def of(cls, stats: Mapping[str, int], *, waiting: int) -> Self:
        """Return the state in the *stats* of psycopg_pool, which does not know all callers that wait."""
        idle = stats["pool_available"]
        return cls(stats["pool_size"] - idle, idle, stats["pool_max"], waiting)
