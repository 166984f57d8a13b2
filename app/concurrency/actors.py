"""
The actor that the current work changes links for, and the links that it reaches.

An actor is the id of an API key, or `CLI`; None if unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from app.domain.reach import EVERYTHING, Reach

# The command line; no API key has an id as short.
CLI = "cli"

_actor: ContextVar[str | None] = ContextVar("actor", default=None)
_reach: ContextVar[Reach] = ContextVar("reach", default=EVERYTHING)

# Components that hand changes to another task or thread take both along.
actor = _actor.get
reach = _reach.get


def owner_of(maker: str | None) -> str | None:
    """Return the owner of a new link of *maker*, an actor: a key; the command line owns nothing."""
    return None if maker == CLI else maker


@contextmanager
def acting_as(name: str, within: Reach = EVERYTHING) -> Iterator[None]:
    """Let the body, and the tasks that it starts, change links as *name*, and see those *within* alone."""
    actor_token, reach_token = _actor.set(name), _reach.set(within)
    try:
        yield
    finally:
        _actor.reset(actor_token)
        _reach.reset(reach_token)
