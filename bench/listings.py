"""
Measures a gateway with a million links over HTTP: listings, batches of new links, and exports.

    python -m bench.listings                          # both arrangements, about half an hour
    python -m bench.listings --links 100000 --store embedded --samples 50
    python -m bench.listings --write                  # writes bench/LISTINGS.md

Each gateway is `hopgate serve` with one process: `embedded` alone, `postgresql` with Redis, RabbitMQ and a
worker. A listing is one request on a connection that stays open, for a page of 50, with other values in each.
Batches have 5,000 links. Memory is the largest that the kernel has seen (VmHWM, ru_maxrss).
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode

from app.adapters.postgres.store import PostgresStore
from app.adapters.sqlite.store import SqliteStore
from app.ports import LinkQuery, LinkSort, Store
from app.web import cursors
from bench import find
from tests.servers.hopgate import UNLIMITED, Gateway, Worker, command, environment, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

REPORT = Path(__file__).with_name("LISTINGS.md")
_BAR_MS = 50.0
_LEAST_A_SECOND = {"postgresql": 10_000, "embedded": 5_000}
_BATCH, _PAGE = 5_000, 50
_PATH = "/api/v1"
# The orders are measured for these filters.
_SORTED = ("no filter", "a tag of many links", "common term", "rare term")
_DEEP = ("no filter", "a tag of many links", "common term")
_COUNTED = ("no filter", "a tag of many links", "a host of few links", "live", "rare term")
_Draw = Callable[[random.Random], str]


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of request; *path* draws one."""

    name: str
    path: _Draw
    has_bar: bool = True


@dataclass(frozen=True, slots=True)
class Site:
    """A gateway that serves a filled store, its key and its settings."""

    name: str
    gateway: Gateway
    key: str
    settings: dict[str, str]


def cases(count: int) -> Iterator[Case]:
    """Yield what is measured over *count* links."""
    filters = find.filters(count)

    def listing(
        draw: Callable[[random.Random], LinkQuery], *, deep: bool = False, counted: bool = False
    ) -> _Draw:
        def path(choose: random.Random) -> str:
            query = draw(choose)
            asked = [*parameters(query), ("limit", str(_PAGE))]
            if deep:
                position = find.somewhere(query.sort, count, choose)
                asked.append(("cursor", cursors.of_links(query, position) or ""))
            return f"{_PATH}/links?{urlencode([*asked, *([('count', 'true')] if counted else [])])}"

        return path

    for name, draw in filters.items():
        yield Case(name, listing(draw))
    for name in _DEEP:
        yield Case(f"{name}, deep page", listing(filters[name], deep=True))
    for sort, down in itertools.product(list(LinkSort)[1:], (True, False)):
        by = f"by {sort.value}{', descending' if down else ''}"
        for name in _SORTED:
            yield Case(f"{by}: {name}", listing(_in_order(filters[name], sort, descending=down)))
        for name in ("no filter", "common term"):
            drawn = _in_order(filters[name], sort, descending=down)
            yield Case(f"{by}: {name}, deep page", listing(drawn, deep=True))
    for name in _COUNTED:
        yield Case(f"{name}, with its count", listing(filters[name], counted=True), has_bar=False)
    yield Case("tags with counts", lambda _: f"{_PATH}/tags", has_bar=False)


def _in_order(
    draw: Callable[[random.Random], LinkQuery], sort: LinkSort, *, descending: bool
) -> Callable[[random.Random], LinkQuery]:
    return lambda choose: replace(draw(choose), sort=sort, descending=descending)


def parameters(query: LinkQuery) -> list[tuple[str, str]]:
    """Return the parameters of a request for *query*."""
    asked = [("tag", tag) for tag in query.tags_any]
    asked += [("tags_all", tag) for tag in query.tags_all]
    asked += [("tags_none", tag) for tag in query.tags_none]
    asked += [("state", condition.value) for condition in query.conditions]
    texts = {"search": " ".join(query.terms), "host": query.host, "long_url": query.long_url}
    asked += [(name, text) for name, text in texts.items() if text]
    for name in ("created", "updated", "expires"):
        period = getattr(query, name)
        bounds = {f"{name}_since": period.since, f"{name}_until": period.until}
        asked += [(bound, moment.isoformat()) for bound, moment in bounds.items() if moment is not None]
    if query.sort is not LinkSort.STORED:
        asked.append(("sort", f"{'-' if query.descending else ''}{query.sort.value}"))
    return asked


class Failed(Exception):
    """An answer that was not what was asked for; the message says which."""


class Client:
    """One connection that stays open."""

    def __init__(self, site: Site) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", site.gateway.port, timeout=120)
        self._headers = {"Authorization": f"Bearer {site.key}"}

    def request(self, method: str, path: str, body: bytes | None = None, wanted: int = 200) -> bytes:
        """Return the body of the answer, whose status must be *wanted*."""
        headers = {**self._headers, **({"Content-Type": "application/json"} if body else {})}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != wanted:
            raise Failed(f"{method} {path}: {answer.status} {content[:300]!r}")
        return content


def measure_listings(site: Site, arguments: argparse.Namespace) -> list[str]:
    """Return the rows of a table."""
    rows, client = [], Client(site)
    for case in cases(arguments.links):
        if arguments.only not in case.name:
            continue
        samples = arguments.samples if case.has_bar else min(20, arguments.samples)
        try:
            took = _timed(client, case, samples)
        except Failed as error:
            print(error, flush=True)
            rows.append(f"| {site.name} | {case.name} | | | **failed** |")
            continue
        last = took[min(len(took) - 1, round(len(took) * 0.99))]
        verdict = "" if not case.has_bar else "yes" if last <= _BAR_MS else "**no**"
        rows.append(f"| {site.name} | {case.name} | {statistics.median(took):.1f} | {last:.1f} | {verdict} |")
        print(rows[-1], flush=True)
    return rows


def _timed(client: Client, case: Case, samples: int) -> list[float]:
    """Return the times of *samples* requests in ms, sorted; five more come first."""
    choose, took = random.Random(case.name), []
    for _ in range(samples + 5):
        path = case.path(choose)
        began = time.perf_counter()
        client.request("GET", path)
        took.append((time.perf_counter() - began) * 1000)
    return sorted(took[5:])


def measure_batches(site: Site, batches: int) -> list[str]:
    """Make links by one connection, then by four; return the rows of a table."""
    rows = []
    for connections in (1, 4):
        bodies = [_body(f"{connections}-{number}") for number in range(batches)]
        clients = [Client(site) for _ in range(connections)]
        began = time.monotonic()
        with ThreadPoolExecutor(connections) as pool:
            work = [
                pool.submit(_send_all, client, bodies[number::connections])
                for number, client in enumerate(clients)
            ]
        failures = [str(error) for one in work if (error := one.exception()) is not None]
        if failures:
            print(failures[0], flush=True)
            rows.append(f"| {site.name} | {connections} | | | **failed** |")
            continue
        a_second = batches * _BATCH / (time.monotonic() - began)
        least = _LEAST_A_SECOND[site.name]
        verdict = "yes" if a_second >= least else "**no**"
        rows.append(f"| {site.name} | {connections} | {a_second:,.0f} | {least:,} | {verdict} |")
        print(rows[-1], flush=True)
    return rows


def _send_all(client: Client, bodies: list[bytes]) -> None:
    for body in bodies:
        results = client.request("POST", f"{_PATH}/links/bulk", body)
        if results.count(b'"status":201') != _BATCH:
            raise Failed(f"links were refused: {results[:300]!r}")


def _body(name: str) -> bytes:
    links = [
        {
            "long_url": f"https://bulk.example/{name}/{number}?utm_source=mail",
            "title": f"Bulk {number}",
            "tags": ["bulk"],
        }
        for number in range(_BATCH)
    ]
    return json.dumps({"links": links}).encode()


def measure_exports(site: Site, folder: Path) -> list[str]:
    """Export by HTTP, then on the command line; return the rows of a table."""
    before = _peak_mb(site.gateway)
    began, links, content = time.monotonic(), 0, 0
    connection = http.client.HTTPConnection("127.0.0.1", site.gateway.port, timeout=120)
    connection.request("GET", f"{_PATH}/export", headers={"Authorization": f"Bearer {site.key}"})
    answer = connection.getresponse()
    while part := answer.read(1 << 20):
        links, content = links + part.count(b"\n"), content + len(part)
    http_s = time.monotonic() - began
    after = _peak_mb(site.gateway)
    exporting = subprocess.Popen(
        command("links", "export", "--output", str(folder / "links.jsonl")),
        env=environment(site.settings),
        stderr=subprocess.DEVNULL,
    )
    began = time.monotonic()
    _, status, usage = os.wait4(exporting.pid, 0)
    exporting.returncode = os.waitstatus_to_exitcode(status)
    if exporting.returncode:
        raise SystemExit(f"hopgate links export ended with {exporting.returncode}")
    cli_s = time.monotonic() - began
    size = f"{links:,} | {content / 1e6:,.0f}"
    peak_mb = usage.ru_maxrss / 1024
    rows = [
        f"| {site.name} | HTTP | {size} | {http_s:.1f} | {before:.0f} → {after:.0f} |",
        f"| {site.name} | `hopgate links export` | {size} | {cli_s:.1f} | {peak_mb:.0f} |",
    ]
    print("\n".join(rows), flush=True)
    return rows


def _peak_mb(gateway: Gateway) -> float:
    """Return the largest memory of each process of *gateway* so far, added up."""
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    peaks = 0
    for pid in (str(gateway.pid), *children):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peaks += int(line.split()[1])
    return peaks / 1024


async def _filled(settings: dict[str, str], count: int) -> None:
    """Store *count* links, and do what autovacuum does within a minute."""
    url = settings.get("HOPGATE_DATABASE_URL")
    store: Store
    if url is None:
        store = await SqliteStore.open(Path(settings["HOPGATE_DATA_DIR"]) / "hopgate.db")
    else:
        store = await PostgresStore.open(url, statement_timeout_s=60)
    async with aclosing(store):
        print(f"filled in {await find.fill(store, count):.0f} s", flush=True)
    if url is not None:
        await find.settle(url)


def open_site(name: str, running: ExitStack, folder: Path, count: int) -> Site:
    """Start a gateway with *count* links, and what it needs."""
    if name == "embedded":
        settings = {
            "HOPGATE_DATA_DIR": str(folder / "data"),
            "HOPGATE_BASE_URL": "http://hop.example",
            **UNLIMITED,
        }
    else:
        postgres = running.enter_context(PrivatePostgres(fsync=True, settings={"shared_buffers": "256MB"}))
        redis = running.enter_context(PrivateRedis())
        rabbitmq = running.enter_context(PrivateRabbit())
        settings = stack_settings(postgres, redis, rabbitmq)
    key = make_key(settings)
    asyncio.run(_filled(settings, count))
    if name == "postgresql":
        running.enter_context(Worker(settings, folder))
    gateway = running.enter_context(Gateway(settings, folder, command("serve")))
    return Site(name, gateway, key, settings)


def run(arguments: argparse.Namespace) -> str:
    """Return the report."""
    listings, batches, exports = [], [], []
    for name in arguments.store:
        with ExitStack() as running:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="hopgate-bench-")))
            site = open_site(name, running, folder, arguments.links)
            listings += measure_listings(site, arguments)
            batches += measure_batches(site, arguments.batches)
            exports += measure_exports(site, folder)
    head = (
        f"`python -m bench.listings --links {arguments.links}`: {arguments.links:,} links,"
        f" {arguments.samples} requests of each kind; {platform.machine()}, {os.cpu_count()} processors,"
        f" Python {platform.python_version()}."
    )
    return "\n".join(
        [
            *("# A gateway with many links", "", head, ""),
            *("## Listings over HTTP", "", f"Milliseconds; the bar is a p99 of {_BAR_MS:.0f} ms.", ""),
            *("| gateway | listing | p50 | p99 | within the bar |", "|---|---|---|---|---|", *listings, ""),
            *("## New links by batches", "", f"{arguments.batches} batches of {_BATCH:,} in each row.", ""),
            *("| gateway | connections | links/s | bar | met |", "|---|---|---|---|---|", *batches, ""),
            *(
                "## Exports",
                "",
                "Memory of the gateway's processes before → after, of the command at its peak.",
                "",
            ),
            "| gateway | export | links | MB | seconds | peak memory, MB |",
            *("|---|---|---|---|---|---|", *exports, ""),
        ]
    )


def main() -> None:
    """Measure what the arguments select."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--links", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--store", nargs="+", choices=list(_LEAST_A_SECOND), default=list(_LEAST_A_SECOND))
    parser.add_argument("--only", default="", help="a part of the names of listings")
    parser.add_argument("--write", action="store_true", help="write bench/LISTINGS.md")
    arguments = parser.parse_args()
    report = run(arguments)
    if arguments.write:
        REPORT.write_text(report)


if __name__ == "__main__":
    main()
