"""The actor that the current work changes links for: the id of an API key, or `CLI`; None if unknown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# The command line; no API key has an id as short.
CLI = "cli"

_actor: ContextVar[str | None] = ContextVar("actor", default=None)

# Components that hand changes to another task take the actor along.
actor = _actor.get


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    """Let the body, and the tasks that it starts, change links as *name*."""
    token = _actor.set(name)
    try:
        yield
    finally:
        _actor.reset(token)
