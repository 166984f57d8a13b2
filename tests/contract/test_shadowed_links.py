"""A link that was made before its path was reserved is named, by every command that meets the schema."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from app.adapters.sqlite.store import SqliteStore
from app.commands.doctor import examine
from app.commands.serve import first_start
from app.commands.shadowed import shadowed, told
from app.domain.domains import DomainSettings
from app.domain.link import LinkFields, NewLink, Slug
from app.migrations import migrate
from app.ports import Store
from app.settings import Settings
from tests.contract.store_links import NOW, added
from tests.servers.hopgate import hopgate

LINE = "the link console is hidden by a page of the service, of this version or of one to come"


async def test_links_with_a_reserved_path_are_found(store: Store):
    await added(store, "console", "status", "docs", "Console", "consoles", "other")
    await store.remove(Slug("docs"), expected_version=None, now=NOW)

    assert await shadowed(store, "https://hop.example") == ["console", "status"]


async def test_links_below_the_routes_of_an_api_are_found(store: Store):
    """They were made before such slugs were reserved; one is named for each path of a domain."""
    settings = DomainSettings(multi_segment=True)
    domain = await store.add_domain("go.example", settings, case_sensitive=True, now=NOW)
    assert domain is not None
    other = await store.add_domain("hop2.example", settings, case_sensitive=False, now=NOW)
    assert other is not None
    await added(store, *(domain.key(name) for name in ("v4/b", "v4/a", "v4", "v40/a", "rest")))
    await added(store, *(other.key(name) for name in ("rest/v3/x", "resu/x", "a/v4/b")))

    assert await shadowed(store, "https://hop.example") == ["go.example/v4/a", "hop2.example/rest/v3/x"]


async def test_there_are_none(store: Store):
    await added(store, "help")

    assert await shadowed(store, "https://hop.example") == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder of an embedded gateway, with a link that has a reserved path."""
    migrate(f"sqlite:///{tmp_path}/hopgate.db")

    async def make() -> None:
        store = await SqliteStore.open(tmp_path / "hopgate.db")
        await added(store, "console", "other")
        await store.aclose()

    asyncio.run(make())
    return tmp_path


async def test_store_that_goes_away_after_the_migration_fails_nothing(tmp_path: Path):
    away = {
        "database_url": "postgresql://u@127.0.0.1:1/d",
        "redis_url": "redis://127.0.0.1:1/0",
        "amqp_url": "amqp://u:p@127.0.0.1:1/",
    }

    [line] = await told(Settings.model_validate({"data_dir": tmp_path, **away}))

    assert line.startswith("links were not compared with the pages of the service: postgresql")


def test_doctor_warns_of_it(folder: Path):
    findings = asyncio.run(examine(Settings(data_dir=folder)))

    [found] = [finding for finding in findings if finding.name == "links"]
    assert (found.mark, found.healthy, found.detail) == ("warn", True, LINE)
    assert "another slug" in found.remedy


def test_migrate_names_it(folder: Path):
    done = hopgate({"HOPGATE_DATA_DIR": str(folder)}, "migrate")

    assert done.returncode == 0
    assert "the schema is up to date" in done.stdout
    assert [line for line in done.stderr.splitlines() if "hidden" in line] == [f"hopgate: {LINE}"]


def test_start_of_an_embedded_gateway_logs_it(folder: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        asyncio.run(first_start(Settings(data_dir=folder)))

    assert [record.message for record in caplog.records] == [LINE]


async def test_links_of_every_domain_are_compared(store: Store) -> None:
    domain = await store.add_domain("go.example", DomainSettings(), case_sensitive=True, now=NOW)
    assert domain is not None
    fields = LinkFields(long_url="https://example.com/")
    await store.add([NewLink(slug=domain.key(name), fields=fields) for name in ("status", "free")], now=NOW)

    assert await shadowed(store, "https://hop.example") == ["go.example/status"]
