"""A backup and its way back: embedded while it is written to, and PostgreSQL with its cache."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from app.adapters.redis.cache import RedisCache
from app.adapters.sqlite.store import SqliteStore
from app.commands import running
from app.commands.backup import backup, restore
from app.commands.export_links import UnwritableFile
from app.commands.import_links import UnreadableFile
from app.commands.roll_back import losses, roll_back
from app.domain.link import LinkFields, NewLink, Resolution, Slug
from app.migrations import latest_version, migrate
from app.ports import ConsoleSession, Store
from app.settings import Settings
from tests.contract.postgres_sessions import open_connected

NOW = datetime(2030, 1, 31, tzinfo=UTC)
SESSION = ConsoleSession(id_hash=bytes(32), key_id="k", secret_hash=bytes(32), created_at=NOW, expires_at=NOW)


async def add(store: Store, *slugs: str) -> None:
    for slug in slugs:
        fields = LinkFields(long_url="https://example.com/")
        await store.add([NewLink(slug=Slug(slug), fields=fields)], now=NOW)


async def slugs(store: Store) -> set[str]:
    return {link.slug for link in (await store.page(after=None, limit=500)).links}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HOPGATE_DATA_DIR", str(tmp_path / "data"))
    settings = Settings()
    migrate(settings.store_url)
    return settings


@pytest.fixture
def said() -> list[str]:
    return []


async def embedded(settings: Settings, *new: str) -> set[str]:
    store = await SqliteStore.open(settings.sqlite_path)
    await add(store, *new)
    found = await slugs(store)
    await store.aclose()
    return found


def test_embedded_store_is_restored_beside_a_left_over_log(settings, tmp_path, said):
    copy = tmp_path / "copy.db"

    async def crash() -> None:
        store = await SqliteStore.open(settings.sqlite_path)
        await add(store, "a", "b")
        await asyncio.to_thread(backup, settings, copy, said.append)
        await add(store, *(f"later{n}" for n in range(50)))
        log = Path(f"{settings.sqlite_path}-wal").read_bytes()
        await store.aclose()
        Path(f"{settings.sqlite_path}-wal").write_bytes(log)

    asyncio.run(crash())
    restore(settings, copy, said.append)

    assert asyncio.run(embedded(settings)) == {"a", "b"}
    assert asyncio.run(embedded(settings, "c")) == {"a", "b", "c"}
    assert "copy.db" in said[0]


def test_backup_and_restore_sign_everyone_out(settings, tmp_path, said):
    """A session that was ended since the backup would count again."""
    copy, plain = tmp_path / "copy.db", tmp_path / "plain.db"

    async def with_session(path: Path, *, more: bool = False) -> int:
        store = await SqliteStore.open(path)
        if more:
            await store.add_session(SESSION, keep=9)
        found = await store.list_sessions()
        await store.aclose()
        return len(found)

    assert asyncio.run(with_session(settings.sqlite_path, more=True)) == 1
    backup(settings, copy, said.append)
    assert asyncio.run(with_session(copy)) == 0

    plain.write_bytes(settings.sqlite_path.read_bytes())
    assert asyncio.run(with_session(plain)) == 1
    restore(settings, plain, said.append)
    assert asyncio.run(with_session(settings.sqlite_path)) == 0


def test_restore_refuses_while_a_gateway_serves(settings, tmp_path, said):
    asyncio.run(embedded(settings, "a"))
    backup(settings, tmp_path / "copy.db", said.append)
    lock = running.announce(settings)
    assert lock is not None

    with lock, pytest.raises(running.DataInUse, match="stop it first"):
        restore(settings, tmp_path / "copy.db", said.append)


@pytest.mark.parametrize("content", [b"", b"no database" * 1000, b"truncated"])
def test_unusable_backup_changes_nothing(settings, tmp_path, said, content):
    asyncio.run(embedded(settings, *(f"a{n}" for n in range(100))))
    copy = tmp_path / "copy.db"
    if content == b"truncated":
        backup(settings, copy, said.append)
        content = copy.read_bytes()[: copy.stat().st_size // 2]
    copy.write_bytes(content)

    with pytest.raises(UnreadableFile):
        restore(settings, copy, said.append)

    assert len(asyncio.run(embedded(settings))) == 100
    assert [file.name for file in settings.data_dir.glob("*.part*")] == []


def test_backup_overwrites_no_file(settings, tmp_path, said):
    (tmp_path / "copy.db").write_text("precious")

    with pytest.raises(UnwritableFile, match="exists already"):
        backup(settings, tmp_path / "copy.db", said.append)

    assert (tmp_path / "copy.db").read_text() == "precious"


def test_backup_that_finds_no_room_blames_its_file_and_not_the_store(settings, tmp_path, said):
    asyncio.run(embedded(settings, "a"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    # The index of the log beside the store has 32 KiB, the database about twice as many.
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        with pytest.raises(UnwritableFile, match=r"copy\.db cannot be written: "):
            backup(settings, tmp_path / "copy.db", said.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert list(tmp_path.glob("*copy.db*")) == []


@pytest.mark.services
def test_postgres_is_restored_and_the_cache_emptied(postgres, redis_server, tmp_path, monkeypatch, said):
    url = postgres.create_database()
    redis_server.flush()
    monkeypatch.setenv("HOPGATE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOPGATE_DATABASE_URL", url)
    monkeypatch.setenv("HOPGATE_REDIS_URL", redis_server.url)
    monkeypatch.setenv("HOPGATE_AMQP_URL", "amqp://localhost:1/")
    settings = Settings()

    async def fill(*new: str) -> set[str]:
        store, cache = await open_connected(url), RedisCache(redis_server.url, timeout_s=20)
        await add(store, *new)
        if "a" in new:
            await store.add_session(SESSION, keep=9)
        found = await slugs(store)
        await cache.put(
            [Resolution.of(link) for link in (await store.get_many([Slug(s) for s in found])).values()]
        )
        await cache.aclose()
        await store.aclose()
        return found

    async def cached() -> int:
        cache = RedisCache(redis_server.url, timeout_s=20)
        total = (await cache.scan(0)).total
        await cache.aclose()
        return total

    asyncio.run(fill("a", "b"))
    backup(settings, tmp_path / "copy.dump", said.append)
    asyncio.run(fill("c"))
    contents = ["pg_restore", "--data-only", "--file=-", str(tmp_path / "copy.dump")]
    assert "COPY public.console_sessions" not in subprocess.check_output(contents, text=True)
    with (
        psycopg.connect(url, application_name="hopgate"),
        pytest.raises(running.DataInUse, match="stop them"),
    ):
        restore(settings, tmp_path / "copy.dump", said.append)
    restore(settings, tmp_path / "copy.dump", said.append)

    assert asyncio.run(cached()) == 0
    assert asyncio.run(fill()) == {"a", "b"}
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM console_sessions").fetchone() == (0,)


# --- an earlier schema ---------------------------------------------------------------------------


def hopgate(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", *arguments],
        env={**os.environ, "HOPGATE_DATA_DIR": str(settings.data_dir)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_way_back_asks_first_and_names_what_is_lost(settings):
    asyncio.run(embedded(settings, "kept"))

    asked = hopgate(settings, "migrate", "--to", "10")
    done = hopgate(settings, "migrate", "--to", "10", "--yes")
    again = hopgate(settings, "migrate", "--to", "10", "--yes")
    later = hopgate(settings, "migrate", "--to", "11", "--yes")
    forth = hopgate(settings, "migrate")

    assert asked.returncode == 1
    assert "nothing was changed" in asked.stderr
    assert "Destroys every webhook" in asked.stderr
    assert (done.returncode, again.returncode, later.returncode) == (0, 0, 1)
    count = latest_version("sqlite") - 10
    assert f"{count} migrations undone: the schema is 10" in done.stdout
    assert "0 migrations undone: the schema is 10" in again.stdout
    assert "the schema is 10, earlier than 11" in later.stderr
    assert f"{count} migrations applied" in forth.stdout
    assert asyncio.run(embedded(settings)) == {"kept"}


def test_way_back_refuses_while_a_gateway_serves(settings, said):
    lock = running.announce(settings)
    assert lock is not None

    with lock:
        with pytest.raises(running.DataInUse, match="stop it first"):
            losses(settings, 10)
        with pytest.raises(running.DataInUse, match="stop it first"):
            roll_back(settings, 10, said.append)
