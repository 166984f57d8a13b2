"""Databases of both kinds that migrations are tried on."""

from __future__ import annotations

from pathlib import Path

import apsw
import psycopg
import pytest

from app.migrations import sqlite_path
from tests.servers.postgres import PrivatePostgres

KINDS = ("sqlite", pytest.param("postgres", marks=pytest.mark.services))


def empty(request: pytest.FixtureRequest, folder: Path) -> str:
    """Return the URL of an empty database of the kind that is the parameter of a fixture."""
    if request.param == "sqlite":
        return f"sqlite:///{folder}/links.db"
    server: PrivatePostgres = request.getfixturevalue("postgres")
    return server.create_database(migrated=False)


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    if url.startswith("sqlite:"):
        db = apsw.Connection(str(sqlite_path(url)))
        try:
            return db.execute(statement).fetchall()
        finally:
            db.close()
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


A_LINK = """
    INSERT INTO links (slug, long_url, title, tags, redirect_code, forward_query, enabled, version,
        created_at, updated_at)
    VALUES ('before', 'https://a.example:8080/x', 'STRAẞE', {tags}, 302, {no}, {yes}, 1, {t}, {t})
"""


def insert_link(url: str) -> None:
    if url.startswith("sqlite:"):
        execute(url, A_LINK.format(tags="'[\"a\"]'", no=0, yes=1, t=0))
    else:
        execute(url, A_LINK.format(tags="'{a}'", no="false", yes="true", t="now()"))
