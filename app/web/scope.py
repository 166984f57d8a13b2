"""A request as granian shows it, by RSGI, and what a front adds."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class Noted(NamedTuple):
    """
    What a front has decided about a request that it passed on; `began` in seconds of `time.monotonic`.

    `is_missed`: its slug was not in the L1 cache, and has been looked up.
    """

    trace_id: int
    span_id: int
    is_recorded: bool
    is_logged: bool
    is_missed: bool
    began: float


class RsgiScope(Protocol):
    """A request as RSGI 1.6 describes it. Behind a front, `noted` is what that has decided, if anything."""

    method: str
    path: str
    query_string: str
    client: str
    http_version: str
    headers: Any
    authority: str | None
    noted: Noted | None


def host_of(scope: RsgiScope) -> str | None:
    """Return what the request names as its host: a target with one wins (RFC 9112 3.2.2)."""
    authority = scope.authority
    host: str | None = authority.rpartition("@")[2] if authority else scope.headers.get("host")
    return host
