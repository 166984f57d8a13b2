"""
Bugs injected into Hopgate's own code, to prove that the ledger detects them.

As an application for granian: `tests.faults.breaks.code:NAME`; as a worker:
`python -m tests.faults.breaks.code NAME`.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app import settings as environment
from app.adapters.postgres import sql
from app.adapters.postgres import store as postgres_store
from app.adapters.rabbitmq import consumer, publisher
from app.adapters.redis import cache as redis_cache
from app.bootstrap import open_gateway
from app.ports import Changed, OutboxEvent
from app.service.cache_sync import CacheSync
from app.web.rsgi import RsgiApplication

Store = postgres_store.PostgresStore


@dataclass(frozen=True)
class Patch:
    """A faulty value for an attribute of a class or module of Hopgate."""

    owner: Any
    name: str
    value: Any

    def apply(self) -> None:
        """Replace the attribute in this process."""
        setattr(self.owner, self.name, self.value)

    @property
    def fits(self) -> bool:
        """Does the attribute exist, and does a faulty function take the same parameters?"""
        original = getattr(self.owner, self.name, None)
        if not callable(original):
            return type(original) is type(self.value)
        return _parameters(original) == _parameters(self.value)


def _parameters(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    return [(one.name, one.kind) for one in inspect.signature(function).parameters.values()]


def _without_event(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def without_event(self, *arguments, **named):
        outcome = await method(self, *arguments, **named)
        if isinstance(outcome, Changed):
            await self.drop_events([outcome.event.id])
        return outcome

    return without_event


def _hasty(process: Callable[..., Any]) -> Callable[..., Any]:
    async def hasty(self, channel, group, *, in_order):
        await channel.basic_ack(group[-1].tag, multiple=True, wait=False)
        await process(self, _Acknowledged(channel), group, in_order=in_order)

    return hasty


class _Acknowledged:
    """A channel that ignores a second acknowledgement."""

    def __init__(self, channel) -> None:
        self._channel = channel

    async def basic_ack(self, *_arguments, **_named) -> None:
        await asyncio.sleep(0)


async def _take_after_cursor(self, *, limit: int, lease_s: float) -> Sequence[OutboxEvent]:
    last = getattr(self, "_cursor", 0)
    statement = "SELECT id, slug, version FROM outbox WHERE id > %(last)s ORDER BY id LIMIT %(limit)s"

    async def work(connection):
        cursor = await connection.execute(statement, {"last": last, "limit": limit})
        return await cursor.fetchall()

    rows = await self._connections.run(work)
    self._cursor = rows[-1][0] if rows else last
    return [sql.event(*row) for row in rows]


def _keep_channel(self, channel) -> None:
    # An interruption between counting a message and writing it left aiormq's count one too high,
    # until aiormq corrected that. This restores the wrong count.
    channel.delivery_tag += 1


def _fragile(apply: Callable[..., Any]) -> Callable[..., Any]:
    async def fragile(self, events):
        if any(getattr(event, "slug", "").startswith("crash-") for event in events):
            os._exit(70)
        await apply(self, events)

    return fragile


_PUT_BLINDLY = b"redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])\nreturn 1\n"

BUGS: Mapping[str, Sequence[Patch]] = {
    # A change is stored without its outbox row; only the gateway that wrote it can deliver it.
    "outbox_skipped": [
        Patch(Store, "update", _without_event(Store.update)),
        Patch(Store, "remove", _without_event(Store.remove)),
    ],
    # A cache write does not compare versions.
    "compare_dropped": [
        Patch(redis_cache, "_PUT", _PUT_BLINDLY),
        Patch(redis_cache, "_PUT_SHA", hashlib.sha1(_PUT_BLINDLY, usedforsecurity=False).hexdigest()),
    ],
    # The worker acknowledges events before it has applied them.
    "acknowledged_first": [Patch(consumer.Consumer, "_process", _hasty(consumer.Consumer._process))],
    # The relay reads only ids above the last one it has read.
    "relay_by_cursor": [Patch(Store, "take_events", _take_after_cursor)],
    # A channel stays in use after a publish that timed out.
    "channel_kept": [Patch(publisher.Publisher, "_discard", _keep_channel)],
    # The worker process dies on an event of a link whose slug begins with `crash-`.
    "crash_on_one": [Patch(CacheSync, "apply", _fragile(CacheSync.apply))],
}


def _inject(bug: str) -> None:
    for patch in BUGS[bug]:
        patch.apply()


def _application(bug: str) -> RsgiApplication:
    _inject(bug)
    settings = environment.load()
    return RsgiApplication(lambda: open_gateway(settings))


outbox_skipped = functools.partial(_application, "outbox_skipped")
compare_dropped = functools.partial(_application, "compare_dropped")
acknowledged_first = functools.partial(_application, "acknowledged_first")
relay_by_cursor = functools.partial(_application, "relay_by_cursor")
channel_kept = functools.partial(_application, "channel_kept")


def worker_command(bug: str) -> list[str]:
    """Return the command line of a worker with *bug*."""
    return [sys.executable, "-m", "tests.faults.breaks.code", bug]


if __name__ == "__main__":
    from app.commands.worker import run

    _inject(sys.argv[1])
    run(environment.load())
