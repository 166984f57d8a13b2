"""`EventBus` on RabbitMQ: one connection for publishing, one per consumed queue, one per listener."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import assert_never

from aio_pika import ExchangeType
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from pamqp.common import FieldValue

from app.adapters.dispatcher import MAX_BATCH
from app.adapters.rabbitmq.connection import PROBE_S, Session, SupervisedConnection
from app.adapters.rabbitmq.consumer import Consumer
from app.adapters.rabbitmq.publisher import Message, Publisher
from app.adapters.rabbitmq.topology import depths, queue_names
from app.domain.errors import Unavailable
from app.domain.events import Event, LinkChanged, WorkQueue, origin_of, with_origin, work_queue
from app.domain.redaction import redacted
from app.ports import DeliveryObserver, EventHandler, InvalidationListener, QueueDepth, Unobserved
from app.wire import (
    CACHE_QUEUE,
    EVENTS_EXCHANGE,
    INVALIDATIONS_EXCHANGE,
    MAX_SLUGS_A_MESSAGE,
    RETRY_DELAYS_S,
    TIME_HEADER,
    decode_changes,
    encode_changes,
    encode_event,
    encode_time,
    encode_times,
    origin_headers,
    read_origin,
    with_times,
)

logger = logging.getLogger(__name__)

_RPC_TIMEOUT_S = 2.0
_CLOSE_TIMEOUT_S = 5.0
_UNOBSERVED = Unobserved()


class RabbitBus:
    """
    Connects in the background from the first call on; until it is connected, `publish` returns False.

    Call `start` early to be connected when the first event is published.
    """

    def __init__(
        self,
        url: str,
        *,
        retry_delays_s: Sequence[int] = RETRY_DELAYS_S,
        probe_s: float = PROBE_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random_module.random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Prepare the bus without connecting.

        Args:
            url: `amqp://user:password@host:port/vhost` or `amqps://`.
            retry_delays_s: after the first attempt, the second, …; the last one repeats.
                Each has a queue of its own, with the delay in its name.
            probe_s: between two probes of the broker, on each connection.
            sleep: waits for a number of seconds, before a reconnect and after `Unavailable`.
            random: returns floats in [0, 1), for the jitter of reconnects and retries.
            wall: unix seconds, for the age of events.
        """
        self._url = url
        self._retry_delays_s = tuple(retry_delays_s)
        self._probe_s = probe_s
        self._sleep = sleep
        self._random = random
        self._wall = wall
        self._publisher = Publisher(self._retry_delays_s)
        self._publishing = self._connection("publisher", self._publisher.session)
        self._consumers: dict[WorkQueue, Consumer] = {}
        self._receiving: list[SupervisedConnection] = []
        self._listeners: list[SupervisedConnection] = []  # of `_receiving`
        self._is_closed = False

    def start(self) -> None:
        """Start connecting. Needs a running event loop."""
        if not self._is_closed:
            self._publishing.start()

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        """Returns False for all, at once, while there is no connection."""
        self.start()
        now = self._wall()
        return await self._publisher.publish(
            [
                Message(
                    EVENTS_EXCHANGE,
                    work_queue(event),
                    encode_event(event),
                    {TIME_HEADER: encode_time(event, now), **origin_headers(origin_of(event))},
                )
                for event in events
            ]
        )

    async def announce(self, changes: Sequence[LinkChanged]) -> None:
        """Succeeds without any listener."""
        self.start()
        parts = [
            list(changes[start : start + MAX_SLUGS_A_MESSAGE])
            for start in range(0, len(changes), MAX_SLUGS_A_MESSAGE)
        ]
        messages = [
            Message(
                INVALIDATIONS_EXCHANGE,
                "",
                encode_changes(part),
                {TIME_HEADER: list[FieldValue](encode_times(part)), **origin_headers(part[0].origin)},
                is_durable=False,
                mandatory=False,
            )
            for part in parts
        ]
        if not all(await self._publisher.publish(messages)):
            raise Unavailable("rabbitmq", f"did not confirm an announcement of {len(changes)} changes")

    async def listen(self, listener: InvalidationListener) -> None:
        """The first `on_gap` is called once the subscription is active."""

        async def session(connection: AbstractConnection, ready: Callable[[], None]) -> None:
            await _listen(connection, ready, listener)

        self._listeners.append(self._receive("listener", session))

    async def consume(
        self, queue: WorkQueue, handler: EventHandler, observer: DeliveryObserver = _UNOBSERVED
    ) -> None:
        if queue in self._consumers:
            raise RuntimeError(f"the bus has a consumer of {queue} already")
        # Retries and dead letters are published, on the publishing connection.
        self.start()
        consumer = self._consumers[queue] = Consumer(
            queue,
            _prefetch(queue),
            handler,
            self._publisher,
            self._retry_delays_s,
            observer=observer,
            sleep=self._sleep,
            random=self._random,
            wall=self._wall,
        )
        self._receive(f"consumer of {queue}", consumer.session)

    async def ping(self) -> None:
        """One round trip, on the publishing connection; consumers and listeners have their own."""
        lost = [queue for queue, consumer in self._consumers.items() if not consumer.is_consuming]
        if lost:
            raise Unavailable("rabbitmq", f"no active consumer of {', '.join(lost)}")
        if CACHE_QUEUE not in await self._depths([CACHE_QUEUE]):
            raise Unavailable("rabbitmq", f"has no queue {CACHE_QUEUE}")
        # Last: if all connections are lost, the others say why.
        if not all(connection.is_ready for connection in self._listeners):
            raise Unavailable("rabbitmq", "no announcements of changes arrive")

    async def depths(self) -> Mapping[str, int]:
        """Return how many messages are ready in each queue; missing queues are left out."""
        return await self._depths(queue_names(self._retry_delays_s))

    async def queue_depths(self) -> Mapping[str, QueueDepth]:
        """A round trip or three for each queue, on the publishing connection."""
        unacknowledged = {str(queue): one.unacknowledged for queue, one in self._consumers.items()}
        ready = await self.depths()
        return {name: QueueDepth(depth, unacknowledged.get(name)) for name, depth in ready.items()}

    async def aclose(self) -> None:
        """Bounded: `_CLOSE_TIMEOUT_S` for the current batch, then as long as a connection takes to close."""
        self._is_closed = True
        await asyncio.gather(
            *(consumer.stop(timeout_s=_CLOSE_TIMEOUT_S) for consumer in self._consumers.values())
        )
        await asyncio.gather(*(connection.aclose() for connection in [*self._receiving, self._publishing]))

    async def _depths(self, queues: Sequence[str]) -> Mapping[str, int]:
        self.start()
        try:
            connection = self._publisher.connection
        except Unavailable as error:
            why = f": {self._publishing.failure}" if self._publishing.failure else ""
            raise Unavailable("rabbitmq", f"{error.reason}{why}") from None
        try:
            async with asyncio.timeout(_RPC_TIMEOUT_S):
                return await depths(connection, queues)
        except Exception as error:
            # aio_pika raises its own errors, OSError, RuntimeError and bare TimeoutError here.
            reason = redacted(f"{type(error).__name__}: {error}")
            raise Unavailable("rabbitmq", reason) from error

    def _receive(self, name: str, session: Session) -> SupervisedConnection:
        if self._is_closed:
            raise Unavailable("rabbitmq", "the bus is closed")
        connection = self._connection(name, session)
        self._receiving.append(connection)
        connection.start()
        return connection

    def _connection(self, name: str, session: Session) -> SupervisedConnection:
        return SupervisedConnection(
            self._url, name, session, probe_s=self._probe_s, sleep=self._sleep, random=self._random
        )


# One message may have hundreds of kilobytes.
_CLICKS_AT_A_TIME = 20
# The more are added at a time, the less a visit costs: many are of the same link and hour.
DESCRIPTIONS_AT_A_TIME = 60


def _prefetch(queue: WorkQueue) -> int:
    """Return how many unacknowledged messages a consumer of *queue* may hold."""
    match queue:
        case WorkQueue.CACHE:
            # One batch is processed while the next is delivered.
            return MAX_BATCH + MAX_BATCH // 2
        case WorkQueue.CLICKS:
            return _CLICKS_AT_A_TIME
        case WorkQueue.VISITS:
            return DESCRIPTIONS_AT_A_TIME
        case _:
            assert_never(queue)


async def _listen(
    connection: AbstractConnection, ready: Callable[[], None], listener: InvalidationListener
) -> None:
    channel = await connection.channel(publisher_confirms=False)
    exchange = await channel.declare_exchange(INVALIDATIONS_EXCHANGE, ExchangeType.FANOUT, durable=True)
    # Deleted with the connection: `on_gap` covers what is announced while disconnected.
    queue = await channel.declare_queue(exclusive=True, auto_delete=True)
    await queue.bind(exchange)
    underlay = await channel.get_underlay_channel()
    lost = asyncio.get_running_loop().create_future()

    async def on_message(message: DeliveredMessage) -> None:
        try:
            headers = message.header.properties.headers or {}
            changes = with_times(decode_changes(message.body), headers.get(TIME_HEADER))
            origin = read_origin(headers)
            if origin is not None:
                changes = [with_origin(change, origin) for change in changes]
        except Exception as error:  # noqa: BLE001 - as in the consumer: bad bytes must not end the session
            logger.warning("rabbitmq listener ignored an unreadable announcement: %s", error)
            return
        try:
            listener.on_changes(changes)
        except Exception:
            # A bug in the listener; it still needs later announcements.
            logger.exception("invalidation listener raised on %d changes", len(changes))

    def on_cancel(_: object) -> None:
        if not lost.done():
            lost.set_result(None)

    underlay.on_consumer_cancel_callbacks.add(on_cancel)
    await underlay.basic_consume(queue.name, on_message, no_ack=True)
    listener.on_gap()
    ready()
    closing = underlay.closing
    try:
        await asyncio.wait({closing, lost}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        closing.cancel()
