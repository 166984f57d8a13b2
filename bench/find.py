"""
Measures listings over a million links in each store: filters, searches, sorts, deep pages, counts and tags.

    python -m bench.find                      # both stores, about ten minutes, most of it to fill them
    python -m bench.find --links 100000 --store sqlite
    python -m bench.find --write              # writes bench/FIND.md

Each figure is the time of one call of the port `FindStore`, with other values in each, one after the other: a
page of 50. The bar is a p99 of 50 ms; counts and tags are reported.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.adapters.postgres.store import PostgresStore
from app.adapters.sqlite.store import SqliteStore
from app.domain.link import LinkFields, Slug
from app.domain.search import folded
from app.migrations import migrate
from app.ports import ImportedLink, LinkCondition, LinkQuery, LinkSort, Position, Store, TimeRange
from tests.servers.postgres import PrivatePostgres

REPORT = Path(__file__).with_name("FIND.md")
NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
_SPAN = timedelta(days=1000)
_BAR_MS, _PAGE, _BATCH = 50.0, 50, 1000
_WORDS = [f"{a}{b}{c}" for a in ("sal", "mon", "tre", "vi", "cor", "pla") for b in ("an", "or", "ek") for c in
          ("da", "ris", "um", "elle", "ost", "ith")]  # fmt: skip
_COMMON_TAGS = [f"team-{n}" for n in range(40)]
# The filters that are measured in every order.
_SORTED = (
    *("no filter", "a tag of many links", "a tag of the oldest 1 %", "a host of few links"),
    *("common term", "rare term", "expired"),
)
_HOSTS = [f"{word}.example" for word in _WORDS]


def links(count: int, choose: random.Random) -> Iterator[ImportedLink]:
    """Yield *count* links: popular and rare words, tags and hosts, some of the oldest links only."""
    for number in range(count):
        rare = f"rare{number // 40:x}"
        words = [_skewed(_WORDS, choose) for _ in range(4)]
        tags = {_skewed(_COMMON_TAGS, choose) for _ in range(choose.randrange(3))}
        if number % 5000 == 0:
            tags.add(f"event-{number // 50_000}")
        if number < count // 100:
            tags.add("archive")
        if number < count * 3 // 10:
            tags.add("legacy")
        created = NOW - _SPAN + _SPAN * number / count
        ends = created + timedelta(days=choose.randrange(30, 400)) if choose.random() < 0.3 else None
        yield ImportedLink(
            slug=Slug(f"{choose.randrange(36**4):x}-{number:x}"),
            fields=LinkFields(
                long_url=f"https://{_skewed(_HOSTS, choose)}/{words[0]}/{number:x}?utm_source={words[1]}",
                title=f"{words[2]} {words[3]} {rare}".title() if choose.random() < 0.8 else "",
                tags=tuple(sorted(tags)),
                expires_at=ends,
                enabled=choose.random() > 0.01,
            ),
            created_at=created,
            visits=int(choose.paretovariate(0.7)) if choose.random() < 0.6 else 0,
            spent_visits=0,
            key=None,
        )


def _skewed(values: list[str], choose: random.Random) -> str:
    return values[int(len(values) * choose.random() ** 3)]


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of call; *make* draws one."""

    name: str
    make: Callable[[Store, random.Random], Awaitable[object]]
    has_bar: bool = True


def cases(count: int) -> list[Case]:
    """Return what is measured over *count* links."""

    def listing(name: str, draw: Callable[[random.Random], LinkQuery], *, deep: bool = False) -> Case:
        async def call(store: Store, choose: random.Random) -> object:
            query = draw(choose)
            after = somewhere(query.sort, count, choose) if deep else None
            return await store.find(query, after=after, limit=_PAGE, now=NOW)

        return Case(f"{name}{', deep page' if deep else ''}", call)

    def counting(name: str, draw: Callable[[random.Random], LinkQuery]) -> Case:
        async def call(store: Store, choose: random.Random) -> object:
            return await store.count(draw(choose), now=NOW, limit_s=4)

        return Case(f"count of {name}", call, has_bar=False)

    drawn = filters(count)
    found = [listing(name, draw) for name, draw in drawn.items()]
    found += [
        listing(name, drawn[name], deep=True) for name in ("no filter", "a tag of many links", "common term")
    ]
    for sort, down in itertools.product(list(LinkSort)[1:], (True, False)):
        by = f"by {sort.value}{', descending' if down else ''}"
        for name in _SORTED:
            found.append(listing(f"{by}: {name}", _in_order(drawn[name], sort, descending=down)))
        for name in ("no filter", "common term"):
            found.append(listing(f"{by}: {name}", _in_order(drawn[name], sort, descending=down), deep=True))
    found += [
        counting(name, drawn[name])
        for name in (
            "no filter",
            "a tag of many links",
            "a host of few links",
            "live",
            "common term",
            "rare term",
        )
    ]

    async def tags(store: Store, choose: random.Random) -> object:
        return await store.tags(after=None, limit=_PAGE)

    return [*found, Case("tags with counts", tags, has_bar=False)]


def filters(count: int) -> dict[str, Callable[[random.Random], LinkQuery]]:
    """Return what draws a query of each kind over *count* links."""

    def day(choose: random.Random) -> TimeRange:
        first = NOW - _SPAN * choose.random()
        return TimeRange(first, first + timedelta(days=1))

    return {
        "no filter": lambda c: LinkQuery(),
        "a tag of many links": lambda c: LinkQuery(tags_any=(c.choice(_COMMON_TAGS[:10]),)),
        "a tag of few links": lambda c: LinkQuery(tags_any=(f"event-{c.randrange(count // 50_000 or 1)}",)),
        "a tag of the oldest 1 %": lambda c: LinkQuery(tags_any=("archive",)),
        "a tag of the oldest 30 %": lambda c: LinkQuery(tags_any=("legacy",)),
        "any of three tags": lambda c: LinkQuery(tags_any=tuple(c.sample(_COMMON_TAGS, 3))),
        "both of two tags": lambda c: LinkQuery(tags_all=tuple(c.sample(_COMMON_TAGS[:10], 2))),
        "without two tags": lambda c: LinkQuery(tags_none=tuple(c.sample(_COMMON_TAGS, 2))),
        "a host of many links": lambda c: LinkQuery(host=_HOSTS[c.randrange(5)]),
        "a host of few links": lambda c: LinkQuery(host=_HOSTS[-1 - c.randrange(5)]),
        "an absent host": lambda c: LinkQuery(host=f"absent{c.random()}.example"),
        "an absent target": lambda c: LinkQuery(long_url=f"https://absent.example/{c.random()}"),
        "live": lambda c: LinkQuery(conditions=(LinkCondition.LIVE,)),
        "expired": lambda c: LinkQuery(conditions=(LinkCondition.EXPIRED,)),
        "disabled": lambda c: LinkQuery(conditions=(LinkCondition.DISABLED,)),
        "pending": lambda c: LinkQuery(conditions=(LinkCondition.PENDING,)),
        "created on a day": lambda c: LinkQuery(created=day(c)),
        "expires on a day": lambda c: LinkQuery(expires=day(c)),
        "a day and a common tag": lambda c: LinkQuery(created=day(c), tags_any=(c.choice(_COMMON_TAGS[:9]),)),
        "common term": lambda c: LinkQuery(terms=(folded(c.choice(_WORDS[:5])),)),
        "rare term": lambda c: LinkQuery(terms=(f"rare{c.randrange(count // 40):x}",)),
        "absent term": lambda c: LinkQuery(terms=(f"absent{c.randrange(10**9)}",)),
        "part of a host": lambda c: LinkQuery(terms=(_HOSTS[c.randrange(len(_HOSTS))][2:9],)),
        "two terms": lambda c: LinkQuery(terms=(c.choice(_WORDS[:5]), f"rare{c.randrange(count // 40):x}")),
        "common term and tag": lambda c: LinkQuery(
            terms=(c.choice(_WORDS[:9]),), tags_any=(c.choice(_COMMON_TAGS),)
        ),
        "punctuation": lambda c: LinkQuery(terms=("?!%",)),
        "emoji": lambda c: LinkQuery(terms=("😀😀😀",)),
    }  # fmt: skip


def _in_order(
    draw: Callable[[random.Random], LinkQuery], sort: LinkSort, *, descending: bool
) -> Callable[[random.Random], LinkQuery]:
    return lambda choose: replace(draw(choose), sort=sort, descending=descending)


def somewhere(sort: LinkSort, count: int, choose: random.Random) -> Position:
    """Return a position that may be anywhere in a listing by *sort*."""
    at = choose.randrange(count // 20, count)
    slug = f"{choose.randrange(36**4):x}"
    micros = int((NOW - _SPAN + _SPAN * at / count).timestamp()) * 1_000_000
    return {
        LinkSort.STORED: Position(at, at),
        LinkSort.CREATED: Position(micros, at),
        LinkSort.UPDATED: Position(int(NOW.timestamp() * 1e6), at),
        LinkSort.CLICKS: Position(choose.choice([0, 1, 2, 5]), slug),
        LinkSort.TITLE: Position(choose.choice(_WORDS).title(), at),
        LinkSort.SLUG: Position(slug, slug),
    }[sort]


async def fill(store: Store, count: int) -> float:
    """Store *count* links; return how long that took, in seconds."""
    begin = time.monotonic()
    found = links(count, random.Random(1))
    while batch := list(itertools.islice(found, _BATCH)):
        await store.add_imported(batch, now=NOW)
    return time.monotonic() - begin


async def timed(
    store: Store, case: Case, samples: int, cpu_ms: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Return the times of *samples* calls and the processor times for them, both sorted, in ms."""
    choose = random.Random(case.name)
    took, worked = [], []
    for _ in range(samples + 5):
        begin, before = time.perf_counter(), cpu_ms()
        await case.make(store, choose)
        took.append((time.perf_counter() - begin) * 1000)
        worked.append(cpu_ms() - before)
    return sorted(took[5:]), sorted(worked[5:])


def processors(url: str) -> Callable[[], float]:
    """Return a clock of the processor time of this process and of the sessions of *url*, in ms."""
    if url.startswith("sqlite:"):
        return lambda: time.process_time() * 1000
    import psycopg

    def now() -> float:
        spent_ns = sum(int(path.read_text().split()[0]) for path in sessions if path.exists())
        return time.process_time() * 1000 + spent_ns / 1e6

    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'hopgate'")
        sessions = [Path(f"/proc/{pid}/schedstat") for (pid,) in rows]
    return now


async def measure(store: Store, name: str, url: str, arguments: argparse.Namespace) -> list[str]:
    """Return the rows of a table."""
    # All sessions of the pool are opened before their time is counted.
    await asyncio.gather(*(store.count(LinkQuery(), now=NOW, limit_s=9) for _ in range(4)))
    cpu_ms = processors(url)
    rows = []
    for case in cases(arguments.links):
        if arguments.only not in case.name:
            continue
        took, worked = await timed(store, case, arguments.samples if case.has_bar else 20, cpu_ms)
        last = min(len(took) - 1, round(len(took) * 0.99))
        verdict = "" if not case.has_bar else "yes" if took[last] <= _BAR_MS else "**no**"
        figures = [statistics.median(took), took[last], statistics.median(worked), worked[last]]
        rows.append(f"| {name} | {case.name} | {' | '.join(f'{one:.1f}' for one in figures)} | {verdict} |")
        print(rows[-1], flush=True)
    return rows


async def run(arguments: argparse.Namespace, place: Path) -> list[str]:
    """Return the report as lines."""
    lines = [
        "# Listings",
        "",
        (
            f"`python -m bench.find --write`: {arguments.links:,} links in each store, pages of {_PAGE},"
            f" {arguments.samples} calls of each kind, in milliseconds; {platform.machine()},"
            f" Python {platform.python_version()}. The bar is a p99 of {_BAR_MS:.0f} ms."
        ),
        "",
        "| store | listing | p50 | p99 | p50 of processor time | p99 of it | within the bar |",
        "|---|---|---|---|---|---|---|",
    ]
    with ExitStack() as running:
        for name in arguments.store:
            url = f"sqlite:///{place}/links.db"
            if name == "postgresql":
                server = running.enter_context(PrivatePostgres(settings={"shared_buffers": "256MB"}))
                url = server.create_database(migrated=False)
            begin = time.monotonic()
            migrate(url)
            async with aclosing(await _open(url, place)) as store:
                if name == "postgresql" or not await store.count(LinkQuery(), now=NOW, limit_s=60):
                    print(f"{name}: filled in {await fill(store, arguments.links):.0f} s", flush=True)
                await settle(url)
                lines += await measure(store, name, url, arguments)
            print(f"{name}: {time.monotonic() - begin:.0f} s in all", flush=True)
    return lines


async def _open(url: str, place: Path) -> Store:
    if url.startswith("sqlite:"):
        return await SqliteStore.open(place / "links.db")
    return await PostgresStore.open(url, statement_timeout_s=60)


async def settle(url: str) -> None:
    """Do what autovacuum does within a minute."""
    if url.startswith("postgresql:"):
        import psycopg

        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute("VACUUM ANALYZE")


def main() -> None:
    """Measure what the arguments select."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--links", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument(
        "--store", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"]
    )
    parser.add_argument("--only", default="", help="a part of the names of listings")
    parser.add_argument(
        "--directory", type=Path, help="where the SQLite file is; one that is there is used again"
    )
    parser.add_argument("--write", action="store_true", help="write bench/FIND.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        lines = asyncio.run(run(arguments, arguments.directory or Path(temporary)))
    if arguments.write:
        REPORT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
