"""
The deadlines of requests and of their steps, in seconds, in one table; and what is left of one.

A request's own deadline is what holds: the adapters' limits (for a connection, a statement, a
confirm) are longer, and end what a request that was given up has left behind.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

REDIRECT_S = 0.5  # the whole of a redirect that is in no local cache
RESOLVE_S = 0.45  # its look-ups together; what is left is for saying that nobody answered
CACHE_S = 0.06  # one Redis round trip; no retry, the store is the retry
CACHE_FILL_S = 1.0  # the same for a worker, which writes hundreds of keys at once
REPLICA_S = 0.1  # links from a replica, before the primary is asked
LOOKUP_WAIT_S = 0.1  # for a turn at the store, on the way to links that are visited, or to a key
LOOKUP_S = 0.3  # that look-up itself
STORE_WAIT_S = 0.5  # for a turn at the store, for everything else
STORE_S = 4.5  # everything else that is asked of the store; a request's own deadline is shorter
WRITE_S = 1.95  # a create, an edit, a removal: whoever sent it has an answer within 2 s
PUBLISH_S = 1.8  # events to the broker, until it has confirmed them
ADMIN_S = 5.0  # listings, invalidations, health checks
BODY_S = 5.0  # for a client to send its request body
SYNC_CACHE_S = 0.05  # a cache write done in the request because the broker is away
DRAIN_S = 20.0  # from SIGTERM to exit

# A step ends this much before its request does, so that it can still say why.
_MARGIN_S = 0.005

_end: ContextVar[float] = ContextVar("deadline", default=math.inf)


class within:  # noqa: N801 - reads as what it does: async with within(REDIRECT_S)
    """
    Bound the body to *limit_s*: TimeoutError after that, and `left_s` for all that it calls.

    Tasks that are started inside share the deadline, though nobody cancels them.
    """

    def __init__(self, limit_s: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._monotonic = monotonic
        self._timeout = asyncio.timeout(limit_s)
        self._token: Token[float]

    async def __aenter__(self) -> Self:
        self._token = _end.set(min(_end.get(), self._monotonic() + self._limit_s))
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end.reset(self._token)
        await self._timeout.__aexit__(kind, error, trace)


def left_s(now: float) -> float:
    """Return for how long a step may last that begins at *now* (monotonic); infinite outside of requests."""
    return _end.get() - _MARGIN_S - now
