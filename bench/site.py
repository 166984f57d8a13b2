"""The upstream services of the servers under measurement: SQLite, or PostgreSQL, Redis and RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import hashlib
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import redis

from app.adapters.redis.cache import RedisCache
from app.bootstrap import open_store
from app.domain.link import LinkFields, NewLink, Resolution, Slug
from app.migrations import migrate
from app.service import keys
from app.settings import Settings
from bench.contenders import CONTENDERS
from bench.processes import BACK_CPUS, CPUS, SERVER_CPU, Server, free_port, serving
from bench.servers.redis_get import PREFIX
from tests.servers.hopgate import Worker, hopgate
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis

ONE = Slug("onelink")
TARGET = "https://example.com/a/long/path?with=query"
UNLIMITED = {
    f"HOPGATE_LIMIT_{name}": "1000000000/s burst 1000000000"
    for name in ("REDIRECT", "API", "CREATE", "NOT_FOUND")
}
# One statement inserts a million links in seconds, and their slugs can be computed.
_INSERT = """
INSERT INTO links (slug, long_url, title, tags, redirect_code, forward_query, enabled, version,
                   created_at, updated_at)
SELECT substr(md5(n::text), 1, 12), %s || n, '', '{}', 302, false, true, 1, now(), now()
FROM generate_series(0, %s - 1) AS n
"""


def numbered_slug(number: int) -> Slug:
    """Return the slug of link *number* of a `Stack.site`."""
    return Slug(hashlib.md5(b"%d" % number).hexdigest()[:12])


class Site:
    """
    Servers with the same settings, started on first use and stopped at the end.

    `key` is an API key with every scope.
    """

    def __init__(self, running: ExitStack, settings: dict[str, str]) -> None:
        self.settings = settings
        self.folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="hopgate-bench-")))
        self._running = running
        self._servers: dict[str, Server] = {}
        self.key = ""

    def server(self, name: str) -> Server:
        """Return the contender *name*; `name-2` has two workers and may use all processors."""
        if name not in self._servers:
            base, dash, workers = name.rpartition("-")
            count = int(workers) if dash and workers.isdigit() else 1
            port = free_port()
            contender = CONTENDERS[base if count > 1 else name]
            command = contender.command(port, count, self.folder)
            bind = {"HOPGATE_BIND": f"127.0.0.1:{port}", "HOPGATE_WORKERS": str(count)}
            traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": self._collector} if contender.is_traced else {}
            cpus = CPUS if count > 1 else [SERVER_CPU]
            self._servers[name] = self._running.enter_context(
                serving(command, port, {**self.settings, **bind, **traces}, cpus=cpus)
            )
        return self._servers[name]

    @cached_property
    def _collector(self) -> str:
        """The URL of a collector of traces: a process of its own, whose time is charged to no contender."""
        port = free_port()
        command = [sys.executable, "-m", "bench.servers.collector", str(port)]
        self._running.enter_context(serving(command, port, {}, cpus=BACK_CPUS))
        return f"http://127.0.0.1:{port}"

    @contextlib.contextmanager
    def gateway(
        self, settings: Mapping[str, str] | None = None, *, cpus: Sequence[int] = (SERVER_CPU,)
    ) -> Iterator[Server]:
        """Run another `hopgate serve`, with additional *settings*, while the body runs."""
        port = free_port()
        command = CONTENDERS["hopgate"].command(port, 1, self.folder)
        data = {"HOPGATE_BIND": f"127.0.0.1:{port}", "HOPGATE_DATA_DIR": str(self.folder / "data")}
        with serving(command, port, {**self.settings, **data, **(settings or {})}, cpus=cpus) as server:
            yield server

    def worker(self) -> Worker:
        """Return a `hopgate worker`, a context manager; it shares processors with the load."""
        return Worker(self.settings, self.folder)

    def query(self, statement: str) -> int:
        """Return the number that *statement* selects."""
        with psycopg.connect(self.settings["HOPGATE_DATABASE_URL"]) as connection:
            row = connection.execute(statement.encode()).fetchone()
        return int(row[0]) if row else 0

    def paths(self, name: str, slugs: Sequence[str]) -> Path:
        """Write the paths of *slugs* to a file for the load and return it."""
        file = self.folder / f"{name}.paths"
        file.write_text("".join(f"/{slug}\n" for slug in slugs))
        return file

    def loaded(self) -> Settings:
        """Return the settings as the program reads them."""
        values: dict[str, Any] = {
            name.removeprefix("HOPGATE_").lower(): value for name, value in self.settings.items()
        }
        return Settings(**values)

    def prepare(self) -> None:
        """Create the schema, the key and one link, `/onelink`."""
        settings = self.loaded()
        migrate(settings.store_url)
        self.key = asyncio.run(_start(settings))


async def _start(settings: Settings) -> str:
    now = datetime.now(UTC)
    text, record = keys.issue("bench", keys.ALL_SCOPES, now=now, choice=secrets.choice)
    async with open_store(settings) as store:
        await store.add_key(record)
        await store.add([NewLink(slug=ONE, fields=LinkFields(long_url=TARGET))], now=now)
    return text


def embedded(running: ExitStack) -> Site:
    """Return an embedded site: SQLite in a folder."""
    site = Site(running, dict(UNLIMITED))
    site.settings["HOPGATE_DATA_DIR"] = str(site.folder)
    site.prepare()
    return site


class Stack:
    """
    Private PostgreSQL, Redis and RabbitMQ.

    Most scenarios run without a worker, which would take processor time; they fill and empty the
    cache themselves.
    """

    def __init__(self, running: ExitStack) -> None:
        self._running = running
        self.postgres = running.enter_context(
            PrivatePostgres(fsync=True, settings={"shared_buffers": "512MB"})
        )
        self.redis = running.enter_context(PrivateRedis())
        self.rabbitmq = running.enter_context(PrivateRabbit())
        self._databases = 0

    def site(self, links: int) -> Site:
        """Return a site with its own databases and virtual host, and *links* links."""
        number, self._databases = self._databases, self._databases + 1
        settings = {
            "HOPGATE_DATABASE_URL": self.postgres.create_database(),
            "HOPGATE_REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/{number}",
            "HOPGATE_AMQP_URL": self.rabbitmq.add_vhost(f"bench-{secrets.token_hex(4)}"),
            "HOPGATE_BASE_URL": "http://hop.example",
            **UNLIMITED,
        }
        site = Site(self._running, settings)
        site.prepare()
        with psycopg.connect(settings["HOPGATE_DATABASE_URL"], autocommit=True) as connection:
            connection.execute(_INSERT, ("https://example.com/a/long/path?with=query&number=", links))
            connection.execute("VACUUM ANALYZE links")
        return site


def flush_redis(site: Site) -> None:
    """Empty the site's Redis database."""
    with redis.Redis.from_url(site.settings["HOPGATE_REDIS_URL"]) as client:
        client.flushdb()


def fill_redis(site: Site, links: Sequence[tuple[str, str]]) -> None:
    """Write *links* to Redis, as entries of Hopgate and as plain values for the bare server."""
    with redis.Redis.from_url(site.settings["HOPGATE_REDIS_URL"]) as client:
        for start in range(0, len(links), 1000):
            client.mset({PREFIX + slug: target for slug, target in links[start : start + 1000]})
    asyncio.run(_put(site, links))


async def _put(site: Site, links: Sequence[tuple[str, str]]) -> None:
    async with open_store(site.loaded()) as store:
        epoch = await store.epoch()  # an entry of another one is a miss
    cache = RedisCache(site.settings["HOPGATE_REDIS_URL"], timeout_s=10)
    try:
        await cache.put([Resolution(Slug(slug), 1, target, epoch=epoch) for slug, target in links])
    finally:
        await cache.aclose()


def import_urls(site: Site, urls: Path) -> list[tuple[str, str]]:
    """Run `hopgate links import` on *urls*; return slug and target of each accepted link."""
    output = site.folder / "imported.csv"
    options = ("--output", str(output), "--allow-refused")
    done = hopgate(site.settings, "links", "import", str(urls), *options, timeout=900)
    if done.returncode:
        raise SystemExit(done.stderr)
    with output.open(encoding="utf-8", newline="") as file:
        return [(row["slug"], row["long_url"]) for row in csv.DictReader(file)]
