"""Dead letters on RabbitMQ: listing, replaying and dropping them by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError

from app.adapters.rabbitmq.connection import CLOSE_TIMEOUT_S, CONNECT_TIMEOUT_S, nodes
from app.adapters.rabbitmq.consumer import REASON_HEADER
from app.adapters.rabbitmq.topology import depths
from app.domain.errors import PoisonMessage, Unavailable
from app.domain.events import Event
from app.domain.redaction import redacted
from app.wire import ATTEMPT_HEADER, EVENTS_EXCHANGE, dead_queue, decode_event

_RPC_TIMEOUT_S = 5.0
# RabbitMQ 4 drops a message that was requeued 20 times. Before that, a fresh copy replaces it.
_MAX_REDELIVERIES = 10
# A channel has at most 32 acknowledgements in flight to a quorum queue; further ones wait in the channel
# and are lost with it (`rabbit_fifo_client`). A reply to basic.get comes after all of them are applied.
_MAX_UNAPPLIED = 30


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead-lettered event, None if its body cannot be decoded; `reason` is its last error."""

    event: Event | None
    reason: str
    attempts: int
    message: AbstractIncomingMessage = field(repr=False)


class DeadLetters:
    """
    A session on the dead-letter queue of one work queue, made by `open`.

    Letters that are neither replayed nor dropped stay in the queue. A letter that was read is locked
    until the session ends, so two commands never process the same one.
    """

    def __init__(self, channel: AbstractChannel, work_queue: str, depth: int) -> None:
        self.depth = depth
        self._work_queue = work_queue
        self._dead_queue = dead_queue(work_queue)
        self._channel = channel
        self._unsettled: dict[str, AbstractIncomingMessage] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, work_queue: str) -> AsyncIterator[DeadLetters]:
        """
        Connect to *url*; the session is for the dead letters of *work_queue*.

        Raises:
            Unavailable: on entry, on exit, and for any failure of RabbitMQ inside the block.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await _connect(url)
            try:
                dead = dead_queue(work_queue)
                depth = (await depths(connection, [dead])).get(dead, 0)
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                letters = cls(channel, work_queue, depth)
                try:
                    yield letters
                finally:
                    await letters._requeue()
            finally:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await connection.close()
        except (AMQPError, OSError, TimeoutError) as error:
            raise Unavailable("rabbitmq", redacted(f"{type(error).__name__}: {error}")) from error

    async def read(self, limit: int) -> AsyncIterator[DeadLetter]:
        """Yield up to *limit* letters, oldest first; those that arrive meanwhile are left out."""
        if self.depth == 0:
            return
        queue = await self._channel.get_queue(self._dead_queue, ensure=False)
        for _ in range(min(limit, self.depth)):
            message = await queue.get(fail=False, timeout=_RPC_TIMEOUT_S)
            if message is None:
                return
            self._unsettled[str(message.delivery_tag)] = message
            yield _dead_letter(message)

    async def replay(self, letters: Sequence[DeadLetter]) -> None:
        """Publish *letters* to the work queue as new messages; each is confirmed before it is removed."""
        await self._move(
            [letter.message for letter in letters], self._work_queue, without=(ATTEMPT_HEADER, REASON_HEADER)
        )

    async def drop(self, letters: Sequence[DeadLetter]) -> None:
        """Remove *letters* for good."""
        await self._acknowledge([letter.message for letter in letters])

    async def _requeue(self) -> None:
        worn = [
            message for message in self._unsettled.values() if _redeliveries(message) >= _MAX_REDELIVERIES
        ]
        await self._move(worn, self._dead_queue, without=())
        for message in list(self._unsettled.values()):
            await message.nack(requeue=True)
        self._unsettled.clear()

    async def _move(
        self, messages: Sequence[AbstractIncomingMessage], queue: str, *, without: Sequence[str]
    ) -> None:
        exchange = await self._channel.get_exchange(EVENTS_EXCHANGE, ensure=False)
        # Confirmed before the original is acknowledged: a crash between the two duplicates it, never
        # loses it.
        async with asyncio.timeout(_RPC_TIMEOUT_S):
            await asyncio.gather(
                *(exchange.publish(_copy(message, without), queue, mandatory=True) for message in messages)
            )
        await self._acknowledge(messages)

    async def _acknowledge(self, messages: Sequence[AbstractIncomingMessage]) -> None:
        for n, message in enumerate(messages, 1):
            await message.ack()
            del self._unsettled[str(message.delivery_tag)]
            if n % _MAX_UNAPPLIED == 0:
                await self._await_applied()

    async def _await_applied(self) -> None:
        queue = await self._channel.get_queue(self._dead_queue, ensure=False)
        message = await queue.get(fail=False, timeout=_RPC_TIMEOUT_S)
        if message is not None:
            await message.nack(requeue=True)


def _dead_letter(message: AbstractIncomingMessage) -> DeadLetter:
    # Without a reason, the queue dead-lettered it itself, at its delivery limit.
    reason = str(message.headers.get(REASON_HEADER, "its worker died each time"))
    event = None
    try:
        event = decode_event(message.body)
    except PoisonMessage as error:
        reason = f"PoisonMessage: {error}"
    attempts = message.headers.get(ATTEMPT_HEADER, 0)
    return DeadLetter(event, reason, attempts if isinstance(attempts, int) else 0, message)


def _redeliveries(message: AbstractIncomingMessage) -> int:
    count: Any = message.headers.get("x-delivery-count", 0)
    return count if isinstance(count, int) else 0


def _copy(message: AbstractIncomingMessage, without: Sequence[str]) -> aio_pika.Message:
    of_the_broker = ("x-death", "x-delivery-count", "x-first-death-")
    headers = {
        name: value
        for name, value in message.headers.items()
        if name not in without and not name.startswith(of_the_broker)
    }
    return aio_pika.Message(
        message.body,
        headers=headers,
        content_type=message.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=uuid4().hex,
    )


async def _connect(url: str) -> AbstractConnection:
    """Connect to the first host of *url* that answers. Raises the error of the last one."""
    *others, last = nodes(url)
    for node in others:
        with suppress(OSError, AMQPError):
            async with asyncio.timeout(CONNECT_TIMEOUT_S / (len(others) + 1)):
                return await aio_pika.connect(node)
    return await aio_pika.connect(last)
