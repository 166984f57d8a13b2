"""Publishing with confirms: what is reported as taken is on the broker's disks."""

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

from app.adapters.amqp_link import redacted
from app.adapters.amqp_topology import declare
from app.domain.errors import Unavailable

logger = logging.getLogger(__name__)

# A confirm is an fsync on a majority of the nodes: milliseconds, some hundred under load.
CONFIRM_TIMEOUT_S = 1.5


@dataclass(frozen=True, slots=True)
class Outgoing:
    """
    One message. A `mandatory` one is refused, not dropped, if no queue would get it.

    With `expires_s` it leaves its queue after that time, for wherever that queue sends dead letters.
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
    The session of a publishing link, and the way to publish on it.

    It never publishes on the connection of a consumer: an alarmed broker stops reading from
    connections that publish, and acknowledgements would be stuck with the rest.
    """

    def __init__(self, retry_delays_s: Sequence[int]) -> None:
        self._retry_delays_s = retry_delays_s
        self._connection: AbstractConnection | None = None
        self._channel: Channel | None = None
        self._renewal = asyncio.Event()

    @property
    def connection(self) -> AbstractConnection:
        """The open connection. Raises Unavailable."""
        if self._connection is None:
            raise Unavailable("rabbitmq", "is not connected")
        return self._connection

    async def session(self, connection: AbstractConnection, ready: Callable[[], None]) -> None:
        """Serve one connection until it is lost or no longer to be trusted."""
        await declare(connection, self._retry_delays_s)
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        underlay = await channel.get_underlay_channel()
        if not isinstance(underlay, Channel):
            raise TypeError(f"{type(underlay).__name__} may not support what is needed")
        self._renewal.clear()
        self._connection, self._channel = connection, underlay
        ready()
        renewal = asyncio.create_task(self._renewal.wait())
        closing = underlay.closing
        try:
            await asyncio.wait({renewal, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connection = self._channel = None
            renewal.cancel()
            closing.cancel()

    async def publish(self, messages: Sequence[Outgoing]) -> list[bool]:
        """
        Publish all of them at once; return, aligned, which the broker has confirmed.

        Never raises and takes little more than `CONFIRM_TIMEOUT_S`. A caller that is
        cancelled does not cancel the publishing.
        """
        channel = self._channel
        if channel is None or not messages:
            return [False] * len(messages)
        # A publish that is interrupted half-way leaves a channel that counts differently from
        # the broker's; so it is not interrupted because its caller is.
        return await asyncio.shield(asyncio.create_task(self._publish(channel, messages)))

    async def _publish(self, channel: Channel, messages: Sequence[Outgoing]) -> list[bool]:
        tasks = [asyncio.create_task(_publish_one(channel, message)) for message in messages]
        done, late = await asyncio.wait(tasks, timeout=CONFIRM_TIMEOUT_S)
        for task in late:
            task.add_done_callback(_ignore)
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=0.1)
        errors = [error for task in done if (error := task.exception()) is not None]
        # A nack (a full queue) says nothing against the channel. A return means that a queue
        # is missing, and the next session declares it. Whatever else: counts may be off.
        if late or any(type(error) is not DeliveryError for error in errors):
            self._renew(channel)
        if late or errors:
            reason = f"{type(errors[0]).__name__}: {errors[0]}" if errors else "no confirm in time"
            logger.warning(
                "%d of %d messages were not confirmed: %s",
                len(late) + len(errors),
                len(messages),
                redacted(reason),
            )
        return [task in done and task.exception() is None for task in tasks]

    def _renew(self, channel: Channel) -> None:
        # Another publish may have seen to it already.
        if self._channel is channel:
            self._connection = self._channel = None
            self._renewal.set()


def _ignore(task: asyncio.Task[None]) -> None:
    # It was reported as not confirmed already; asyncio wants every error to be looked at.
    if not task.cancelled():
        task.exception()


async def _publish_one(channel: Channel, message: Outgoing) -> None:
    properties = Basic.Properties(
        content_type="application/json",
        delivery_mode=2 if message.is_durable else 1,
        # Returns are matched by this id alone: it must be new at every attempt.
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
            # Waiting for the socket to drain here would hold the channel's lock all the while.
            wait=False,
        )
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # The library cancels what waits on a channel that it closes.
        raise AMQPError("the channel was closed") from None
