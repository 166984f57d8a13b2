"""Messages put into the queues by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aio_pika

from app.wire import CACHE_QUEUE, EVENTS_EXCHANGE
from tests.faults.stage import Stage

# Bad JSON, an unknown kind, a huge body, a version no double can hold, no slug, another format.
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


def publish(stage: Stage, bodies: Sequence[bytes], *, queue: str = CACHE_QUEUE) -> None:
    """Publish *bodies* to the work queue and wait for their confirms."""

    async def send() -> None:
        connection = await aio_pika.connect(stage.settings["HOPGATE_AMQP_URL"], timeout=10)
        async with connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(EVENTS_EXCHANGE)
            for body in bodies:
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await exchange.publish(message, routing_key=queue)

    asyncio.run(send())
