"""Consuming a work queue: batches, acknowledgements, retries and dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.common import FieldTable

from app.adapters.dispatcher import MAX_BATCH, Dispatcher
from app.adapters.rabbitmq.connection import open_channel
from app.adapters.rabbitmq.publisher import Message, Publisher
from app.adapters.rabbitmq.topology import declare
from app.concurrency.stopping import outlast
from app.domain.errors import PoisonMessage, Unavailable
from app.domain.events import Event, LinkChanged, with_origin
from app.domain.redaction import redacted
from app.ports import MAX_ATTEMPTS, DeliveryObserver, EventHandler
from app.wire import (
    ATTEMPT_HEADER,
    EVENTS_EXCHANGE,
    TIME_HEADER,
    dead_queue,
    decode_event,
    decode_time,
    read_origin,
    retry_queue,
)

logger = logging.getLogger(__name__)

REASON_HEADER = "x-hopgate-reason"
# A quorum queue counts redeliveries of a message in this header.
_DELIVERIES_HEADER = "x-delivery-count"
# A message redelivered this often, and never settled, may be what killed its worker each time.
_SUSPECT_DELIVERIES = 2
# For everything that was in flight when the worker died to be redelivered into one batch.
_GATHER_S = 0.1
_MAX_REASON = 300
_RPC_TIMEOUT_S = 5.0
_RETRY_JITTER = 0.5
# An idle consumer resubscribes after this time. RabbitMQ 3.10 sends no cancellation if a quorum queue is
# deleted and declared again at once: it keeps the consumer in its count, and what it delivers to that
# consumer never arrives.
_RESUBSCRIBE_S = 3.0


@dataclass(frozen=True, slots=True)
class _Delivery:
    """One delivered message. `event` is None if its body is no event; `poison` then says why."""

    tag: int
    body: bytes
    headers: FieldTable
    attempts: int
    redeliveries: int
    event: Event | None
    poison: str | None

    @property
    def is_suspect(self) -> bool:
        return self.redeliveries >= _SUSPECT_DELIVERIES


class Consumer:
    """
    The session of a consuming connection: feeds one handler until the connection is lost.

    At most *prefetch* messages are in memory.
    """

    def __init__(
        self,
        queue: str,
        prefetch: int,
        handler: EventHandler,
        publisher: Publisher,
        retry_delays_s: Sequence[int],
        *,
        observer: DeliveryObserver,
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._prefetch = prefetch
        self._publisher = publisher
        self._observer = observer
        self._random = random
        self._wall = wall
        self._retry_delays_s = retry_delays_s
        self._dispatcher = Dispatcher(queue, handler, sleep=sleep)
        self._feeder: asyncio.Task[None] | None = None
        self._is_stopped = False
        self.is_consuming = False
        # Delivered, and neither acknowledged nor lost with their channel.
        self.unacknowledged = 0
        self._has_delivered = False
        self._is_idle = True

    async def session(self, connection: AbstractConnection, ready: Callable[[], None]) -> None:
        """Consume on *connection* until it, the channel or the subscription is lost."""
        await declare(connection, self._retry_delays_s)
        try:
            while not self._is_stopped and await self._subscribe(connection, ready):
                pass
        finally:
            self.is_consuming = False
        if self._is_stopped:
            # The connection is closed next. If the session returned, it would be reopened until then.
            await asyncio.Event().wait()

    async def stop(self, *, timeout_s: float) -> None:
        """Finish the current batch and start no other."""
        self._is_stopped = True
        if self._feeder is not None:
            await self._dispatcher.stop(self._feeder, timeout_s=timeout_s)

    async def _subscribe(self, connection: AbstractConnection, ready: Callable[[], None]) -> bool:
        """Consume on a channel of its own. True: it was idle and has to resubscribe; False: it was lost."""
        channel = await open_channel(connection)
        await channel.basic_qos(prefetch_count=self._prefetch, timeout=_RPC_TIMEOUT_S)
        deliveries: asyncio.Queue[_Delivery] = asyncio.Queue()
        cancelled = asyncio.get_running_loop().create_future()
        self._has_delivered = False

        async def on_message(message: DeliveredMessage) -> None:
            self._has_delivered = True
            self.unacknowledged += 1
            deliveries.put_nowait(_delivery(message))
            published_at = decode_time((message.header.properties.headers or {}).get(TIME_HEADER))
            if published_at is not None:
                self._observer.received(max(0.0, self._wall() - published_at))

        def on_cancel(_: object) -> None:
            # The queue was deleted, or its leader moved.
            if not cancelled.done():
                cancelled.set_result(None)

        channel.on_consumer_cancel_callbacks.add(on_cancel)
        await channel.basic_consume(self._queue, on_message, timeout=_RPC_TIMEOUT_S)
        if self._is_stopped:
            # `stop` came during the steps above and had no feeder of this channel to stop.
            return False
        feeder = self._feeder = asyncio.create_task(self._feed(channel, deliveries))
        self.is_consuming = True
        ready()
        closing = channel.closing
        is_idle = False
        try:
            while not is_idle:
                self._has_delivered = False
                ends = {feeder, closing, cancelled}
                ended, _ = await asyncio.wait(
                    ends, timeout=_RESUBSCRIBE_S, return_when=asyncio.FIRST_COMPLETED
                )
                if ended:
                    break
                is_idle = not self._has_delivered and self._is_idle
        finally:
            self.is_consuming = is_idle
            closing.cancel()
            # Never two feeders: the handler finishes before the next session starts. So a session that is
            # cancelled because its connection was lost still waits for the handler.
            await outlast(asyncio.create_task(self._dispatcher.stop(feeder, timeout_s=None)))
            self.unacknowledged = 0
        if is_idle:
            async with asyncio.timeout(_RPC_TIMEOUT_S):
                await channel.close()
        elif feeder.done() and not feeder.cancelled() and (error := feeder.exception()) is not None:
            raise error
        return is_idle

    async def _feed(self, channel: AbstractChannel, deliveries: asyncio.Queue[_Delivery]) -> None:
        while True:
            self._is_idle = True
            batch = [await deliveries.get()]
            self._is_idle = False
            if batch[0].is_suspect:
                await asyncio.sleep(_GATHER_S)
            # Deliveries that arrived during the last batch are the next one: a lone event is not
            # delayed to fill a batch, and under load batches fill by themselves.
            while len(batch) < MAX_BATCH and not deliveries.empty():
                batch.append(deliveries.get_nowait())
            groups = list(_groups(batch))
            # In the order of their tags, every earlier delivery is settled when a group is.
            in_order = not any(delivery.is_suspect for delivery in batch)
            for group in groups:
                await self._process(channel, group, in_order=in_order)

    async def _process(self, channel: AbstractChannel, group: Sequence[_Delivery], *, in_order: bool) -> None:
        async def settle(reason: str | None) -> None:
            failure = group[0].poison or reason
            if failure is not None:
                failure = redacted(failure)[:_MAX_REASON]
                messages = [self._after_failure(delivery, failure) for delivery in group]
                await self._republish(messages)
                parked = sum(message.routing_key == dead_queue(self._queue) for message in messages)
                self._observer.parked(parked)
                self._observer.retried(len(messages) - parked)
                if group[0].poison is not None:
                    self._observer.failed(PoisonMessage(failure))
            await acknowledge()

        async def postpone() -> None:
            # As new messages: the broker's count of redeliveries starts over.
            await self._republish([self._retry(delivery, delivery.attempts) for delivery in group])
            self._observer.retried(len(group))
            await acknowledge()

        async def acknowledge() -> None:
            async with asyncio.timeout(_RPC_TIMEOUT_S):
                for delivery in group[-1:] if in_order else group:
                    # Before a suspect is processed, the acknowledgements of the others must be sent.
                    await channel.basic_ack(delivery.tag, multiple=in_order, wait=not in_order)
            self.unacknowledged -= len(group)

        # Poison has no event, so it is settled without a call of the handler.
        events = [delivery.event for delivery in group if delivery.event is not None]
        await self._dispatcher.dispatch(events, settle, postpone)

    async def _republish(self, messages: Sequence[Message]) -> None:
        # Confirmed before the original is acknowledged: a crash between the two duplicates it, never
        # loses it.
        if not all(await self._publisher.publish(messages)):
            raise Unavailable("rabbitmq", f"did not confirm {len(messages)} events for a retry")

    def _after_failure(self, delivery: _Delivery, reason: str) -> Message:
        attempts = delivery.attempts + 1
        if delivery.poison is not None or attempts >= MAX_ATTEMPTS:
            dead = dead_queue(self._queue)
            logger.error("consumer %s dead-lettered an event: %d attempts: %s", self._queue, attempts, reason)
            headers = _headers(delivery, attempts, {REASON_HEADER: reason})
            return Message(EVENTS_EXCHANGE, dead, delivery.body, headers)
        return self._retry(delivery, attempts, {REASON_HEADER: reason})

    def _retry(self, delivery: _Delivery, attempts: int, extra: FieldTable | None = None) -> Message:
        delay_s = self._retry_delays_s[max(0, min(attempts, len(self._retry_delays_s)) - 1)]
        # Jitter: events that failed together are not retried together. The queue's own TTL is the longest.
        wait_s = delay_s * (1 - _RETRY_JITTER * self._random())
        retry = retry_queue(delay_s, self._queue)
        headers = _headers(delivery, attempts, extra or {})
        return Message(EVENTS_EXCHANGE, retry, delivery.body, headers, expires_s=wait_s)


def _headers(delivery: _Delivery, attempts: int, extra: FieldTable) -> FieldTable:
    # x-death grows with every retry and is not read; a new message has no redeliveries yet.
    kept = {
        name: value for name, value in delivery.headers.items() if name not in ("x-death", _DELIVERIES_HEADER)
    }
    return {**kept, ATTEMPT_HEADER: attempts, **extra}


def _delivery(message: DeliveredMessage) -> _Delivery:
    tag = message.delivery_tag
    if tag is None:
        raise AMQPError("a delivery without a tag")
    headers = message.header.properties.headers or {}
    attempts = headers.get(ATTEMPT_HEADER)
    # Any publisher can set headers, so they are validated like bodies.
    if not isinstance(attempts, int) or not 0 <= attempts < MAX_ATTEMPTS:
        attempts = 0
    redeliveries = headers.get(_DELIVERIES_HEADER)
    if not isinstance(redeliveries, int):
        redeliveries = 0
    try:
        event = with_origin(decode_event(message.body), read_origin(headers))
        if isinstance(event, LinkChanged):
            event = replace(event, committed_at=decode_time(headers.get(TIME_HEADER)))
    except Exception as error:  # noqa: BLE001 - any failure to decode: a delivery that is dropped here
        # would stay unacknowledged for ever, and decoding it again gives the same error.
        poison = f"PoisonMessage: {error}"
        return _Delivery(tag, message.body, headers, attempts, redeliveries, None, poison)
    return _Delivery(tag, message.body, headers, attempts, redeliveries, event, None)


def _groups(deliveries: Sequence[_Delivery]) -> Iterator[list[_Delivery]]:
    """
    Give fresh events in batches; poison and retried events each alone; suspects alone, and last.

    When a worker dies, the queue counts a redelivery for every message that it held. Suspects are
    processed one by one, in turn from the front and from the back: after two more deaths, all messages
    before the guilty one and all behind it are settled.
    """
    fresh: list[_Delivery] = []
    suspects: list[_Delivery] = []
    for delivery in deliveries:
        if delivery.is_suspect:
            suspects.append(delivery)
            continue
        if delivery.poison is None and delivery.attempts == 0:
            fresh.append(delivery)
            continue
        if fresh:
            yield fresh
            fresh = []
        yield [delivery]
    if fresh:
        yield fresh
    if suspects and suspects[0].redeliveries % 2:
        suspects.reverse()
    for delivery in suspects:
        yield [delivery]
