"""Publishing with publisher confirms: a confirmed message is on the broker's disks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError, DeliveryError
from aiormq.channel import Channel
from pamqp.commands import Basic
from pamqp.common import FieldTable

from app.adapters.rabbitmq.topology import declare
from app.domain.errors import Unavailable
from app.domain.redaction import redacted

logger = logging.getLogger(__name__)

# A confirm takes an fsync on a majority of the nodes: milliseconds, some hundred under load.
CONFIRM_TIMEOUT_S = 1.5


@dataclass(frozen=True, slots=True)
class Message:
    """
    One message to publish. A `mandatory` one is returned, not dropped, if it is unroutable.

    After `expires_s` its queue dead-letters it.
    """

    exchange: str
    routing_key: str
    body: bytes
    headers: FieldTable = field(default_factory=dict)
    is_durable: bool = True
    mandatory: bool = True
    expires_s: float | None = None


class Publisher:
    """
    The session of the publishing connection, and `publish` on its channel.

    Publishing has a connection of its own: a broker in a resource alarm stops reading from
    connections that publish, and would block a consumer's acknowledgements with them.
    """

    def __init__(self, retry_delays_s: Sequence[int]) -> None:
        self._retry_delays_s = retry_delays_s
        self._connection: AbstractConnection | None = None
        self._channel: Channel | None = None
        self._is_discarded = asyncio.Event()

    @property
    def connection(self) -> AbstractConnection:
        """The open connection. Raises Unavailable."""
        if self._connection is None:
            raise Unavailable("rabbitmq", "is not connected")
        return self._connection

    async def session(self, connection: AbstractConnection, ready: Callable[[], None]) -> None:
        """Open a channel on *connection*; return when the channel is closed or discarded."""
        await declare(connection, self._retry_delays_s)
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        underlay = await channel.get_underlay_channel()
        if not isinstance(underlay, Channel):
            raise TypeError(f"{type(underlay).__name__} is not aiormq's channel")
        self._is_discarded.clear()
        self._connection, self._channel = connection, underlay
        ready()
        discarded = asyncio.create_task(self._is_discarded.wait())
        closing = underlay.closing
        try:
            await asyncio.wait({discarded, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connection = self._channel = None
            discarded.cancel()
            closing.cancel()

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """
        Publish *messages* concurrently; return, aligned, which of them the broker has confirmed.

        Never raises, and takes little more than `CONFIRM_TIMEOUT_S`. Cancelling the caller does not
        cancel the publishing.
        """
        channel = self._channel
        if channel is None or not messages:
            return [False] * len(messages)
        # A publish that is cancelled half-way leaves the channel with another delivery tag than the
        # broker's, so a cancelled caller does not cancel it.
        return await asyncio.shield(asyncio.create_task(self._publish(channel, messages)))

    async def _publish(self, channel: Channel, messages: Sequence[Message]) -> list[bool]:
        tasks = [asyncio.create_task(_publish_one(channel, message)) for message in messages]
        done, late = await asyncio.wait(tasks, timeout=CONFIRM_TIMEOUT_S)
        for task in late:
            task.add_done_callback(_ignore_result)
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=0.1)
        errors = [error for task in done if (error := task.exception()) is not None]
        # A nack (a full queue) leaves the channel usable. A return means that a queue is missing, which
        # the next session declares. After anything else the delivery tags may be off.
        if late or any(type(error) is not DeliveryError for error in errors):
            self._discard(channel)
        if late or errors:
            reason = f"{type(errors[0]).__name__}: {errors[0]}" if errors else "no confirm in time"
            logger.warning(
                "rabbitmq publisher: %d of %d messages not confirmed: %s",
                len(late) + len(errors),
                len(messages),
                redacted(reason),
            )
        return [task in done and task.exception() is None for task in tasks]

    def _discard(self, channel: Channel) -> None:
        # A concurrent publish may have discarded it already.
        if self._channel is channel:
            self._connection = self._channel = None
            self._is_discarded.set()


def _ignore_result(task: asyncio.Task[None]) -> None:
    # Reported as not confirmed already; asyncio logs an exception that is never retrieved.
    if not task.cancelled():
        task.exception()


async def _publish_one(channel: Channel, message: Message) -> None:
    properties = Basic.Properties(
        content_type="application/json",
        delivery_mode=2 if message.is_durable else 1,
        # aiormq matches returned messages by this id alone, so each attempt needs a new one.
        message_id=uuid4().hex,
        headers=message.headers,
        expiration=None if message.expires_s is None else str(round(message.expires_s * 1000)),
    )
    try:
        await channel.basic_publish(
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            properties=properties,
            mandatory=message.mandatory,
            # With True, aiormq holds the channel's lock while the socket drains.
            wait=False,
        )
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # aiormq cancels the futures of a channel that it closes.
        raise AMQPError("the channel was closed") from None
