from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from app.bootstrap import open_gateway
from app.migrations import migrate
from app.settings import Settings
from app.web.rsgi import RsgiApplication
from tests.unit.whole_application import Application


@pytest.fixture
async def application(tmp_path, monkeypatch):
    for name in ("DATABASE_URL", "REDIS_URL", "AMQP_URL"):
        monkeypatch.delenv(f"HOPGATE_{name}", raising=False)
    settings = Settings(data_dir=tmp_path)
    migrate(settings.store_url)
    async with open_gateway(settings) as services:

        @asynccontextmanager
        async def opened():
            yield services

        rsgi = RsgiApplication(opened)
        await rsgi._open()
        yield Application(services, rsgi)
