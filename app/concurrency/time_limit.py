"""A deadline that the callees can read, too: the time left of a request."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

# A step ends this much before its request, whose response can then name the step that failed.
_MARGIN_S = 0.005

_end: ContextVar[float] = ContextVar("deadline", default=math.inf)


class within:  # noqa: N801 - reads as what it does: async with within(REDIRECT_S)
    """
    Bound the body to *limit_s* by a TimeoutError, and every callee by `left_s`.

    Tasks started inside inherit the deadline, but are not cancelled. Work that must outlive the request
    needs a context of its own.
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
    """Return how long a step that begins at *now* (monotonic) may take; infinite outside of `within`."""
    return _end.get() - _MARGIN_S - now
