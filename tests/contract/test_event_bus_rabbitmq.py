"""`EventBus` on RabbitMQ beyond the contract: bad messages, broker policies, retries."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from app.adapters.rabbitmq.bus import RabbitBus
from app.adapters.rabbitmq.consumer import REASON_HEADER
from app.bootstrap.worker import new_deliveries
from app.domain.errors import Unavailable
from app.domain.events import WorkQueue
from app.ports import MAX_ATTEMPTS
from app.telemetry.errors import ErrorCounts
from app.telemetry.families import ERRORS
from app.wire import (
    ATTEMPT_HEADER,
    CACHE_QUEUE,
    DEAD_QUEUE,
    INVALIDATIONS_EXCHANGE,
    TIME_HEADER,
    WORK_QUEUES,
    retry_queue,
)
from tests.contract.bus_parties import (
    QUEUES,
    Broker,
    Handler,
    Listener,
    MakeBus,
    changed,
    failing,
    has_depth,
    is_empty,
    is_up,
    publish_timed,
    until,
)
from tests.servers.rabbitmq import PrivateRabbit

POISON = [
    b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"kind":"unknown","v":1}', b"[" * 100_000, b"x" * 1_000_000,
    b'{"kind":"changed","v":1,"slug":"\xff","version":1}',
    b'{"kind":"changed","v":2,"slug":"abc","version":1}',
    b'{"kind":"changed","v":1,"slug":"abc","version":%d}' % 2**60,
    b'{"kind":"changed","v":1,"slug":null,"version":1}',
]  # fmt: skip


@pytest.mark.services
async def test_poison_is_dead_lettered_and_neighbours_flow(make_rabbit: MakeBus, broker: Broker) -> None:
    """Bytes that are no event are dead-lettered at once, unchanged, with the reason."""
    bus, handler, failures = await make_rabbit(), Handler(), ErrorCounts()
    observer = new_deliveries(failures)[WorkQueue.CACHE]
    for n, body in enumerate(POISON):
        await bus.publish([changed(n)])
        await broker.send(body, traceparent="00-abc")
    await bus.consume(WorkQueue.CACHE, handler, observer)

    await until(lambda: len(handler.seen) == len(POISON), within_s=2)
    await until(lambda: has_depth(bus, DEAD_QUEUE, len(POISON)), within_s=2)
    parked = await broker.take(DEAD_QUEUE)
    assert sorted(message.body for message in parked) == sorted(POISON)
    for message in parked:
        assert str(message.headers[REASON_HEADER]).startswith("PoisonMessage")
        assert message.headers["traceparent"] == "00-abc"
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    await until(lambda: is_empty(bus))
    assert failures.samples()[ERRORS.of("PoisonMessage")] == [len(POISON)]


@pytest.mark.services
async def test_dead_letter_has_a_reason_without_secrets(make_rabbit: MakeBus, broker: Broker) -> None:
    """The error is in a header, without credentials; the body can be published again."""
    bus = await make_rabbit()
    await bus.consume(
        WorkQueue.CACHE, failing(lambda: ValueError("postgres://me:hush@db/x " + "y" * 9_000), on=changed(1))
    )
    await bus.publish([changed(1)])
    await until(lambda: has_depth(bus, DEAD_QUEUE, 1))

    (message,) = await broker.take(DEAD_QUEUE)
    reason = str(message.headers[REASON_HEADER])
    assert reason.startswith("ValueError: postgres://***@db/x")
    assert len(reason) <= 300
    assert message.headers[ATTEMPT_HEADER] == MAX_ATTEMPTS
    assert json.loads(message.body)["slug"] == "slug00001"


@pytest.mark.services
@pytest.mark.parametrize("attempt", [-1, 10**9, "1", None, True, 2.5], ids=repr)
async def test_invalid_attempt_header_is_ignored(make_rabbit: MakeBus, broker: Broker, attempt: Any) -> None:
    bus, handler = await make_rabbit(), Handler()
    await bus.consume(WorkQueue.CACHE, handler)
    body = b'{"kind":"changed","v":1,"slug":"slug00001","version":1}'
    await broker.send(body, **{ATTEMPT_HEADER: attempt})

    await until(lambda: handler.seen == [changed(1)])


@pytest.mark.services
async def test_garbage_announcements_are_ignored(
    make_rabbit: MakeBus, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    bus, listener = await make_rabbit(), Listener()
    await bus.listen(listener)
    await until(lambda: listener.gaps == 1)
    exchange = await broker.channel.get_exchange(INVALIDATIONS_EXCHANGE, ensure=False)
    for body in POISON:
        await exchange.publish(aio_pika.Message(body), "", mandatory=False)
    await bus.announce([changed(1)])

    await until(lambda: listener.changes == [changed(1)])
    assert listener.gaps == 1
    # An empty list is readable, and announces nothing.
    assert caplog.text.count("ignored an unreadable announcement") == len(POISON) - 1


@pytest.mark.services
async def test_cancelled_publish_keeps_confirms_aligned(make_rabbit: MakeBus) -> None:
    """Every later confirm still belongs to its message."""
    bus, handler = await make_rabbit(), Handler()
    for spins in range(20):
        task = asyncio.create_task(bus.publish([changed(1000 + spins)]))
        for _ in range(spins):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert list(await bus.publish([changed(spins)])) == [True]
    await bus.consume(WorkQueue.CACHE, handler)

    await until(lambda: {changed(n) for n in range(20)} <= set(handler.seen))


@pytest.mark.services
async def test_definitions_apply_to_declared_queues(
    rabbitmq: PrivateRabbit, make_rabbit: MakeBus, broker: Broker
) -> None:
    """Policies match the declared queues, and a full queue refuses messages instead of dropping them."""
    file = Path(__file__).parents[2] / "deploy/rabbitmq/definitions.json"
    definitions = json.loads(file.read_text())
    assert "users" not in definitions
    assert not re.search("password|guest", file.read_text())
    await asyncio.to_thread(rabbitmq.ctl, "import_definitions", str(file))
    try:
        bus, handler = await make_rabbit(), failing(ValueError, on=changed(1))
        listing = await asyncio.to_thread(rabbitmq.ctl, "list_queues", "name", "policy")
        policies = dict(line.split("\t") for line in listing.splitlines())
        assert all(policies[queue].startswith("hopgate-") for queue in QUEUES)
        await bus.consume(WorkQueue.CACHE, handler)
        await bus.publish([changed(1)])
        await until(lambda: has_depth(bus, DEAD_QUEUE, 1))
        await bus.aclose()

        other = await make_rabbit()
        policy = next(p for p in definitions["policies"] if re.search(p["pattern"], CACHE_QUEUE))
        small = json.dumps({**policy["definition"], "max-length": 3})
        await asyncio.to_thread(
            rabbitmq.ctl, "set_policy", policy["name"], policy["pattern"], small, "--apply-to", "queues"
        )
        results = [await publish_timed(other, changed(n)) for n in range(20)]
        assert results[0]
        assert not results[-1]
        assert (await other.depths())[CACHE_QUEUE] == sum(results)
    finally:
        names = ",".join(f'<<"{policy["name"]}">>' for policy in definitions["policies"])
        delete = f'[rabbit_policy:delete(<<"/">>, Name, <<"tests">>) || Name <- [{names}]].'
        await asyncio.to_thread(rabbitmq.ctl, "eval", delete)


@pytest.mark.services
async def test_retries_have_jitter(broker: Broker) -> None:
    """Events that failed together are not retried together."""
    draws = itertools.cycle([0.0, 0.5])
    bus = RabbitBus(broker.server.url, retry_delays_s=(60,), random=lambda: next(draws))
    queue = retry_queue(60)
    try:
        await until(lambda: is_up(bus))
        await bus.consume(WorkQueue.CACHE, failing(ValueError, on=changed(1)))
        await bus.publish([changed(1)])
        await bus.publish([changed(1)])
        await until(lambda: has_depth(bus, queue, 2))

        waits = {message.expiration for message in await broker.take(queue)}
    finally:
        await bus.aclose()
        await broker.delete(queue)

    assert len(waits) == 2
    assert all(isinstance(wait, int | float) and 30 <= wait <= 60 for wait in waits)


async def test_long_pause_requeues_as_a_new_message(broker: Broker) -> None:
    """RabbitMQ counts requeues of a message and dead-letters it after ten, whatever the cause."""

    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    delay_s = 30
    bus = RabbitBus(broker.server.url, retry_delays_s=(delay_s,), sleep=at_once, random=lambda: 0.0)
    handler = failing(lambda: Unavailable("redis", "is away"), on=changed(1))
    try:
        await until(lambda: is_up(bus))
        await bus.publish([changed(1)])
        await bus.consume(WorkQueue.CACHE, handler)
        await until(lambda: has_depth(bus, retry_queue(delay_s), 1))
        [waiting] = await broker.take(retry_queue(delay_s))

        # Ten minutes of pauses, of a second each but for the first ones; no attempt is counted.
        assert 600 <= len(handler.calls) < 610
        assert waiting.headers.keys() - {"x-delivery-count"} == {ATTEMPT_HEADER, TIME_HEADER}
        assert waiting.headers[ATTEMPT_HEADER] == waiting.headers.get("x-delivery-count", 0) == 0
        assert (await bus.depths())[CACHE_QUEUE] == 0
    finally:
        await bus.aclose()
        await broker.delete(*(retry_queue(delay_s, work) for work in WORK_QUEUES))
