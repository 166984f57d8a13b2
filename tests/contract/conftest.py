"""Fixtures of several contract suites: databases of either kind, and buses over RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from app.adapters.memory.bus import InProcessBus
from app.adapters.rabbitmq.bus import RabbitBus
from app.ports import Store
from tests.contract.bus_parties import QUEUES, RETRY_DELAYS_S, Broker, MakeBus, is_up, until
from tests.contract.guards import guarded_rabbit
from tests.contract.store_database import (
    Database,
    GuardedPostgresDatabase,
    PostgresDatabase,
    SqliteDatabase,
)
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis_sentinel import PrivateSentinels


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.services),
        pytest.param("guarded postgres", marks=pytest.mark.services),
    ]
)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return SqliteDatabase(request.getfixturevalue("sqlite_template"), tmp_path)
    kind = PostgresDatabase if request.param == "postgres" else GuardedPostgresDatabase
    return kind(request.getfixturevalue("postgres"))


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    store = await database.open()
    yield store
    await store.aclose()


@pytest.fixture(scope="session")
def redis_sentinels() -> Iterator[PrivateSentinels]:
    with PrivateSentinels() as site:
        yield site


@pytest.fixture
async def broker(rabbitmq: PrivateRabbit) -> AsyncIterator[Broker]:
    """A broker without queues, so that each test declares them anew."""
    connection = await aio_pika.connect(rabbitmq.url)
    channel = await connection.channel(on_return_raises=True)
    await _delete_all(channel)
    yield Broker(rabbitmq, channel)
    await connection.close()


async def _delete_all(channel: aio_pika.abc.AbstractChannel) -> None:
    for queue in QUEUES:
        await channel.queue_delete(queue)


@pytest.fixture
async def make_rabbit(broker: Broker) -> AsyncIterator[MakeBus]:
    """Makes a connected bus, as another process would."""
    buses: list[RabbitBus] = []

    async def make() -> RabbitBus:
        bus = RabbitBus(broker.server.url, retry_delays_s=RETRY_DELAYS_S, random=lambda: 0.1)
        buses.append(bus)
        await until(lambda: is_up(bus))
        return bus

    yield make
    await asyncio.gather(*(bus.aclose() for bus in buses))


@pytest.fixture
def make_guarded(make_rabbit: MakeBus) -> MakeBus:
    """Makes a connected bus behind a guard."""

    async def make() -> Any:
        return guarded_rabbit(await make_rabbit())

    return make


@pytest.fixture
async def make_inprocess() -> AsyncIterator[MakeBus]:
    """All parties share the one bus of the process."""
    bus = InProcessBus(retry_delays_s=RETRY_DELAYS_S)

    async def make() -> InProcessBus:
        return bus

    yield make
    await bus.aclose()


@pytest.fixture(
    params=[
        "inprocess",
        pytest.param("rabbit", marks=pytest.mark.services),
        pytest.param("guarded", marks=pytest.mark.services),
    ]
)
def make_bus(request: pytest.FixtureRequest) -> MakeBus:
    return request.getfixturevalue(f"make_{request.param}")
