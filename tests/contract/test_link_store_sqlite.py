"""The SQLite store beyond the contract: other processes, full disks, bad files."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest

from app.adapters.sqlite.store import SqliteStore
from app.domain.errors import Unavailable
from app.domain.link import LinkFields, NewLink, Slug
from app.migrations import migrate
from app.ports import Added, LinkQuery
from tests.contract.store_database import ODD_TAGS

NOW = datetime(2030, 1, 31, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "links.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path, busy_timeout_s=0.05)
    yield store
    await store.aclose()


def new(slug: str, title: str = "") -> list[NewLink]:
    return [NewLink(slug=Slug(slug), fields=LinkFields(long_url="https://example.com/", title=title))]


@pytest.mark.parametrize("tags", ["'[\"a\", 1]'", "CAST(x'5b22ff225d' AS TEXT)", *ODD_TAGS])
@pytest.mark.parametrize("title", ["'sound'", "CAST(x'ff' AS TEXT)"])
async def test_link_that_cannot_be_read_keeps_no_other_from_being_written(
    store: SqliteStore, path: Path, tags: str, title: str
) -> None:
    """Any program may have stored it. Every later commit indexes it."""
    await store.add(new("sound"), now=NOW)
    with contextlib.closing(apsw.Connection(str(path))) as other:
        other.execute(f"""
            INSERT INTO links (slug, tags, title, long_url, redirect_code, forward_query, enabled, version,
                created_at, updated_at)
            SELECT 'broken', {tags}, {title}, long_url, redirect_code, forward_query, enabled, version,
                created_at, updated_at FROM links
        """)

    added = await store.add(new("later"), now=NOW)

    assert isinstance(added, Added)
    query = LinkQuery(terms=("later",))
    found = await store.find(query, after=None, limit=10, now=NOW)
    assert [link.slug for link in found.links] == ["later"]


async def test_missing_file_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="unable to open"):
        await SqliteStore.open(tmp_path / "links.db")

    assert not list(tmp_path.iterdir())


async def test_file_without_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "links.db").write_bytes(b"no database at all" * 100)

    with pytest.raises(Unavailable, match="not a database"):
        await SqliteStore.open(tmp_path / "links.db")


async def test_file_without_tables_names_remedy(tmp_path: Path) -> None:
    apsw.Connection(str(tmp_path / "links.db")).close()
    store = await SqliteStore.open(tmp_path / "links.db")

    for call in (store.ping(), store.get(Slug("slug")), store.add(new("slug"), now=NOW)):
        with pytest.raises(Unavailable, match="hopgate migrate"):
            await call
    await store.aclose()


async def test_blocked_write_is_unavailable_reads_continue(store: SqliteStore, path: Path) -> None:
    await store.add(new("slug"), now=NOW)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(Unavailable, match="BusyError"):
        await store.add(new("other"), now=NOW)
    assert await store.get(Slug("slug")) is not None
    other.execute("ROLLBACK")
    assert isinstance(await store.add(new("other"), now=NOW), Added)
    other.close()


async def test_full_disk_stores_nothing(store: SqliteStore) -> None:
    before = await store._writer.run(lambda db: db.pragma("max_page_count"))
    await store._writer.run(lambda db: db.pragma("max_page_count", db.pragma("page_count")))

    answers = await asyncio.gather(
        *(store.add(new(f"s{n}", title="x" * 50_000), now=NOW) for n in range(3)), return_exceptions=True
    )

    assert [str(answer) for answer in answers] == [
        "sqlite is unavailable: FullError: database or disk is full"
    ] * 3
    assert await store.get_many([Slug(f"s{n}") for n in range(3)]) == {}
    assert (await store.outbox_depth()).rows == 0
    await store._writer.run(lambda db: db.pragma("max_page_count", before))
    assert isinstance(await store.add(new("s0"), now=NOW), Added)


async def test_several_processes_write_one_file(path: Path) -> None:
    code = f"""
import asyncio, datetime, sys
from pathlib import Path
from app.adapters.sqlite.store import SqliteStore
from app.domain.link import LinkFields, NewLink, Slug

async def main():
    store = await SqliteStore.open(Path({str(path)!r}))
    fields = LinkFields(long_url="https://example.com/")
    for n in range(50):
        slugs = [f"s{{n}}", f"{{sys.argv[1]}}-{{n}}"]
        new = [NewLink(slug=Slug(slug), fields=fields) for slug in slugs]
        await store.add(new, now=datetime.datetime.now(datetime.UTC))
    await store.aclose()

asyncio.run(main())
"""
    command = [sys.executable, "-W", "error", "-c", code]
    processes = [subprocess.Popen([*command, name]) for name in ("a", "b", "c")]

    assert [await asyncio.to_thread(process.wait) for process in processes] == [0, 0, 0]
    store = await SqliteStore.open(path)
    assert (await store.outbox_depth()).rows == 200
    assert len((await store.page(after=None, limit=300)).links) == 200
    await store.aclose()


async def test_acknowledged_writes_survive_a_kill(path: Path) -> None:
    code = f"""
import asyncio, datetime
from pathlib import Path
from app.adapters.sqlite.store import SqliteStore
from app.domain.link import LinkFields, NewLink, Slug

async def main():
    store = await SqliteStore.open(Path({str(path)!r}))
    for n in range(10_000):
        link = NewLink(slug=Slug(f"s{{n}}"), fields=LinkFields(long_url="https://example.com/"))
        await store.add([link], now=datetime.datetime.now(datetime.UTC))
        print(n, flush=True)

asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(50):
        process.stdout.readline()
    process.kill()
    acknowledged = 50 + len(process.communicate()[0].splitlines())

    store = await SqliteStore.open(path)
    found = await store.get_many([Slug(f"s{n}") for n in range(acknowledged)])
    assert len(found) == acknowledged
    assert (await store.outbox_depth()).rows in (acknowledged, acknowledged + 1)
    await store.aclose()
