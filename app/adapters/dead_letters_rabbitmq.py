"""The dead letters on RabbitMQ: looked at, sent back to work, or thrown away, by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError

from app.adapters.amqp_consumer import REASON_HEADER
from app.adapters.amqp_link import CLOSE_TIMEOUT_S, CONNECT_TIMEOUT_S, redacted
from app.adapters.amqp_topology import depths
from app.domain.errors import PoisonMessage, Unavailable
from app.domain.events import Event
from app.wire import ATTEMPT_HEADER, EVENTS_EXCHANGE, dead_queue, decode_event

_RPC_TIMEOUT_S = 5.0
# RabbitMQ 4 throws away what was given back 20 times. Before that, a fresh copy takes its place.
_MOST_RETURNS = 10
# A channel passes 32 acknowledgements on to a quorum queue before the first of them is applied; further
# ones wait in the channel and are lost with it (`rabbit_fifo_client`). A get is answered after them all.
_UNAPPLIED = 30


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was given up: None if its bytes are no event. `reason` is what its handler said."""

    event: Event | None
    reason: str
    attempts: int
    message: AbstractIncomingMessage = field(repr=False)


class DeadLetters:
    """
    One look at the dead letters of a work queue, made by `open`. What is neither replayed nor dropped stays.

    Nobody else sees a letter between `read` and the end, so two commands do not meet.
    """

    def __init__(self, channel: AbstractChannel, work_queue: str, depth: int) -> None:
        self.depth = depth
        self._work_queue = work_queue
        self._dead_queue = dead_queue(work_queue)
        self._channel = channel
        self._open: dict[str, AbstractIncomingMessage] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, work_queue: str) -> AsyncIterator[DeadLetters]:
        """
        Connect to *url* and look at what *work_queue* has parked.

        Raises:
            Unavailable: here, and from everything that is done inside.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await aio_pika.connect(url)
            try:
                dead = dead_queue(work_queue)
                depth = (await depths(connection, [dead])).get(dead, 0)
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                letters = cls(channel, work_queue, depth)
                try:
                    yield letters
                finally:
                    await letters._give_back()
            finally:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await connection.close()
        except (AMQPError, OSError, TimeoutError) as error:
            raise Unavailable("rabbitmq", redacted(f"{type(error).__name__}: {error}")) from error

    async def read(self, limit: int) -> AsyncIterator[DeadLetter]:
        """Yield up to *limit* letters, oldest first, of those that were there at the beginning."""
        if self.depth == 0:
            return
        queue = await self._channel.get_queue(self._dead_queue, ensure=False)
        for _ in range(min(limit, self.depth)):
            message = await queue.get(fail=False, timeout=_RPC_TIMEOUT_S)
            if message is None:
                return
            self._open[str(message.delivery_tag)] = message
            yield _letter(message)

    async def replay(self, letters: Sequence[DeadLetter]) -> None:
        """Give *letters* to the workers again, as if new: confirmed there before they leave here."""
        await self._move(
            [letter.message for letter in letters], self._work_queue, without=(ATTEMPT_HEADER, REASON_HEADER)
        )

    async def drop(self, letters: Sequence[DeadLetter]) -> None:
        """Forget *letters* for good."""
        await self._acknowledge([letter.message for letter in letters])

    async def _give_back(self) -> None:
        tired = [message for message in self._open.values() if _returns(message) >= _MOST_RETURNS]
        await self._move(tired, self._dead_queue, without=())
        for message in list(self._open.values()):
            await message.nack(requeue=True)
        self._open.clear()

    async def _move(
        self, messages: Sequence[AbstractIncomingMessage], queue: str, *, without: Sequence[str]
    ) -> None:
        exchange = await self._channel.get_exchange(EVENTS_EXCHANGE, ensure=False)
        # Published and confirmed before it is acknowledged: it may double, it cannot vanish.
        async with asyncio.timeout(_RPC_TIMEOUT_S):
            await asyncio.gather(
                *(exchange.publish(_copy(message, without), queue, mandatory=True) for message in messages)
            )
        await self._acknowledge(messages)

    async def _acknowledge(self, messages: Sequence[AbstractIncomingMessage]) -> None:
        for n, message in enumerate(messages, 1):
            await message.ack()
            del self._open[str(message.delivery_tag)]
            if n % _UNAPPLIED == 0:
                await self._await_applied()

    async def _await_applied(self) -> None:
        queue = await self._channel.get_queue(self._dead_queue, ensure=False)
        message = await queue.get(fail=False, timeout=_RPC_TIMEOUT_S)
        if message is not None:
            await message.nack(requeue=True)


def _letter(message: AbstractIncomingMessage) -> DeadLetter:
    event, reason = None, str(message.headers.get(REASON_HEADER, "it kept ending its worker"))
    try:
        event = decode_event(message.body)
    except PoisonMessage as error:
        reason = f"PoisonMessage: {error}"
    attempts = message.headers.get(ATTEMPT_HEADER, 0)
    return DeadLetter(event, reason, attempts if isinstance(attempts, int) else 0, message)


def _returns(message: AbstractIncomingMessage) -> int:
    count: Any = message.headers.get("x-delivery-count", 0)
    return count if isinstance(count, int) else 0


def _copy(message: AbstractIncomingMessage, without: Sequence[str]) -> aio_pika.Message:
    theirs = ("x-death", "x-delivery-count", "x-first-death-")
    headers = {
        name: value
        for name, value in message.headers.items()
        if name not in without and not name.startswith(theirs)
    }
    return aio_pika.Message(
        message.body,
        headers=headers,
        content_type=message.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=uuid4().hex,
    )
