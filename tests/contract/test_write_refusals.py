"""A store that refuses writes says so: in the error, in its ping, and in the log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import psycopg
import pytest

from app.adapters import write_state
from app.adapters.sqlite.store import SqliteStore
from app.domain.errors import NotStarted, Refused, Unavailable
from app.domain.link import LinkFields, NewLink, Slug
from app.migrations import migrate
from app.web.errors import unavailable
from app.web.health import Readiness
from tests.contract.postgres_sessions import open_connected
from tests.servers.postgres import PrivatePostgres

NOW = datetime(2030, 1, 31, tzinfo=UTC)


def new(slug: str, title: str = "") -> list[NewLink]:
    return [NewLink(slug=Slug(slug), fields=LinkFields(long_url="https://example.com/", title=title))]


async def test_full_file_shows_until_there_is_room(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(write_state, "_SHOWN_S", 0.0)
    caplog.set_level(logging.WARNING)
    migrate(f"sqlite:///{tmp_path}/links.db")
    store = await SqliteStore.open(tmp_path / "links.db")
    await store.add(new("a"), now=NOW)
    before = await store._writer.run(lambda db: db.pragma("max_page_count"))
    await store._writer.run(lambda db: db.pragma("max_page_count", db.pragma("page_count")))
    for n in range(30):
        with pytest.raises(Refused, match="full"):
            await store.add(new(f"b{n}", "t" * 100_000), now=NOW)

    with pytest.raises(Refused, match="full"):
        await store.ping()
    with pytest.raises(Refused, match="full"):
        await store.try_write()
    assert caplog.text.count("store refuses writes") == 1

    await store._writer.run(lambda db: db.pragma("max_page_count", before))
    await store.ping()
    assert "takes writes again" in caplog.text
    await store.aclose()


@pytest.mark.services
async def test_read_only_postgres_shows(postgres: PrivatePostgres, monkeypatch):
    monkeypatch.setattr(write_state, "_SHOWN_S", 0.0)
    url = postgres.create_database()
    store = await open_connected(url)
    await store.try_write()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    read_only = await open_connected(url)
    await read_only.ping()

    with pytest.raises(Refused, match="read-only"):
        await read_only.add(new("a"), now=NOW)
    with pytest.raises(Refused, match="read-only"):
        await read_only.ping()

    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM click_batches").fetchall() == [(0,)]
    await read_only.aclose()
    await store.aclose()


@pytest.mark.parametrize("kind", [Refused, NotStarted])
def test_refusal_says_that_nothing_was_stored(kind: type[Unavailable]):
    body = bytes(unavailable(kind("sqlite", "full"), may_have_written=True).body).decode()

    assert "Nothing was stored." in body
    assert "may or may not" not in body


def test_unanswered_write_stays_uncertain():
    body = bytes(unavailable(Unavailable("sqlite", "lost"), may_have_written=True).body).decode()

    assert "may or may not" in body


async def test_store_that_refuses_writes_is_degraded_and_serves():
    async def refuse() -> None:
        raise Refused("postgresql", "disk full")

    async def fail() -> None:
        raise Unavailable("redis", "gone")

    response = await Readiness().check({"store": refuse, "cache": fail}, None)

    assert response.status == 200
    assert b'"degraded"' in bytes(response.body)
    assert b"refuses writes: disk full" in bytes(response.body)


async def test_small_write_does_not_hide_a_refusal():
    now = [0.0]
    state = write_state.WriteState(monotonic=lambda: now[0])

    async def try_write() -> None:
        """Write what fits."""

    state.refuse(Refused("the store", "the disk is full"))
    state.accept()
    with pytest.raises(Refused):
        await state.check(try_write)
    now[0] = 5.0
    state.accept()
    await state.check(try_write)
