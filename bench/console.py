"""
Measures the console of a gateway with a million links: every view, over HTTP with a session.

    python -m bench.console                           # both arrangements, most of the time to fill them
    python -m bench.console --links 100000 --store embedded --samples 50
    python -m bench.console --write                   # writes bench/CONSOLE.md

Gateways are those of `bench.listings`. Beside the links there are 500 keys, 20 domains, and visits of one
link in each hour of 30 days, with 300 values. A view is one request on a connection that stays open, with
other values in each, one after the other; its time is that of the whole answer, seen by the client. The bar
is a p99 of 300 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import platform
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

from app.adapters.postgres.store import PostgresStore
from app.adapters.sketches import merge
from app.adapters.sqlite.store import SqliteStore
from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import Dimension, LinkVisits
from app.ports import LinkCondition, LinkQuery, LinkSort, Store
from app.service.find import SORTS
from app.web import cursors
from bench import find
from bench.listings import Client, Failed, Site, open_site
from bench.year import values

REPORT = Path(__file__).with_name("CONSOLE.md")
_BAR_MS = 300.0
_KEYS, _DOMAINS, _DAYS = 500, 20, 30
_Draw = Callable[[random.Random], str]


def views(count: int, slug: str, slugs: list[str]) -> Iterator[tuple[str, _Draw]]:
    """
    Yield the views over *count* links: a name, and what draws a path.

    Args:
        slug: of a link with visits in every hour.
        slugs: of some other links.
    """
    yield "overview", _fixed("")
    yield from _lists(count)
    for span in ("24h", "7d", "30d"):
        yield f"a busy link, {span}", _fixed(f"/link?slug={slug}&range={span}")
    for name, page in (("a link", "link"), ("QR code of a link", "link/qr"), ("edit a link", "link/edit")):
        yield name, _page_of(page, slugs)
    for name in ("links/new", "tags", "domains", "keys", "keys?all", "import", "health"):
        yield name, _fixed(f"/{name}")


def _lists(count: int) -> Iterator[tuple[str, _Draw]]:
    """Yield the views of the list of links."""
    drawn = find.filters(count)
    common, tag = _terms(drawn["common term"]), _tag(drawn["a tag of many links"])
    yield "links", _list()
    yield "links, deep page", _list(cursor=_position(count))
    yield "links: a tag of many links", _list(tag=tag)
    yield "links: a tag of few links", _list(tag=_tag(drawn["a tag of few links"]))
    yield "links: common term", _list(search=common)
    yield "links: rare term", _list(search=_terms(drawn["rare term"]))
    yield (
        "links: three letters",
        _list(search=lambda choose: choose.choice(("and", "ris", "lle", "ore", "tre"))),
    )
    yield "links: an absent term", _list(search=lambda choose: f"absent{choose.randrange(10**6)}")
    for state in LinkCondition:
        yield f"links: {state.value}", _list(state=_always(state.value))
    for sort in SORTS:
        by = _always(sort)
        yield f"links by {sort}", _list(sort=by)
        yield f"links by {sort}: common term", _list(sort=by, search=common)
        yield f"links by {sort}: a tag of many links", _list(sort=by, tag=tag)
        yield f"links by {sort}: live", _list(sort=by, state=_always("live"))


def _always(value: str) -> _Draw:
    return lambda _: value


def _fixed(path: str) -> _Draw:
    return _always(f"/console{path}")


def _page_of(page: str, slugs: list[str]) -> _Draw:
    return lambda choose: f"/console/{page}?slug={choose.choice(slugs)}"


def _list(**asked: _Draw) -> _Draw:
    def path(choose: random.Random) -> str:
        return f"/console/links?{urlencode({name: draw(choose) for name, draw in asked.items()})}"

    return path


def _tag(draw: Callable[[random.Random], LinkQuery]) -> _Draw:
    return lambda choose: draw(choose).tags_any[0]


def _terms(draw: Callable[[random.Random], LinkQuery]) -> _Draw:
    return lambda choose: " ".join(draw(choose).terms)


def _position(count: int) -> _Draw:
    def cursor(choose: random.Random) -> str:
        return cursors.of_links(LinkQuery(), find.somewhere(LinkSort.STORED, count, choose)) or ""

    return cursor


class Session:
    """One connection that stays open, signed in."""

    def __init__(self, site: Site) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", site.gateway.port, timeout=120)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request("POST", "/console/sign-in", urlencode({"key": site.key}), form)
        answer = self._connection.getresponse()
        answer.read()
        self._headers = {"Cookie": (answer.getheader("set-cookie") or "").partition(";")[0]}

    def get(self, path: str) -> int:
        """Return the length of a page, which must be there."""
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise Failed(f"{path}: {answer.status} {content[:300]!r}")
        return len(content)


def measure(site: Site, arguments: argparse.Namespace) -> list[str]:
    """Return the rows of a table."""
    client = Client(site)
    slugs = [one["slug"] for one in _get(client, "links?sort=-clicks&limit=50")["links"]]
    _add_others(client)
    asyncio.run(_visited(site, Slug(slugs[0])))
    session, rows = Session(site), []
    for name, draw in views(arguments.links, slugs[0], slugs[1:]):
        if arguments.only not in name:
            continue
        choose, took, length = random.Random(name), [], 0
        for _ in range(arguments.samples + 3):
            path = draw(choose)
            began = time.perf_counter()
            length = session.get(path)
            took.append((time.perf_counter() - began) * 1000)
        took = sorted(took[3:])
        last = took[min(len(took) - 1, round(len(took) * 0.99))]
        verdict = "yes" if last <= _BAR_MS else "**no**"
        size = f"{length / 1000:,.0f}"
        rows.append(
            f"| {site.name} | {name} | {statistics.median(took):.1f} | {last:.1f} | {size} | {verdict} |"
        )
        print(rows[-1], flush=True)
    return rows


def _get(client: Client, path: str) -> Mapping[str, list[dict[str, str]]]:
    found: Mapping[str, list[dict[str, str]]] = json.loads(client.request("GET", f"/api/v1/{path}"))
    return found


def _add_others(client: Client) -> None:
    """Make keys and domains."""
    for number in range(_KEYS):
        client.request(
            "POST",
            "/api/v1/keys",
            json.dumps({"name": f"key {number}", "scopes": ["links:read"]}).encode(),
            201,
        )
    for number in range(_DOMAINS):
        client.request("POST", "/api/v1/domains", json.dumps({"host": f"d{number}.example"}).encode(), 201)


async def _visited(site: Site, slug: Slug) -> None:
    """Add the visits of one link."""
    url = site.settings.get("HOPGATE_DATABASE_URL")
    store: Store
    if url is None:
        store = await SqliteStore.open(Path(site.settings["HOPGATE_DATA_DIR"]) / "hopgate.db")
    else:
        store = await PostgresStore.open(url, statement_timeout_s=60)
    counts: dict[Dimension, dict[str, int]] = {}
    for dimension, value, visits in values():
        counts.setdefault(Dimension(dimension), {})[value] = visits
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    async with aclosing(store):
        for hours in range(0, 24 * _DAYS, 24):
            described = [
                VisitsDescribed(
                    secrets.token_hex(16),
                    now - timedelta(hours=hours + n),
                    {slug: LinkVisits(counts, tuple(random.getrandbits(63) for _ in range(500)))},
                )
                for n in range(24)
            ]
            await store.add_visits(described, now=now, merge=merge)


def run(arguments: argparse.Namespace) -> str:
    """Return the report."""
    rows = []
    for name in arguments.store:
        with ExitStack() as running:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="hopgate-bench-")))
            rows += measure(open_site(name, running, folder, arguments.links), arguments)
    head = (
        f"`python -m bench.console --links {arguments.links}`: {arguments.links:,} links,"
        f" {arguments.samples} requests of each view; {platform.machine()}, {os.cpu_count()} processors,"
        f" Python {platform.python_version()}. Milliseconds; the bar is a p99 of {_BAR_MS:.0f} ms."
    )
    table = ["| gateway | view | p50 | p99 | KB | within the bar |", "|---|---|---|---|---|---|", *rows, ""]
    return "\n".join(["# The console of a gateway with many links", "", head, "", *table])


def main() -> None:
    """Measure what the arguments select."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--links", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument(
        "--store", nargs="+", choices=["postgresql", "embedded"], default=["postgresql", "embedded"]
    )
    parser.add_argument("--only", default="", help="a part of the names of views")
    parser.add_argument("--write", action="store_true", help="write bench/CONSOLE.md")
    arguments = parser.parse_args()
    report = run(arguments)
    if arguments.write:
        REPORT.write_text(report)


if __name__ == "__main__":
    main()
