"""
Checks a large import on the full stack, and measures how soon an edit is visible.

Usage: python -m bench.stack [--urls FILE] [--edits N]

Starts private PostgreSQL, Redis and RabbitMQ, two gateways and a worker. After the import, every
accepted line must redirect to its canonical target byte for byte through both gateways, every
cached version must equal the stored one, and outbox and queues must be empty. Each edit is sent to
one gateway, and the other is requested without pause until it returns the new target; the other has
the link in its L1 cache at that time, which is the worst case.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from app.adapters.postgres.store import PostgresStore
from app.adapters.rabbitmq.bus import RabbitBus
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.domain.target import canonical
from app.wire import cache_key, decode_resolution
from tests.servers.hopgate import Gateway, Worker, hopgate, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

_URLS = Path(__file__).parents[1] / "tests" / "data" / "urls.txt"


def _print(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--urls", type=Path, default=_URLS)
    parser.add_argument("--edits", type=int, default=500)
    arguments = parser.parse_args()
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="hopgate-bench-")))
        postgres = running.enter_context(PrivatePostgres(fsync=True))
        redis = running.enter_context(PrivateRedis())
        rabbitmq = running.enter_context(PrivateRabbit())
        settings = stack_settings(postgres, redis, rabbitmq)
        gateways = [running.enter_context(Gateway(settings, folder)) for _ in range(2)]
        running.enter_context(Worker(settings, folder))
        key = make_key(settings)
        run_import(settings, gateways, redis, arguments.urls, folder)
        run_edits(gateways, key, arguments.edits)


def run_import(
    settings: dict[str, str], gateways: Sequence[Gateway], redis: PrivateRedis, urls: Path, folder: Path
) -> None:
    """Import *urls*, wait until outbox and queues are empty, and compare the results."""
    output = folder / "links.csv"
    started = time.monotonic()
    options = ("--output", str(output), "--allow-refused")
    done = hopgate(settings, "links", "import", str(urls), *options, timeout=900)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    imported_s = time.monotonic() - started
    asyncio.run(_drained(settings))
    drained_s = time.monotonic() - started
    rows = list(csv.DictReader(output.read_text().splitlines()))
    lines = urls.read_text().splitlines()
    wrong = _wrong_redirects(gateways, rows, lines)
    stale = asyncio.run(_stale(settings, redis, [row["slug"] for row in rows]))
    _print(f"lines {len(lines)}, links {len(rows)}, refused {len(lines) - len(rows)}")
    imported = f"{len(rows) / imported_s:,.0f} links/s"
    _print(f"import {imported}, all cached after {drained_s / imported_s:.1f}× the time of the import")
    _print(f"redirects checked {len(rows) * len(gateways)}, different: {len(wrong)} {wrong[:3]}")
    _print(f"cached entries unlike the stored: {len(stale)}, of them missing: {stale.count(None)}")
    _print(f"left in outbox, queues, dead letters: {asyncio.run(_waiting(settings))}")


def run_edits(gateways: Sequence[Gateway], key: str, edits: int) -> None:
    """Edit on one gateway, and request from the other until it returns the new target."""
    one, other = (http.client.HTTPConnection("127.0.0.1", gateway.port) for gateway in gateways)
    slug = _api(one, key, "POST", "/api/v1/links", {"long_url": "https://example.com/0"})["slug"]
    after_answer_ms, after_sending_ms = [], []
    for number in range(1, edits + 1):
        target = f"https://example.com/{number}"
        _location(other, slug)
        sent = time.monotonic()
        _api(one, key, "PATCH", f"/api/v1/links/{slug}", {"long_url": target})
        acknowledged = time.monotonic()
        while _location(other, slug) != target:
            pass
        seen = time.monotonic()
        after_answer_ms.append((seen - acknowledged) * 1000)
        after_sending_ms.append((seen - sent) * 1000)
    for name, values in (("acknowledged", after_answer_ms), ("sent", after_sending_ms)):
        cuts = statistics.quantiles(values, n=100)
        figures = f"p50 {cuts[49]:.1f}, p99 {cuts[98]:.1f}, max {max(values):.1f}"
        _print(f"{edits} edits, ms from {name} to visible: {figures}")


def _wrong_redirects(
    gateways: Sequence[Gateway], rows: Sequence[dict[str, str]], lines: Sequence[str]
) -> list[tuple[str, str | None]]:
    wrong = []
    for gateway in gateways:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
        for row in rows:
            location = _location(connection, row["slug"])
            if location != canonical(lines[int(row["line"]) - 1], own_hosts=()):
                wrong.append((row["line"], location))
    return wrong


def _location(connection: http.client.HTTPConnection, slug: str) -> str | None:
    connection.request("GET", f"/{slug}")
    answer = connection.getresponse()
    answer.read()
    return answer.getheader("location") if answer.status == 302 else None


def _api(
    connection: http.client.HTTPConnection, key: str, method: str, path: str, body: object
) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body), headers)
    answer = connection.getresponse()
    document: dict[str, str] = json.loads(answer.read())
    if answer.status >= 400:
        raise SystemExit(f"{method} {path}: {answer.status} {document}")
    return document


async def _waiting(settings: dict[str, str]) -> int:
    store = await PostgresStore.open(settings["HOPGATE_DATABASE_URL"])
    bus = RabbitBus(settings["HOPGATE_AMQP_URL"])
    bus.start()
    try:
        while True:
            try:
                return (await store.outbox_depth()).rows + sum((await bus.depths()).values())
            except Unavailable:  # not connected yet
                await asyncio.sleep(0.05)
    finally:
        await bus.aclose()
        await store.aclose()


async def _drained(settings: dict[str, str]) -> None:
    while await _waiting(settings):  # noqa: ASYNC110 - another process drains
        await asyncio.sleep(0.2)


async def _stale(
    settings: dict[str, str], redis: PrivateRedis, slugs: Sequence[str]
) -> list[Resolution | None]:
    """Return the cached entries of *slugs* that differ from the stored state; None for a missing one."""
    store = await PostgresStore.open(settings["HOPGATE_DATABASE_URL"])
    stale = []
    try:
        for start in range(0, len(slugs), 1000):
            links = await store.get_many([Slug(slug) for slug in slugs[start : start + 1000]])
            for slug, link in links.items():
                value = redis.command("GET", cache_key(slug))
                held = decode_resolution(slug, value) if isinstance(value, bytes) else None
                if held != Resolution.of(link):
                    stale.append(held)
    finally:
        await store.aclose()
    return stale


if __name__ == "__main__":
    main()
