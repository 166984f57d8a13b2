"""The file under an embedded store is not the file that it knows: noticed, and nothing acknowledged."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest

from app.adapters.sqlite import writer
from app.adapters.sqlite.store import SqliteStore
from app.domain.errors import Refused, Unavailable
from app.domain.link import LinkFields, NewLink, Slug
from app.migrations import migrate

NOW = datetime(2030, 1, 31, tzinfo=UTC)


def new(slug: str) -> list[NewLink]:
    return [NewLink(slug=Slug(slug), fields=LinkFields(long_url="https://example.com/"))]


async def add(store: SqliteStore, count: int, prefix: str = "a") -> None:
    for n in range(count):
        await store.add(new(f"{prefix}{n}"), now=NOW)


def copy_of(path: Path, name: str) -> Path:
    """Make a backup, as `sqlite3 .backup` does."""
    target = path.with_name(name)
    source, copy = apsw.Connection(str(path)), apsw.Connection(str(target))
    with copy.backup("main", source, "main") as backup:
        backup.step()
    copy.close()
    source.close()
    return target


def checkpoint(path: Path, mode: int) -> None:
    db = apsw.Connection(str(path))
    db.pragma("user_version")  # a connection that has read nothing has no log to work on
    assert db.wal_checkpoint(mode=mode) != (-1, -1)
    db.close()


def crash(path: Path, name: str) -> Path:
    """Return a folder as a crash leaves it: the file and its log, without a checkpoint."""
    folder = path.with_name(name)
    folder.mkdir()
    for file in (path, Path(f"{path}-wal")):
        shutil.copy(file, folder / file.name)
    return folder / path.name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "links.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    monkeypatch.setattr(writer, "_LOOK_S", 0.05)
    store = await SqliteStore.open(path)
    await add(store, 3)
    yield store
    await store.aclose()


def removed(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    copy_of(path, "copy.db").replace(path)


def replaced_by_an_unrelated_file(path: Path) -> None:
    migrate(f"sqlite:///{path.with_name('other.db')}")
    path.with_name("other.db").replace(path)


def overwritten_by_an_unrelated_file(path: Path) -> None:
    migrate(f"sqlite:///{path.with_name('other.db')}")
    shutil.copyfile(path.with_name("other.db"), path)


def truncated(path: Path) -> None:
    os.truncate(path, 0)


def log_removed(path: Path) -> None:
    Path(f"{path}-wal").unlink()


CHANGES = [
    removed,
    replaced,
    replaced_by_an_unrelated_file,
    overwritten_by_an_unrelated_file,
    truncated,
    log_removed,
]


@pytest.mark.parametrize("change", CHANGES)
async def test_changed_file_takes_no_writes(store, path, change: Callable[[Path], None], caplog):
    change(path)

    with pytest.raises(Unavailable, match="under the running gateway"):
        await store.add(new("b"), now=NOW)
    with pytest.raises(Refused, match="hopgate restore"):
        await store.ping()
    assert caplog.text.count("CRITICAL") == 1


@pytest.mark.parametrize("change", CHANGES)
async def test_changed_file_is_noticed_without_writes(store, path, change: Callable[[Path], None]):
    await asyncio.sleep(0.1)
    change(path)
    await asyncio.sleep(0.3)

    with pytest.raises(Refused, match="under the running gateway"):
        await store.ping()


async def test_older_backup_copied_over_the_file_is_noticed(store, path):
    old = copy_of(path, "old.db")
    await add(store, 10, "b")
    await store._writer.run(lambda _: None)
    checkpoint(path, apsw.SQLITE_CHECKPOINT_TRUNCATE)
    await add(store, 1, "c")
    shutil.copyfile(old, path)

    with pytest.raises(Unavailable, match="was written over"):
        await store.add(new("d"), now=NOW)


async def test_other_processes_and_checkpoints_are_no_change(store, path):
    other = await SqliteStore.open(path)
    for n in range(20):
        await add(store, 3, f"x{n}-")
        await add(other, 3, f"y{n}-")
        checkpoint(path, apsw.SQLITE_CHECKPOINT_TRUNCATE if n % 2 else apsw.SQLITE_CHECKPOINT_PASSIVE)
    copy_of(path, "copy.db")
    await store.ping()
    await other.aclose()


async def test_log_beside_a_restored_file_is_refused(store, path):
    old = copy_of(path, "old.db")
    await add(store, 20, "b")
    checkpoint(path, apsw.SQLITE_CHECKPOINT_RESTART)
    await add(store, 20, "c")
    crashed = crash(path, "crashed")
    shutil.copyfile(old, crashed)

    for attempt in (lambda: migrate(f"sqlite:///{crashed}"), lambda: asyncio.run(SqliteStore.open(crashed))):
        with pytest.raises(Unavailable, match="hopgate restore"):
            await asyncio.to_thread(attempt)


async def test_log_beside_an_unrelated_file_is_refused(store, path, tmp_path):
    crashed = crash(path, "crashed")
    migrate(f"sqlite:///{tmp_path}/other.db")
    shutil.copyfile(tmp_path / "other.db", crashed)

    with pytest.raises(Unavailable, match="hopgate restore"):
        await SqliteStore.open(crashed)


async def test_log_of_a_crash_is_replayed(store, path):
    await add(store, 20, "b")
    crashed = crash(path, "crashed")
    checkpoint(path, apsw.SQLITE_CHECKPOINT_RESTART)
    await add(store, 5, "c")
    again = crash(path, "again")

    for file, slug in ((crashed, "b19"), (again, "c4")):
        migrate(f"sqlite:///{file}")
        reopened = await SqliteStore.open(file)
        assert await reopened.get(Slug(slug)) is not None
        await reopened.aclose()
