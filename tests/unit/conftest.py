from __future__ import annotations

import shutil
from contextlib import asynccontextmanager

import pytest

from app.adapters.memory.bus import InProcessBus
from app.adapters.memory.cache import MemoryCache
from app.bootstrap import open_gateway
from app.service.links import Links, leave_to_relay
from app.settings import Settings
from app.web.rsgi import RsgiApplication
from tests.conftest import NOW
from tests.unit.services import CountingStore
from tests.unit.spans import Spans
from tests.unit.whole_application import Application


@pytest.fixture
async def application(sqlite_template, tmp_path, monkeypatch):
    for name in ("DATABASE_URL", "REDIS_URL", "AMQP_URL"):
        monkeypatch.delenv(f"HOPGATE_{name}", raising=False)
    settings = Settings(data_dir=tmp_path)
    shutil.copy(sqlite_template, tmp_path / "hopgate.db")
    async with open_gateway(settings) as services:

        @asynccontextmanager
        async def opened():
            yield services

        rsgi = RsgiApplication(opened)
        await rsgi._open()
        yield Application(services, rsgi)


@pytest.fixture
async def bus():
    bus = InProcessBus()
    yield bus
    await bus.aclose()


@pytest.fixture
def cache():
    return MemoryCache()


@pytest.fixture
def links(embedded_store, choice):
    return Links(embedded_store, leave_to_relay, clock=lambda: NOW, choice=choice, own_hosts=())


@pytest.fixture
def store(embedded_store):
    return CountingStore(embedded_store)


@pytest.fixture
def spans() -> Spans:
    return Spans()
