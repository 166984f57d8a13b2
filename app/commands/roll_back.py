"""`hopgate migrate --to`: the schema of an earlier release again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.commands import running
from app.commands.backup import check_idle, empty_cache
from app.domain.errors import Unavailable
from app.migrations import rollback
from app.settings import Settings


def losses(settings: Settings, to: int) -> list[str]:
    """
    Return what going back to schema *to* destroys, a line for each migration that has anything to lose.

    Raises:
        SettingsError: this release cannot go back to *to*.
        DataInUse: a gateway or a worker runs.
        Unavailable: the store does not answer.
    """
    if settings.embedded:
        running.require_database(settings)
        with running.stopped(settings):
            steps = rollback.rollbacks(settings.store_url, to)
    else:
        check_idle(settings.store_url)
        steps = rollback.rollbacks(settings.store_url, to)
    return [f"{step.version:>4}  {step.loses}" for step in steps if step.loses]


def roll_back(settings: Settings, to: int, say: Callable[[str], None]) -> int:
    """
    Undo every migration after *to*; return how many those were. Caches forget what the later release stored.

    Raises:
        SettingsError, DataInUse, Unavailable: as `losses`, or stored links do not fit into that schema.
    """
    if settings.embedded:
        with running.stopped(settings):
            return rollback.roll_back(settings.store_url, to)
    check_idle(settings.store_url)
    done = rollback.roll_back(settings.store_url, to)
    try:
        dropped = asyncio.run(empty_cache(settings))
    except Unavailable as error:
        reason = f"{error.reason}. The schema is {to}; empty Redis before a gateway starts: FLUSHDB"
        raise Unavailable("redis", reason) from None
    say(f"{dropped} cached links were dropped")
    return done
