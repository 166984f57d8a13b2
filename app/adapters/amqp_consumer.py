"""Consuming a work queue: batches, acknowledgements, retries and dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.common import FieldTable

from app.adapters.amqp_link import open_channel, redacted
from app.adapters.amqp_publisher import Outgoing, Publisher
from app.adapters.amqp_topology import declare
from app.adapters.bus_delivery import MAX_BATCH, Delivery
from app.domain.errors import Unavailable
from app.domain.events import Event
from app.ports import MAX_ATTEMPTS, EventHandler
from app.wire import ATTEMPT_HEADER, EVENTS_EXCHANGE, dead_queue, decode_event, retry_queue

logger = logging.getLogger(__name__)

REASON_HEADER = "x-hopgate-reason"
# What a quorum queue writes on a message that it delivers again.
_DELIVERIES_HEADER = "x-delivery-count"
# One that was delivered so often, and never settled, may be what ended its worker each time.
_SUSPICIOUS_DELIVERIES = 2
# For all that was under way when the worker ended to arrive together again.
_GATHER_S = 0.1
_MAX_REASON = 300
_RPC_TIMEOUT_S = 5.0
_RETRY_JITTER = 0.5
# Who has got nothing for so long consumes anew. RabbitMQ 3.10 cancels nobody if a quorum queue is
# deleted and declared again at once: it goes on counting the consumer, and what it hands out to it
# never arrives.
_RENEW_S = 3.0


@dataclass(frozen=True, slots=True)
class _Arrival:
    tag: int
    body: bytes
    headers: FieldTable
    attempts: int
    deliveries: int
    event: Event | None
    poison: str | None


class Consumer:
    """
    The session of a consuming link: feeds one handler until the connection is lost.

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
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._prefetch = prefetch
        self._publisher = publisher
        self._random = random
        self._retry_delays_s = retry_delays_s
        self._delivery = Delivery(handler, sleep=sleep)
        self._feeder: asyncio.Task[None] | None = None
        self._is_stopped = False
        self.is_consuming = False
        self._has_come = False
        self._is_idle = True

    async def session(self, connection: AbstractConnection, ready: Callable[[], None]) -> None:
        """Serve one connection until it, its channel or its consumer is lost."""
        await declare(connection, self._retry_delays_s)
        try:
            while not self._is_stopped and await self._serve(connection, ready):
                pass
        finally:
            self.is_consuming = False
        if self._is_stopped:
            # Its link is closed next; if the session ended, it would be opened again until then.
            await asyncio.Event().wait()

    async def stop(self, *, timeout_s: float) -> None:
        """Finish the current batch and take no other."""
        self._is_stopped = True
        if self._feeder is not None:
            await self._delivery.stop(self._feeder, timeout_s=timeout_s)

    async def _serve(self, connection: AbstractConnection, ready: Callable[[], None]) -> bool:
        """Consume on a channel of its own. True: nothing has come for a while."""
        channel = await open_channel(connection)
        await channel.basic_qos(prefetch_count=self._prefetch, timeout=_RPC_TIMEOUT_S)
        arrivals: asyncio.Queue[_Arrival] = asyncio.Queue()
        cancelled = asyncio.get_running_loop().create_future()
        self._has_come = False

        async def on_message(message: DeliveredMessage) -> None:
            self._has_come = True
            arrivals.put_nowait(_arrival(message))

        def on_cancel(_: object) -> None:
            # The queue was deleted, or its leader moved.
            if not cancelled.done():
                cancelled.set_result(None)

        channel.on_consumer_cancel_callbacks.add(on_cancel)
        await channel.basic_consume(self._queue, on_message, timeout=_RPC_TIMEOUT_S)
        feeder = self._feeder = asyncio.create_task(self._feed(channel, arrivals))
        self.is_consuming = True
        ready()
        closing = channel.closing
        is_idle = False
        try:
            while not is_idle:
                self._has_come = False
                ends = {feeder, closing, cancelled}
                ended, _ = await asyncio.wait(ends, timeout=_RENEW_S, return_when=asyncio.FIRST_COMPLETED)
                if ended:
                    break
                is_idle = not self._has_come and self._is_idle
        finally:
            self.is_consuming = is_idle
            closing.cancel()
            # Never two feeders: the handler finishes before the next session begins. So this goes on
            # though the link, which has lost its connection, cancels the session meanwhile.
            stopping = asyncio.create_task(self._delivery.stop(feeder, timeout_s=None))
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError:
                await stopping
                raise
        if is_idle:
            async with asyncio.timeout(_RPC_TIMEOUT_S):
                await channel.close()
        elif feeder.done() and not feeder.cancelled() and (error := feeder.exception()) is not None:
            raise error
        return is_idle

    async def _feed(self, channel: AbstractChannel, arrivals: asyncio.Queue[_Arrival]) -> None:
        while True:
            self._is_idle = True
            taken = [await arrivals.get()]
            self._is_idle = False
            if taken[0].deliveries >= _SUSPICIOUS_DELIVERIES:
                await asyncio.sleep(_GATHER_S)
            # Whatever came while the last batch was worked on is the next one: a lone event
            # does not wait for company, and under load batches fill by themselves.
            while len(taken) < MAX_BATCH and not arrivals.empty():
                taken.append(arrivals.get_nowait())
            groups = list(_groups(taken))
            # In the order of their tags, nothing before a group is open when it is settled.
            in_order = not any(arrival.deliveries >= _SUSPICIOUS_DELIVERIES for arrival in taken)
            for group in groups:
                await self._work(channel, group, in_order=in_order)

    async def _work(self, channel: AbstractChannel, group: Sequence[_Arrival], *, in_order: bool) -> None:
        async def settle(reason: str | None) -> None:
            why = group[0].poison or reason
            if why is not None:
                await self._move_on(
                    [self._next_stop(arrival, redacted(why)[:_MAX_REASON]) for arrival in group]
                )
            await acknowledge()

        async def postpone() -> None:
            # As new messages: how often the old ones were delivered is forgotten.
            await self._move_on([self._later(arrival, arrival.attempts) for arrival in group])
            await acknowledge()

        async def acknowledge() -> None:
            async with asyncio.timeout(_RPC_TIMEOUT_S):
                for arrival in group[-1:] if in_order else group:
                    # Next to a suspect it has to be on its way before the suspect's turn.
                    await channel.basic_ack(arrival.tag, multiple=in_order, wait=not in_order)

        # Poison has no event, so it is settled without meeting the handler.
        await self._delivery.give([a.event for a in group if a.event is not None], settle, postpone)

    async def _move_on(self, outgoing: Sequence[Outgoing]) -> None:
        # Published and confirmed before it is acknowledged: it may double, it cannot vanish.
        if not all(await self._publisher.publish(outgoing)):
            raise Unavailable("rabbitmq", f"did not take {len(outgoing)} events for a later attempt")

    def _next_stop(self, arrival: _Arrival, reason: str) -> Outgoing:
        attempts = arrival.attempts + 1
        if arrival.poison is not None or attempts >= MAX_ATTEMPTS:
            dead = dead_queue(self._queue)
            logger.error("an event was parked in %s after %d attempts: %s", dead, attempts, reason)
            headers = _headers(arrival, attempts, {REASON_HEADER: reason})
            return Outgoing(EVENTS_EXCHANGE, dead, arrival.body, headers)
        return self._later(arrival, attempts, {REASON_HEADER: reason})

    def _later(self, arrival: _Arrival, attempts: int, more: FieldTable | None = None) -> Outgoing:
        delay_s = self._retry_delays_s[max(0, min(attempts, len(self._retry_delays_s)) - 1)]
        # What failed together must not come again together. The queue's own limit is the longest.
        wait_s = delay_s * (1 - _RETRY_JITTER * self._random())
        retry = retry_queue(delay_s, self._queue)
        headers = _headers(arrival, attempts, more or {})
        return Outgoing(EVENTS_EXCHANGE, retry, arrival.body, headers, expires_s=wait_s)


def _headers(arrival: _Arrival, attempts: int, more: FieldTable) -> FieldTable:
    # x-death grows with every round and is of no use to anybody; a new message has no deliveries yet.
    old = {
        name: value for name, value in arrival.headers.items() if name not in ("x-death", _DELIVERIES_HEADER)
    }
    return {**old, ATTEMPT_HEADER: attempts, **more}


def _arrival(message: DeliveredMessage) -> _Arrival:
    tag = message.delivery_tag
    if tag is None:
        raise AMQPError("a delivery without a tag")
    headers = message.header.properties.headers or {}
    attempts = headers.get(ATTEMPT_HEADER)
    # Headers come from the wire like bodies do.
    if not isinstance(attempts, int) or not 0 <= attempts < MAX_ATTEMPTS:
        attempts = 0
    deliveries = headers.get(_DELIVERIES_HEADER)
    if not isinstance(deliveries, int):
        deliveries = 0
    try:
        return _Arrival(tag, message.body, headers, attempts, deliveries, decode_event(message.body), None)
    except Exception as error:  # noqa: BLE001 - whatever a decoder trips over: an arrival that vanishes
        # here would stay unacknowledged for ever, and the bytes will not get better.
        return _Arrival(tag, message.body, headers, attempts, deliveries, None, f"PoisonMessage: {error}")


def _groups(arrivals: Sequence[_Arrival]) -> Iterator[list[_Arrival]]:
    """
    Fresh events together; poison, and what failed before, each alone. In order, suspects last.

    When a worker dies, the queue counts it against all that was delivered to it. Suspects are
    worked on one by one, once from the front and once from the back: so after two more deaths all
    that stood before the guilty one, and all that stood behind it, is done.
    """
    fresh: list[_Arrival] = []
    suspects: list[_Arrival] = []
    for arrival in arrivals:
        if arrival.deliveries >= _SUSPICIOUS_DELIVERIES:
            suspects.append(arrival)
            continue
        if arrival.poison is None and arrival.attempts == 0:
            fresh.append(arrival)
            continue
        if fresh:
            yield fresh
            fresh = []
        yield [arrival]
    if fresh:
        yield fresh
    if suspects and suspects[0].deliveries % 2:
        suspects.reverse()
    for arrival in suspects:
        yield [arrival]
