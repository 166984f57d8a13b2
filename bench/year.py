"""
Measures how long statistics of a year take where a million links were visited.

    python -m bench.year              # SQLite and PostgreSQL, six minutes, most of them to make rows
    python -m bench.year --store sqlite --links 10000
    python -m bench.year --hours      # as before days were added up

The rows are made by SQL as a worker would leave them: of all links together 330 values in each hour of a
year, of one busy link as many in each hour of 31 days, of each other link three values in one hour. What is
measured is a call of the service (`Stats`), with the values, the visitors and what else it is asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import apsw
import psycopg

from app.adapters import sketches
from app.adapters.postgres.store import PostgresStore
from app.adapters.sqlite.store import SqliteStore
from app.domain.errors import Unavailable
from app.domain.link import LinkFields, NewLink, Slug
from app.domain.visits import ALL_LINKS
from app.migrations import migrate
from app.ports import Store
from app.service.series import Interval
from app.service.stats import Extras, Stats
from bench.folding import cpu_s
from tests.servers.postgres import PrivatePostgres
from worker.housekeeping import Housekeeping

_END = datetime(2031, 1, 31, 12, tzinfo=UTC)
_DAYS, _LINK_DAYS = 366, 31
_BUSY = Slug("busy")
_VALUES = {
    **dict.fromkeys(("language", "medium"), 10),
    **dict.fromkeys(("source", "bot"), 20),
    "kind": 4,
    "referrer": 60,
    "country": 40,
    "city": 100,
    "campaign": 50,
    "browser": 7,
    "os": 5,
    "device": 3,
}
_KINDS = ("person", "bot", "preview", "prefetch")
_RUNS = 20


@dataclass(frozen=True, slots=True)
class Made:
    """A store full of rows."""

    store: Store
    name: str
    server_cpu_s: Callable[[], float]


def values() -> list[tuple[str, str, int]]:
    """Return the values of an hour: a dimension, a value, its visits."""
    return [
        (dimension, _KINDS[n] if dimension == "kind" else f"{dimension} {n:03}", 1 + 1000 // (n + 1))
        for dimension, values in _VALUES.items()
        for n in range(values)
    ]


def _sketch() -> bytes:
    return sketches.merge(None, range(1, 10**15, 10**15 // 50_000))


@asynccontextmanager
async def _sqlite(links: int) -> AsyncIterator[Made]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "links.db"
        migrate(f"sqlite:///{path}")
        db = apsw.Connection(str(path))
        db.pragma("cache_size", -200_000)
        end = int(_END.timestamp())
        add = "INSERT INTO visit_counts (slug, hour, dimension, value, visits) "
        db.execute("BEGIN")
        db.execute(
            "CREATE TEMP TABLE numbers AS WITH RECURSIVE n (value) AS"
            " (VALUES (1) UNION ALL SELECT value + 1 FROM n WHERE value < ?) SELECT value FROM n",
            (max(24 * _DAYS, links),),
        )
        db.execute("CREATE TEMP TABLE given (dimension, value, visits)")
        db.executemany("INSERT INTO given VALUES (?, ?, ?)", values())
        for slug, days in ((ALL_LINKS, _DAYS), (_BUSY, _LINK_DAYS)):
            # Each third value is not there in a third of the hours.
            db.execute(
                f"{add} SELECT ?, (? - 3600 * hours.value) * 1000000, dimension, given.value, visits"
                " FROM numbers AS hours, given WHERE hours.value <= 24 * ?"
                " AND ((hours.value + given.rowid) % 3 > 0 OR given.rowid < 30)",
                (slug, end, days),
            )
            day = end // 86400
            of_days = ((slug, day - n, _sketch_of(n)) for n in range(days))
            db.executemany("INSERT INTO visit_sketches VALUES (?, ?, ?)", of_days)
        db.execute(
            f"{add} SELECT printf('l%07d', n.value), (? - 3600 * (n.value % 8000 + 1)) * 1000000, dimension,"
            " given.value, 1 FROM numbers AS n, given WHERE n.value <= ? AND given.rowid IN (1, 30, 300)",
            (end, links),
        )
        db.execute("COMMIT")
        db.close()
        store = await SqliteStore.open(path)
        yield Made(store, "sqlite", lambda: 0.0)
        await store.aclose()


def _sketch_of(_day: int, _known: list[bytes] = []) -> bytes:  # noqa: B006 - made once
    if not _known:
        _known.append(_sketch())
    return _known[0]


@asynccontextmanager
async def _postgres(links: int) -> AsyncIterator[Made]:
    settings = {"shared_buffers": "512MB", "max_wal_size": "4GB", "fsync": "off"}
    with PrivatePostgres(settings=settings) as server:
        url = server.create_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "CREATE TEMP TABLE given (n serial, dimension text, value text, visits bigint)"
            )
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO given VALUES (DEFAULT, %s, %s, %s)", values())
            for slug, days in ((ALL_LINKS, _DAYS), (_BUSY, _LINK_DAYS)):
                connection.execute(
                    "INSERT INTO visit_counts (slug, hour, dimension, value, visits)"
                    " SELECT %s, %s - interval '1 hour' * hours, dimension, value, visits"
                    " FROM generate_series(1, 24 * %s) AS hours, given WHERE (hours + n) %% 3 > 0 OR n < 30",
                    (slug, _END, days),
                )
                connection.execute(
                    "INSERT INTO visit_sketches SELECT %s, %s::date - n, %s"
                    " FROM generate_series(0, %s - 1) AS n",
                    (slug, _END.date(), _sketch_of(0), days),
                )
            connection.execute(
                "INSERT INTO visit_counts (slug, hour, dimension, value, visits)"
                " SELECT 'l' || lpad(no::text, 7, '0'), %s - interval '1 hour' * (no %% 8000 + 1),"
                " dimension, value, 1"
                " FROM generate_series(1, %s) AS no, (SELECT * FROM given WHERE n IN (1, 30, 300)) AS three",
                (_END, links),
            )
            connection.execute("VACUUM ANALYZE visit_counts")
        store = await PostgresStore.open(url)
        yield Made(store, "postgres", lambda: cpu_s(server.directory / "data"))
        await store.aclose()


_STORES = {"sqlite": _sqlite, "postgres": _postgres}


async def _measure(made: Made, clock: Callable[[], datetime]) -> None:
    await made.store.add([NewLink(slug=_BUSY, fields=LinkFields(long_url="https://example.com/"))], now=_END)
    stats = Stats(made.store, made.store, made.store, count=sketches.count, clock=clock)
    year, month = _END - timedelta(days=_DAYS - 1), _END - timedelta(days=_LINK_DAYS)
    days, zoned = Extras(Interval.DAY), Extras(Interval.DAY, ZoneInfo("Europe/Vienna"), compares=True)
    asked = {
        "all links, a year": lambda: stats.overall(since=year, until=_END),
        "all links, a year by day": lambda: stats.overall(since=year, until=_END, extras=days),
        "all links, a year by day in a zone, and before": lambda: stats.overall(
            since=year, until=_END, extras=zoned
        ),
        "all links, 31 days": lambda: stats.overall(since=month, until=_END),
        "busy link, 31 days by day in a zone, and before": lambda: stats.hourly(
            _BUSY, since=month, until=_END, extras=zoned
        ),
    }
    for name, ask in asked.items():
        took_ms = []
        server = made.server_cpu_s()
        for _ in range(_RUNS):
            began, cpu = time.monotonic(), time.process_time()
            with suppress(Unavailable):  # after five seconds
                await ask()
            took_ms.append(((time.monotonic() - began) * 1000, (time.process_time() - cpu) * 1000))
        wall = sorted(one for one, _ in took_ms)
        own = sorted(one for _, one in took_ms)[_RUNS // 2]
        of_server = (made.server_cpu_s() - server) / _RUNS * 1000
        figures = (
            f"median {wall[_RUNS // 2]:>6.0f} ms, longest {wall[-1]:>6.0f} ms; of a processor {own:>5.0f} ms"
            f" of this process, {of_server:>5.0f} of the server"
        )
        print(f"{made.name:<9} {name:<48} {figures}", flush=True)


async def main() -> None:
    """Measure what the arguments select."""
    options = argparse.ArgumentParser(prog="bench.year")
    options.add_argument("--store", choices=_STORES, action="append")
    options.add_argument("--links", type=int, default=1_000_000)
    options.add_argument("--hours", action="store_true")
    asked = options.parse_args()
    for name in asked.store or _STORES:
        async with _STORES[name](asked.links) as made:
            began = time.monotonic()
            housekeeping = Housekeeping(made.store, clock=lambda: _END, monotonic=lambda: 0.0)
            if not asked.hours:
                await housekeeping.clean_up()
                print(f"{name:<9} housekeeping took {time.monotonic() - began:.1f} s", flush=True)
            await _measure(made, lambda: _END)


if __name__ == "__main__":
    asyncio.run(main())
