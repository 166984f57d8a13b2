"""
The exchanges and queues of Hopgate on RabbitMQ. Every session that connects declares them.

Arguments that keep messages safe are set here, so that a broker without Hopgate's policies loses
nothing either. Numbers that an operator may tune (lengths, delivery limit) are set by policies, see
`deploy/rabbitmq/definitions.json`. RabbitMQ 3.10 to 4.x accepts all of it. Changing an argument
needs a new queue name: a queue cannot be redeclared with other arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aio_pika import ExchangeType
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from pamqp.common import FieldValue

from app.adapters.rabbitmq.connection import open_channel
from app.domain.events import WorkQueue
from app.wire import EVENTS_EXCHANGE, INVALIDATIONS_EXCHANGE, dead_queue, retry_queue

_RPC_TIMEOUT_S = 5.0

# At-least-once dead-lettering: the source queue keeps a message until the target confirms it. With the
# default, the message is lost if the target is full or has no leader at that moment.
_SAFE_DEAD_LETTERING: Mapping[str, FieldValue] = {
    "x-dead-letter-exchange": EVENTS_EXCHANGE,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


async def declare(connection: AbstractConnection, retry_delays_s: Sequence[int]) -> None:
    """Declare all shared exchanges, queues and bindings. Idempotent."""
    async with connection.channel(publisher_confirms=False) as channel:
        events = await channel.declare_exchange(
            EVENTS_EXCHANGE, ExchangeType.DIRECT, durable=True, timeout=_RPC_TIMEOUT_S
        )
        await channel.declare_exchange(
            INVALIDATIONS_EXCHANGE, ExchangeType.FANOUT, durable=True, timeout=_RPC_TIMEOUT_S
        )
        for name, arguments in _queues(retry_delays_s).items():
            queue = await channel.declare_queue(
                name, durable=True, arguments=dict(arguments), timeout=_RPC_TIMEOUT_S
            )
            await queue.bind(events, routing_key=name, timeout=_RPC_TIMEOUT_S)


def queue_names(retry_delays_s: Sequence[int]) -> Sequence[str]:
    """Return the names of all queues that `declare` declares."""
    return tuple(_queues(retry_delays_s))


async def depths(connection: AbstractConnection, names: Sequence[str]) -> Mapping[str, int]:
    """Return how many messages are ready in each queue. Missing queues are left out."""
    found = {}
    for name in names:
        # A failed passive declare closes its channel.
        channel = await open_channel(connection)
        try:
            declared = await channel.queue_declare(name, passive=True, timeout=_RPC_TIMEOUT_S)
        except ChannelNotFoundEntity:
            continue
        found[name] = declared.message_count or 0
        await channel.close()
    return found


def _queues(retry_delays_s: Sequence[int]) -> Mapping[str, Mapping[str, FieldValue]]:
    quorum: Mapping[str, FieldValue] = {"x-queue-type": "quorum"}
    queues: dict[str, Mapping[str, FieldValue]] = {}
    for work in WorkQueue:
        # The work queue dead-letters only at its delivery limit: a message whose consumer dies each time.
        queues[work] = {**quorum, **_SAFE_DEAD_LETTERING, "x-dead-letter-routing-key": dead_queue(work)}
        for delay_s in retry_delays_s:
            queues[retry_queue(delay_s, work)] = {
                **quorum,
                **_SAFE_DEAD_LETTERING,
                "x-dead-letter-routing-key": work,
                "x-message-ttl": int(delay_s * 1000),
            }
        queues[dead_queue(work)] = quorum
    return queues
