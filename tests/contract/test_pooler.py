"""A connection pooler between Hopgate and PostgreSQL is refused, at the start and at any time after."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.adapters.postgres.pooler import check_server
from app.adapters.postgres.store import PostgresStore
from app.domain.errors import SettingsError, Unavailable
from app.domain.link import Slug
from tests.servers.hopgate import UNREACHABLE, hopgate
from tests.servers.pgbouncer import PrivatePgBouncer
from tests.servers.postgres import PrivatePostgres

pytestmark = pytest.mark.services


@pytest.fixture(params=["", "options,extra_float_digits"])
def pooler(postgres: PrivatePostgres, request: pytest.FixtureRequest) -> Iterator[PrivatePgBouncer]:
    # Not in pytest's folder, which only its user may enter.
    with tempfile.TemporaryDirectory() as folder:
        url = postgres.create_database()
        with PrivatePgBouncer(Path(folder), url, ignored=request.param) as pooler:
            yield pooler


@pytest.mark.parametrize("command", ["serve", "worker", "migrate", "doctor"])
def test_pooler_is_refused_in_one_line(pooler, command, tmp_path):
    urls = {**UNREACHABLE, "HOPGATE_DATABASE_URL": pooler.url, "HOPGATE_DATA_DIR": str(tmp_path)}

    done = hopgate(urls, command)

    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert said.count("connection pooler such as PgBouncer") == 1
    assert "Traceback" not in said


async def test_pooler_that_appears_later_is_unavailable(pooler):
    store = await PostgresStore.open(pooler.url)
    for _ in range(3):
        with pytest.raises(Unavailable, match="connection pooler such as PgBouncer"):
            await store.get(Slug("a"))
    await store.aclose()


def test_server_itself_passes(postgres: PrivatePostgres):
    check_server(postgres.create_database(), what="HOPGATE_DATABASE_URL")


def test_server_that_is_down_is_no_pooler():
    check_server("postgresql://u@127.0.0.1:1/d", what="HOPGATE_DATABASE_URL")


def test_error_names_the_setting_and_no_secret(pooler):
    with pytest.raises(SettingsError, match="HOPGATE_DATABASE_URL: a connection pooler") as refused:
        check_server(pooler.url.replace("@", ":geheim@"), what="HOPGATE_DATABASE_URL")

    assert "geheim" not in str(refused.value)
