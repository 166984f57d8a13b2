"""
Hopgate with a bug put in, to prove that the ledger sees it. Nothing of this is in the product.

As an application for granian: `tests.faults.sabotaged:NAME`; as a worker:
`python -m tests.faults.sabotaged NAME`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Callable, Sequence

from app import settings as environment
from app.adapters import amqp_consumer, amqp_publisher, cache_redis, store_postgres
from app.adapters import store_postgres_sql as sql
from app.bootstrap import open_gateway
from app.ports import OutboxEvent
from app.service.cache_sync import CacheSync
from app.web.rsgi import RsgiApplication

Store = store_postgres.PostgresStore


def _application() -> RsgiApplication:
    settings = environment.load()
    return RsgiApplication(lambda: open_gateway(settings))


def _skip_outbox() -> None:
    """A change is stored without its outbox row; only its writer's memory knows of it."""
    update, remove = Store.update, Store.remove

    async def forgetful_update(self, *arguments, **named):
        outcome = await update(self, *arguments, **named)
        if isinstance(outcome, store_postgres.Changed):
            await self.drop_events([outcome.event.id])
        return outcome

    async def forgetful_remove(self, *arguments, **named):
        outcome = await remove(self, *arguments, **named)
        if isinstance(outcome, store_postgres.Changed):
            await self.drop_events([outcome.event.id])
        return outcome

    Store.update, Store.remove = forgetful_update, forgetful_remove


def _write_blindly() -> None:
    """The cache takes whatever comes last."""
    script = b"redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])\nreturn 1\n"
    cache_redis._PUT = script
    cache_redis._PUT_SHA = hashlib.sha1(script, usedforsecurity=False).hexdigest()


def _acknowledge_first() -> None:
    """The worker acknowledges what it has not done yet."""
    work = amqp_consumer.Consumer._work

    async def hasty(self, channel, group):
        await channel.basic_ack(group[-1].tag, multiple=True, wait=False)
        await work(self, _Acknowledged(channel), group)

    amqp_consumer.Consumer._work = hasty


class _Acknowledged:
    """A channel on which acknowledging again does nothing."""

    def __init__(self, channel) -> None:
        self._channel = channel

    async def basic_ack(self, *_arguments, **_named) -> None:
        await asyncio.sleep(0)


def _relay_by_cursor() -> None:
    """The relay remembers the last id it saw, and never looks below it again."""

    async def take_after(self, *, limit: int, lease_s: float) -> Sequence[OutboxEvent]:
        last = getattr(self, "_cursor", 0)
        statement = "SELECT id, slug, version FROM outbox WHERE id > %(last)s ORDER BY id LIMIT %(limit)s"

        async def work(connection):
            cursor = await connection.execute(statement, {"last": last, "limit": limit})
            return await cursor.fetchall()

        rows = await self._connections.run(work)
        self._cursor = rows[-1][0] if rows else last
        return [sql.event(*row) for row in rows]

    Store.take_events = take_after


def _keep_channel() -> None:
    """
    A channel is used on after a publish that timed out.

    An interruption between counting a message and handing it to the writer left the count one
    too high in aiormq until it learned to take it back; that count is what is put in here.
    """

    def keep(self, channel) -> None:
        channel.delivery_tag += 1

    amqp_publisher.Publisher._renew = keep


def _crash_on_one() -> None:
    """The worker's process dies whenever it meets links whose slug begins with `crash-`."""
    apply = CacheSync.apply

    async def fragile(self, events):
        if any(getattr(event, "slug", "").startswith("crash-") for event in events):
            os._exit(70)
        await apply(self, events)

    CacheSync.apply = fragile


def _with(bug: Callable[[], None]) -> Callable[[], RsgiApplication]:
    def create() -> RsgiApplication:
        bug()
        return _application()

    return create


BUGS = {
    "outbox_skipped": _skip_outbox,
    "compare_dropped": _write_blindly,
    "acknowledged_first": _acknowledge_first,
    "relay_by_cursor": _relay_by_cursor,
    "channel_kept": _keep_channel,
    "crash_on_one": _crash_on_one,
}
outbox_skipped = _with(_skip_outbox)
compare_dropped = _with(_write_blindly)
acknowledged_first = _with(_acknowledge_first)
relay_by_cursor = _with(_relay_by_cursor)
channel_kept = _with(_keep_channel)


def worker_command(bug: str) -> list[str]:
    """Return the command line of a worker with *bug*."""
    return [sys.executable, "-m", "tests.faults.sabotaged", bug]


if __name__ == "__main__":
    from worker.main import run

    BUGS[sys.argv[1]]()
    run(environment.load())
