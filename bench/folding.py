"""
Measures how many visits a worker adds to statistics in a second, and what a visit costs.

    python -m bench.folding                        # SQLite and PostgreSQL, all compositions, two minutes
    python -m bench.folding --store sqlite --only zipf

Messages are made as a gateway makes them (`VisitDescriber`), encoded, and handed to the worker's consumer in
groups, as a backlog in RabbitMQ is: so decoding and everything behind it is measured, RabbitMQ is not. A
composition says how many visits one flush of a gateway has, and of which links: `hot` has 1,000 of one link,
`hundred` two of each of 100 links, `zipf` 20,000 of 10,000 links by Zipf's law. Visits are of 300,000 people
in 400 cities by 60 referrers. The servers are private, with fsync; a processor's time is that of this process
and of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

from app.adapters.postgres.store import PostgresStore
from app.adapters.rabbitmq.bus import DESCRIPTIONS_AT_A_TIME
from app.adapters.sketches import merge
from app.adapters.sqlite.store import SqliteStore
from app.domain.link import Slug
from app.domain.visits import ALL_LINKS, Agent, Dimension, Look, Place
from app.migrations import migrate
from app.ports import Store
from app.service.visits import VisitDescriber, VisitorKeys
from app.wire import decode_event, encode_event
from tests.servers.postgres import PrivatePostgres
from worker.visits import VisitConsumer

_HOUR = datetime(2030, 1, 31, 12, tzinfo=UTC)
_PEOPLE, _CITIES, _REFERRERS = 300_000, 400, 60
_BROWSERS = ("Chrome", "Mobile Safari", "Chrome Mobile", "Firefox", "Edge", "Samsung Internet", "Opera")
_SYSTEMS = ("Windows", "iOS", "Android", "Mac OS X", "Linux")
_DEVICES = ("desktop", "phone", "tablet")
_LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "ja", "zh")


@dataclass(frozen=True, slots=True)
class Composition:
    """The visits of one flush: the numbers of their links, and how many flushes are measured."""

    name: str
    links: Callable[[random.Random], Sequence[int]]
    flushes: int


def _zipf(draw: random.Random) -> Sequence[int]:
    weights = [1 / (n + 1) for n in range(10_000)]
    return draw.choices(range(10_000), weights, k=20_000)


COMPOSITIONS = (
    Composition("hot", lambda _: [0] * 1000, 400),
    Composition("hundred", lambda _: list(range(100)) * 2, 400),
    Composition("zipf", _zipf, 10),
)


class _NoKeys:
    async def visitor_key(self, day: date, proposed: bytes) -> bytes:
        return proposed

    async def forget_visitor_keys(self, *, before: date) -> None:
        return


class _Agents:
    def agent(self, user_agent: str) -> Agent:
        browser, os, device = user_agent.split("/")
        return Agent(bot=browser) if device == "bot" else Agent(browser, os, device)


class _Places:
    def place(self, client: str) -> Place:
        city = hash(client) % _CITIES
        city = city * city // _CITIES
        return Place(f"C{city % 40}", f"City {city}")


def _look(draw: random.Random, link: int) -> Look:
    person = draw.randrange(_PEOPLE)
    about = random.Random(person)
    agent = "/".join(_skewed(about, of) for of in (_BROWSERS, _SYSTEMS, _DEVICES))
    if about.random() < 0.1:
        agent = f"{'Googlebot' if person % 2 else 'curl'}/-/bot"
    return Look(
        slug=Slug(f"link{link}"),
        referrer=f"r{int(_REFERRERS * draw.random() ** 3)}.example",
        language=_skewed(about, _LANGUAGES),
        client=f"10.{person >> 16}.{person >> 8 & 255}.{person & 255}",
        user_agent=agent,
    )


def _skewed(draw: random.Random, values: Sequence[str]) -> str:
    return values[int(len(values) * draw.random() ** 2)]


async def messages_of(composition: Composition) -> tuple[list[bytes], int]:
    """Return the messages that carry the visits of *composition*, and how many visits these are."""
    draw = random.Random(0)
    ids = count()
    taken: list[tuple[Look, int]] = []
    describer = VisitDescriber(
        lambda: taken,
        VisitorKeys(_NoKeys(), random=lambda n: b"k" * n),
        _Agents(),
        _Places(),
        honours_objections=False,
        monotonic=lambda: 0.0,
        new_id=lambda: f"{next(ids):032x}",
    )
    messages = list[bytes]()
    visits = 0
    for _ in range(composition.flushes):
        links = composition.links(draw)
        visits += len(links)
        taken = list(Counter(_look(draw, link) for link in links).items())
        describer.cut(_HOUR)
        messages += [encode_event(event) for event in await describer.take()]
    assert not describer.dropped
    return messages, visits


@dataclass(frozen=True, slots=True)
class Opened:
    """An empty store, and the seconds of a processor that its server has used."""

    store: Store
    server_cpu_s: Callable[[], float]


@asynccontextmanager
async def _sqlite() -> AsyncIterator[Opened]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "links.db"
        migrate(f"sqlite:///{path}")
        store = await SqliteStore.open(path)
        yield Opened(store, lambda: 0.0)
        await store.aclose()


@asynccontextmanager
async def _postgres() -> AsyncIterator[Opened]:
    settings = {"shared_buffers": "256MB", "max_wal_size": "2GB"}
    with PrivatePostgres(settings=settings) as server:
        store = await PostgresStore.open(server.create_database())
        yield Opened(store, lambda: cpu_s(server.directory / "data"))
        await store.aclose()


_STORES = {"sqlite": _sqlite, "postgres": _postgres}


def cpu_s(data: Path) -> float:
    """Return the seconds that the processes of the server at *data* have used, those that ended as well."""
    root = int((data / "postmaster.pid").read_text().split()[0])
    return (
        sum(
            sum(map(int, stat[11:15])) if pid == root else sum(map(int, stat[11:13]))
            for pid, stat in _processes()
            if root in (pid, int(stat[1]))
        )
        / 100
    )


def _processes() -> Iterator[tuple[int, list[str]]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        yield int(path.parent.name), text.rpartition(")")[2].split()


async def fold(opened: Opened, messages: Sequence[bytes], visits: int) -> str:
    """Add *messages* as a worker does; return the figures."""
    consumer = VisitConsumer(opened.store, merge, clock=lambda: _HOUR)
    server, own, began = opened.server_cpu_s(), time.process_time(), time.monotonic()
    longest_s = 0.0
    for start in range(0, len(messages), DESCRIPTIONS_AT_A_TIME):
        group = messages[start : start + DESCRIPTIONS_AT_A_TIME]
        group_began = time.monotonic()
        stale = await consumer.handle([decode_event(body) for body in group])
        assert stale == 0
        longest_s = max(longest_s, time.monotonic() - group_began)
    took_s = time.monotonic() - began
    own_us = (time.process_time() - own) / visits * 1e6
    server_us = (opened.server_cpu_s() - server) / visits * 1e6
    day = timedelta(days=1)
    values = await opened.store.visit_values(ALL_LINKS, since=_HOUR - day, until=_HOUR + day, limit=10)
    counted = sum(one.visits for one in values if one.dimension is Dimension.KIND)
    assert counted == visits, (counted, visits)
    return (
        f"{visits / took_s:>9,.0f} visits/s, {own_us:>5.1f} us of the worker, {server_us:>5.1f} of the server"
        f"; longest group {longest_s:.2f} s"
    )


async def main() -> None:
    """Measure what the arguments select."""
    options = argparse.ArgumentParser(prog="bench.folding")
    options.add_argument("--store", choices=_STORES, action="append")
    options.add_argument("--only", choices=[one.name for one in COMPOSITIONS], action="append")
    asked = options.parse_args()
    for composition in COMPOSITIONS:
        if asked.only and composition.name not in asked.only:
            continue
        messages, visits = await messages_of(composition)
        for name in asked.store or _STORES:
            async with _STORES[name]() as opened:
                figures = await fold(opened, messages, visits)
            print(f"{composition.name:<8} {name:<9} {len(messages):>4} messages {figures}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
