"""Faults of RabbitMQ, and bad messages published to its queues."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import aio_pika

from app.wire import CACHE_QUEUE, EVENTS_EXCHANGE
from tests.faults.harness.observer import outbox_rows
from tests.faults.harness.stage import Stage

# Bad JSON, an unknown kind, a huge body, a version beyond 2**53, no slug, another format, not UTF-8.
POISON: Sequence[bytes] = (
    b"{not json",
    b'{"kind":"renamed","v":1,"slug":"abc"}',
    b'{"kind":"changed","v":1,"slug":"' + b"x" * 1_000_000 + b'","version":1}',
    b'{"kind":"changed","v":1,"slug":"abc","version":1152921504606846976}',
    b'{"kind":"changed","v":1,"slug":null,"version":1}',
    b'{"kind":"changed","v":99,"slug":"abc","version":1}',
    b"",
    b"\xff\xfe",
)


def outbox_grows(stage: Stage) -> bool:
    """The outbox holds more changes than can be in flight."""
    return outbox_rows(stage) >= 10


@contextmanager
def memory_alarm(stage: Stage) -> Iterator[None]:
    """Raise the memory alarm: the broker blocks publishers and confirms nothing."""
    rabbit = stage.servers.rabbitmq
    rabbit.ctl("set_vm_memory_high_watermark", "absolute", "1kB")
    try:
        yield
    finally:
        rabbit.ctl("set_vm_memory_high_watermark", "absolute", "1GB")


@contextmanager
def disk_alarm(stage: Stage) -> Iterator[None]:
    """Raise the disk alarm, which blocks publishers like the memory alarm."""
    rabbit = stage.servers.rabbitmq
    rabbit.ctl("set_disk_free_limit", "100000GB")
    try:
        yield
    finally:
        rabbit.ctl("set_disk_free_limit", "1MB")


@contextmanager
def connections_closed(stage: Stage) -> Iterator[None]:
    """Close every connection from the side of the broker."""
    stage.servers.rabbitmq.ctl("close_all_connections", "--vhost", stage.vhost, "drill")
    yield


@contextmanager
def queue_deleted(stage: Stage) -> Iterator[None]:
    """Delete the work queue, with its messages, while it is in use."""
    stage.servers.rabbitmq.ctl("delete_queue", "--vhost", stage.vhost, CACHE_QUEUE)
    yield


def publish(stage: Stage, bodies: Sequence[bytes], *, queue: str = CACHE_QUEUE) -> None:
    """Publish *bodies* to *queue* and wait for their confirms."""

    async def send() -> None:
        connection = await aio_pika.connect(stage.settings["HOPGATE_AMQP_URL"], timeout=10)
        async with connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(EVENTS_EXCHANGE)
            for body in bodies:
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await exchange.publish(message, routing_key=queue)

    asyncio.run(send())
