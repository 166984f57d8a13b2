"""`EventBus` on RabbitMQ: one link to publish, one for each queue consumed, one for each listener."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aio_pika import ExchangeType
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage

from app.adapters.amqp_consumer import Consumer
from app.adapters.amqp_link import PROBE_S, Link, Session, redacted
from app.adapters.amqp_publisher import Outgoing, Publisher
from app.adapters.amqp_topology import depths, queue_names
from app.adapters.bus_delivery import MAX_BATCH
from app.domain.errors import Unavailable
from app.domain.events import Event, LinkChanged
from app.ports import EventHandler, InvalidationListener
from app.wire import (
    CACHE_QUEUE,
    CLICKS_QUEUE,
    EVENTS_EXCHANGE,
    INVALIDATIONS_EXCHANGE,
    MAX_SLUGS_A_MESSAGE,
    RETRY_DELAYS_S,
    decode_changes,
    encode_changes,
    encode_event,
    work_queue,
)

logger = logging.getLogger(__name__)

_RPC_TIMEOUT_S = 2.0
_CLOSE_TIMEOUT_S = 5.0
# How many messages a consumer may hold: of cache events, one batch is worked on while the next
# is on its way; a message of clicks may have hundreds of kilobytes.
_PREFETCH = {CACHE_QUEUE: MAX_BATCH + MAX_BATCH // 2, CLICKS_QUEUE: 20}


class RabbitBus:
    """
    Connects in the background from the first call on; until then, `publish` says False.

    Call `start` early to have the connection when the first event comes.
    """

    def __init__(
        self,
        url: str,
        *,
        retry_delays_s: Sequence[int] = RETRY_DELAYS_S,
        probe_s: float = PROBE_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """
        Prepare the bus; nothing connects yet.

        Args:
            url: `amqp://user:password@host:port/vhost` or `amqps://`.
            retry_delays_s: after the first attempt, the second, …; the last one repeats.
                Each has a queue of its own, named for it.
            probe_s: between two questions, on each connection, whether the broker still answers.
            sleep: waits for a number of seconds, between connections and after `Unavailable`.
            random: gives floats in [0, 1), for the jitter between connections and before retries.
        """
        self._url = url
        self._retry_delays_s = tuple(retry_delays_s)
        self._probe_s = probe_s
        self._sleep = sleep
        self._random = random
        self._publisher = Publisher(self._retry_delays_s)
        self._publishing = self._link("publisher", self._publisher.session)
        self._consumers: dict[str, Consumer] = {}
        self._other_links: list[Link] = []
        self._is_closed = False

    def start(self) -> None:
        """Begin to connect. Needs a running event loop."""
        if not self._is_closed:
            self._publishing.start()

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        """See `EventBus.publish`. At once False for all while there is no connection."""
        self.start()
        return await self._publisher.publish(
            [Outgoing(EVENTS_EXCHANGE, work_queue(event), encode_event(event)) for event in events]
        )

    async def announce(self, changes: Sequence[LinkChanged]) -> None:
        """See `EventBus.announce`. It is no error that nobody listens."""
        self.start()
        messages = [
            Outgoing(
                INVALIDATIONS_EXCHANGE,
                "",
                encode_changes(list(changes[start : start + MAX_SLUGS_A_MESSAGE])),
                is_durable=False,
                mandatory=False,
            )
            for start in range(0, len(changes), MAX_SLUGS_A_MESSAGE)
        ]
        if not all(await self._publisher.publish(messages)):
            raise Unavailable("rabbitmq", "did not take an announcement")

    async def listen(self, listener: InvalidationListener) -> None:
        """See `EventBus.listen`. The first `on_gap` comes once the subscription stands."""

        async def session(connection: AbstractConnection, ready: Callable[[], None]) -> None:
            await _listen(connection, ready, listener)

        self._start_another("listener", session)

    async def consume(self, handler: EventHandler) -> None:
        """See `EventBus.consume`. One handler a bus."""
        self._consume(CACHE_QUEUE, handler)

    async def consume_clicks(self, handler: EventHandler) -> None:
        """See `EventBus.consume_clicks`. One handler a bus."""
        self._consume(CLICKS_QUEUE, handler)

    async def ping(self) -> None:
        """See `EventBus.ping`. Asks the broker, on the connection that publishes."""
        if not all(consumer.is_consuming for consumer in self._consumers.values()):
            raise Unavailable("rabbitmq", "is not delivering")
        if CACHE_QUEUE not in await self._depths([CACHE_QUEUE]):
            raise Unavailable("rabbitmq", f"has no queue {CACHE_QUEUE}")

    async def depths(self) -> Mapping[str, int]:
        """Return how many messages are ready in each queue; missing queues are left out."""
        return await self._depths(queue_names(self._retry_delays_s))

    async def aclose(self) -> None:
        """See `EventBus.aclose`. Takes `_CLOSE_TIMEOUT_S` for the batch, and as much again."""
        self._is_closed = True
        await asyncio.gather(
            *(consumer.stop(timeout_s=_CLOSE_TIMEOUT_S) for consumer in self._consumers.values())
        )
        await asyncio.gather(*(link.aclose() for link in [*self._other_links, self._publishing]))

    async def _depths(self, queues: Sequence[str]) -> Mapping[str, int]:
        self.start()
        connection = self._publisher.connection
        try:
            async with asyncio.timeout(_RPC_TIMEOUT_S):
                return await depths(connection, queues)
        except Exception as error:
            # The library raises its own errors, OSError, RuntimeError and bare TimeoutError here.
            reason = redacted(f"{type(error).__name__}: {error}")
            raise Unavailable("rabbitmq", reason) from error

    def _consume(self, queue: str, handler: EventHandler) -> None:
        if queue in self._consumers:
            raise RuntimeError(f"the bus has a consumer of {queue} already")
        # What fails is published again, and that needs the other connection.
        self.start()
        consumer = self._consumers[queue] = Consumer(
            queue,
            _PREFETCH[queue],
            handler,
            self._publisher,
            self._retry_delays_s,
            sleep=self._sleep,
            random=self._random,
        )
        self._start_another(f"consumer of {queue}", consumer.session)

    def _start_another(
        self,
        name: str,
        session: Session,
    ) -> None:
        if self._is_closed:
            raise Unavailable("rabbitmq", "the bus is closed")
        link = self._link(name, session)
        self._other_links.append(link)
        link.start()

    def _link(
        self,
        name: str,
        session: Session,
    ) -> Link:
        return Link(self._url, name, session, probe_s=self._probe_s, sleep=self._sleep, random=self._random)


async def _listen(
    connection: AbstractConnection, ready: Callable[[], None], listener: InvalidationListener
) -> None:
    channel = await connection.channel(publisher_confirms=False)
    exchange = await channel.declare_exchange(INVALIDATIONS_EXCHANGE, ExchangeType.FANOUT, durable=True)
    # Gone with the connection: what comes while we are away is covered by `on_gap`.
    queue = await channel.declare_queue(exclusive=True, auto_delete=True)
    await queue.bind(exchange)
    underlay = await channel.get_underlay_channel()
    lost = asyncio.get_running_loop().create_future()

    async def on_message(message: DeliveredMessage) -> None:
        try:
            changes = decode_changes(message.body)
        except Exception as error:  # noqa: BLE001 - like the consumer: foreign bytes end nothing here
            logger.warning("an announcement cannot be read and is ignored: %s", error)
            return
        try:
            listener.on_changes(changes)
        except Exception:
            # It must not raise; if it does, later announcements still matter.
            logger.exception("an invalidation listener raised")

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
