"""`Store.epoch`: the same while the store goes on, another once it goes back to an earlier state."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from app.adapters.postgres.store import PostgresStore
from app.domain.link import LinkFields, NewLink, Resolution, Slug
from app.migrations import migrate
from app.ports import Added, Changed, Store
from tests.contract.postgres_sessions import open_connected
from tests.servers.postgres import PostgresReplica, PrivatePostgres

NOW = datetime(2030, 1, 31, tzinfo=UTC)
SLUG = Slug("slug")
FIELDS = LinkFields(long_url="https://example.com/")


async def test_embedded_store_has_one_epoch(embedded_store: Store) -> None:
    assert await embedded_store.epoch() == 0


@pytest.fixture
def url(postgres: PrivatePostgres) -> str:
    url = postgres.create_database(migrated=False)
    migrate(url)
    return url


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresStore]:
    store = await open_connected(url)
    try:
        yield store
    finally:
        await store.aclose()


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


@pytest.mark.services
async def test_epoch_stays_while_the_store_goes_on(url: str) -> None:
    async with opened(url) as one, opened(url) as other:
        assert await one.epoch() == 0
        await one.add([NewLink(slug=SLUG, fields=FIELDS)], now=NOW)
        for statement in ("VACUUM FULL links", "CHECKPOINT"):
            execute(url, statement)

        assert [await one.epoch(), await other.epoch(), await one.epoch()] == [0] * 3


@pytest.mark.services
async def test_role_without_other_rights_reads_and_raises_it(url: str, postgres: PrivatePostgres) -> None:
    execute(url, "CREATE ROLE plain LOGIN")
    execute(url, "GRANT SELECT, UPDATE ON store_epoch TO plain")
    execute(url, "UPDATE store_epoch SET identity = 'elsewhere'")

    async with opened(url.replace("postgres@", "plain@")) as store:
        assert await store.epoch() > 0
    execute(url, "DROP OWNED BY plain; DROP ROLE plain")


@pytest.mark.services
async def test_restored_dump_has_another_epoch(url: str, postgres: PrivatePostgres, tmp_path: Path) -> None:
    """Into the same database of the same server, by the tools of PostgreSQL alone."""
    async with opened(url) as store:
        before = await store.epoch()
        dump = tmp_path / "dump"
        programs = postgres._bin
        subprocess.run([programs / "pg_dump", "-Fc", f"--file={dump}", url], check=True)
        restore = [str(programs / "pg_restore"), "--clean", "--if-exists", "--single-transaction"]
        subprocess.run([*restore, f"--dbname={url}", str(dump)], check=True)

        after = await store.epoch()
        assert after > before
        async with opened(url) as other:
            assert [await store.epoch(), await other.epoch()] == [after] * 2

        # Once more from the same dump: yet another history.
        subprocess.run([*restore, f"--dbname={url}", str(dump)], check=True)
        assert await store.epoch() > after


@pytest.mark.services
async def test_copied_database_has_another_epoch(url: str, postgres: PrivatePostgres) -> None:
    name = url.rpartition("/")[2]
    execute(postgres.url(), f"CREATE DATABASE {name}_copy TEMPLATE {name}")

    async with opened(f"{url}_copy") as copy, opened(url) as original:
        assert await copy.epoch() > await original.epoch() == 0


@pytest.mark.services
async def test_files_put_back_have_another_epoch() -> None:
    """The same server, timeline, database and table: only the log is shorter than it was."""
    with PrivatePostgres() as server:
        url = server.create_database(migrated=False)
        migrate(url)
        server.stop()
        copy = server.directory / "copy"
        subprocess.run(["cp", "-a", server._data, copy], check=True)
        server.start()
        async with opened(url) as store:
            for number in range(20):
                await store.add([NewLink(slug=Slug(f"s-{number}"), fields=FIELDS)], now=NOW)
            before = await store.epoch()
            server.kill()
            subprocess.run(["rm", "-rf", server._data], check=True)
            copy.rename(server._data)
            server.start()

            after = await store.epoch()
            assert after > before
            assert await store.epoch() == after


@pytest.mark.services
async def test_promoted_standbys_have_epochs_of_their_own() -> None:
    """Two standbys that know nothing of each other both start timeline 2."""
    with PrivatePostgres() as primary:
        url = primary.create_database(migrated=False)
        migrate(url)
        epochs = [0]
        for _ in range(2):
            with PostgresReplica(primary) as standby:
                standby.promote()
                async with opened(url.replace(f":{primary.port}", f":{standby.port}")) as store:
                    epochs.append(await store.epoch())
                    assert await store.epoch() == epochs[-1]
        async with opened(url) as store:
            assert await store.epoch() == 0
    assert sorted(set(epochs)) == epochs


@pytest.mark.services
async def test_every_read_of_a_link_has_its_epoch(url: str) -> None:
    """In one snapshot: what is read before a failover must not look like what is read after it."""
    execute(url, "UPDATE store_epoch SET epoch = 7")
    async with opened(url) as store:
        added = await store.add([NewLink(slug=SLUG, fields=FIELDS)], now=NOW)
        assert isinstance(added, Added)
        changed = await store.update(SLUG, FIELDS, expected_version=1, now=NOW)
        assert isinstance(changed, Changed)
        [touched] = await store.touch([SLUG])
        links = [*added.links, changed.link, touched.link, await store.get(SLUG)]
        links += (await store.get_many([SLUG])).values()
        links += (await store.page(after=None, limit=1)).links
        removed = await store.remove(SLUG, expected_version=None, now=NOW)
        assert isinstance(removed, Changed)
        gone = (await store.resolve([SLUG]))[SLUG]

    assert [link.epoch for link in [*links, removed.link] if link is not None] == [7] * 7
    assert gone == Resolution.of(removed.link) == Resolution(SLUG, 4, epoch=7)
