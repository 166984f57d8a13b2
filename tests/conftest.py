"""Fixtures that many suites share. Servers start when a test first asks for them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.migrations import migrate
from app.ports import LinkStore
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.redis_cluster import PrivateCluster

NOW = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    with PrivatePostgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[PrivateCluster]:
    with PrivateCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[PrivateRabbit]:
    with PrivateRabbit() as server:
        yield server


@pytest.fixture
async def embedded_store(tmp_path: Path) -> AsyncIterator[LinkStore]:
    """An empty SQLite store: the fake of unit tests is the adapter that ships."""
    from app.adapters.store_sqlite import SqliteStore

    path = tmp_path / "hopgate.db"
    migrate(f"sqlite:///{path}")
    store = await SqliteStore.open(path)
    yield store
    await store.aclose()


@pytest.fixture
def choice() -> Callable[[str], str]:
    """Picks characters like `secrets.choice`, the same ones in every run."""
    return random.Random(0).choice


class ManualTime:
    """A clock that only moves when told to."""

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def monotonic() -> ManualTime:
    return ManualTime()
