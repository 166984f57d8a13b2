"""What all streams of server-sent events have in common: their form, their bounds, and what ends them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from enum import Enum
from time import monotonic

from app.service.keys import Credential, Scope
from app.web.middleware import ApiMiddleware
from app.web.response import Headers

MEDIA_TYPE = "text/event-stream"
# nginx would collect the answer first.
HEADERS: Headers = (("content-type", MEDIA_TYPE), ("x-accel-buffering", "no"))
# How soon a client connects again.
RETRY_MS = 2000
# How soon a drain and a key that no longer counts end a stream.
TICK_S = 0.5


class End(Enum):
    """Why a stream ends: the process is about to stop, or the key no longer counts."""

    DRAINING = "draining"
    LAPSED = "lapsed"


class OpenStreams:
    """
    The streams of one kind in this process.

    Args:
        most: so many may be open at a time.
        most_each: so many of them for one holder.
    """

    def __init__(
        self,
        middleware: ApiMiddleware,
        is_draining: Callable[[], bool],
        *,
        most: int,
        most_each: int | None = None,
    ) -> None:
        self._middleware = middleware
        self._is_draining = is_draining
        self._most = most
        self._most_each = most if most_each is None else most_each
        self._open: Counter[Hashable] = Counter()

    def are_full(self, holder: Hashable = None) -> bool:
        """Return whether *holder* may open no further one now."""
        return self._open.total() >= self._most or self._open[holder] >= self._most_each

    @contextmanager
    def place(self, holder: Hashable = None) -> Iterator[None]:
        """Count a stream of *holder* as open during the body."""
        self._open[holder] += 1
        try:
            yield
        finally:
            self._open[holder] -= 1
            if not self._open[holder]:
                del self._open[holder]

    def watch(self, scope: Scope, key: Credential) -> Callable[[], Awaitable[End | None]]:
        """Return what tells why a stream that needs *scope* of *key* has to end; None: it goes on."""
        checked_at = monotonic()

        async def end() -> End | None:
            nonlocal checked_at
            if self._is_draining():
                return End.DRAINING
            if monotonic() - checked_at >= TICK_S:
                checked_at = monotonic()
                if await self._middleware.lapsed(scope, key) is not None:
                    return End.LAPSED
            return None

        return end
