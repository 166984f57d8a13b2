"""
What the current work is done for: the recorded spans, if any, and the ids that its log lines have.

Components that hand work to another task take its origins along. Nothing here records anything:
`app.telemetry` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar, Token
from itertools import chain
from types import TracebackType

from app.domain.origin import Origin

# OpenTelemetry keeps as many links of a span.
MAX_ORIGINS = 128

_origins: ContextVar[tuple[Origin, ...]] = ContextVar("origins", default=())
# Of the request under way; 0 and empty outside of one.
trace_id: ContextVar[int] = ContextVar("trace_id", default=0)
request_id: ContextVar[str] = ContextVar("request_id", default="")

# What the current work is done for: none if it is not recorded, several if requests share it.
origins = _origins.get


def origin() -> Origin | None:
    """Return the one origin of the current work; None if there is none, or several."""
    found = _origins.get()
    return found[0] if len(found) == 1 else None


def together(several: Iterable[tuple[Origin, ...]]) -> tuple[Origin, ...]:
    """Return the origins of work that is done in one batch, each once, `MAX_ORIGINS` at most."""
    return tuple(dict.fromkeys(chain.from_iterable(several)))[:MAX_ORIGINS]


class on_behalf_of:  # noqa: N801 - reads as what it does: with on_behalf_of(origins)
    """Give the body these *origins*, and the tasks that it starts."""

    __slots__ = ("_token", "_whose")

    def __init__(self, whose: Iterable[Origin | None]) -> None:
        self._whose = tuple(dict.fromkeys(one for one in whose if one is not None))[:MAX_ORIGINS]
        self._token: Token[tuple[Origin, ...]]

    def __enter__(self) -> None:
        self._token = _origins.set(self._whose)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _origins.reset(self._token)
