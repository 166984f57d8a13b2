"""Statistics through outages: every visit is described once, exactly, and no address is kept anywhere."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.integration import address_traces
from tests.integration.synthetic_visits import (
    BASE,
    OTHER_HOST,
    PROGRAMS,
    TAGS,
    Composition,
    LinkToVisit,
    address_of,
    check,
    same_address,
    write_places,
)
from tests.servers.hopgate import Gateway, Worker, eventually, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

LINKS = 10
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
# Of the requests on one connection, as each of the links may be late for a few of them.
MOST_LATE = 20
# Requests on one connection, and those that one gateway gets in turn.
AT_ONCE, IN_TURN = 100, 5_000
# The visits come in so many parts; something is done before some of them.
PARTS = 20
# People with many visits, of IPv4 and of IPv6: each of them is in every part.
CANARIES = [address_of(same_address(person)) for person in (0, 2, 4, 6, 8)]
# Five and a half standard errors: a part may be off by more than the whole, as there are many of them.
WITHIN, PART_WITHIN = 0.02, 0.035


@dataclass(frozen=True)
class World:
    folder: Path
    settings: dict[str, str]
    postgres: PrivatePostgres
    redis: PrivateRedis
    rabbitmq: PrivateRabbit
    gateways: tuple[Gateway, Gateway]
    worker: Worker
    api: httpx.Client

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.api.post(f"/api/v1/{path}", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def stats(self, path: str, **query: str) -> Any:
        answer = self.api.get(f"/api/v1/{path}", params={"top": "250", **query})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def of_link(self, link: LinkToVisit) -> Any:
        return self.stats(f"links/{link.slug}/stats", domain=link.host)

    def lost(self) -> int:
        """How many visits the gateways could not describe, or not count, since they started."""
        return sum(counters(gateway, "visits_undescribed", "clicks_dropped") for gateway in self.gateways)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as running:
        postgres = running.enter_context(PrivatePostgres())
        redis, rabbitmq = running.enter_context(PrivateRedis()), running.enter_context(PrivateRabbit())
        write_places(tmp_path / "places.mmdb")
        settings = {
            **stack_settings(postgres, redis, rabbitmq),
            "HOPGATE_TRUSTED_PROXIES": "127.0.0.1/32",
            "HOPGATE_GEO_FILE": str(tmp_path / "places.mmdb"),
        }
        fix_visitor_keys(settings["HOPGATE_DATABASE_URL"])
        gateways = [running.enter_context(Gateway(settings, tmp_path)) for _ in range(2)]
        worker = running.enter_context(Worker(settings, tmp_path))
        headers = {"Authorization": f"Bearer {make_key(settings)}"}
        api = running.enter_context(httpx.Client(base_url=gateways[0].url, headers=headers, timeout=20))

        def all_well() -> bool:
            return set(api.get("/readyz").json()["dependencies"].values()) == {"ok"}

        eventually(all_well, 30, "everything is connected")
        yield World(tmp_path, settings, postgres, redis, rabbitmq, (gateways[0], gateways[1]), worker, api)


def fix_visitor_keys(url: str) -> None:
    """Fix the keys of today and tomorrow, so that each run has the same hashes and about the same figures."""
    today = datetime.now(UTC).date()
    with psycopg.connect(url) as connection:
        for day in (today, today + timedelta(days=1)):
            connection.execute("INSERT INTO visitor_keys (day, key) VALUES (%s, %s)", (day, b"k" * 32))


def new_links(world: World) -> list[LinkToVisit]:
    """Make links of two domains, with both tags, one or none."""
    world.post("domains", {"host": OTHER_HOST})
    links = []
    for number in range(LINKS):
        host = OTHER_HOST if number % 3 == 1 else BASE
        tags = [tag for bit, tag in enumerate(TAGS) if number >> bit & 1]
        made = world.post("links", {"long_url": "https://example.com/", "domain": host, "tags": tags})
        links.append(LinkToVisit(made["slug"], host, tags))
    for gateway in world.gateways:
        for link in links:
            headers = {"Host": link.host}
            eventually(
                lambda url=f"{gateway.url}/{link.slug}+", headers=headers: (
                    httpx.get(url, headers=headers).status_code == 200
                ),
                10,
                "the gateway knows the domain",
            )
    return links


def make(gateway: Gateway, requests: Iterator[bytes]) -> None:
    """
    Make the visits of *requests*; each is redirected.

    One refused with 503 is no visit, and is made again: a gateway that has just started on a busy machine may
    be late with its look-ups.
    """
    while part := list(islice(requests, AT_ONCE)):
        for _ in range(3):
            statuses = statuses_of(gateway, part)
            assert set(statuses) <= {302, 503}, Counter(statuses)
            assert statuses.count(503) <= MOST_LATE, Counter(statuses)
            part = [request for request, status in zip(part, statuses, strict=True) if status == 503]
            if not part:
                break
        assert part == []


def statuses_of(gateway: Gateway, requests: Sequence[bytes]) -> list[int]:
    """Make *requests* by one connection and return the status of each answer."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(b"".join(requests))
        received = b""
        while len(statuses := STATUS.findall(received)) < len(requests):
            chunk = connection.recv(1 << 16)
            assert chunk, received[-500:]
            received += chunk
    return [int(status) for status in statuses]


def miss(gateway: Gateway, slug: str, times: int) -> None:
    """Ask for *slug*, which is no link."""
    headers = {"Host": BASE, "User-Agent": PROGRAMS[0][0]}
    for _ in range(times):
        assert httpx.get(f"{gateway.url}/{slug}", headers=headers, timeout=20).status_code == 404


def counters(gateway: Gateway, *names: str) -> int:
    """Return the sum of counters of *gateway*."""
    lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
    values = dict(line.split(" ")[:2] for line in lines if line.startswith("hopgate_") and "{" not in line)
    return sum(round(float(values[f"hopgate_{name}_total"])) for name in names)


def make_in_turn(gateways: Sequence[Gateway], requests: Iterator[bytes], visits: int) -> None:
    """Make *visits* at *gateways* in turn: none gets more than it can note until it has passed them on."""
    due: dict[Gateway, int] = {}
    for number, start in enumerate(range(0, visits, IN_TURN)):
        gateway = gateways[number % len(gateways)]
        share = min(IN_TURN, visits - start)
        if visits > len(gateways) * IN_TURN:
            if gateway in due:
                eventually(lambda at=gateway: passed_on(at) >= due[at], 60, "clicks are passed on")
            due[gateway] = passed_on(gateway) + share
        make(gateway, islice(requests, share))


def passed_on(gateway: Gateway) -> int:
    """Return how many clicks *gateway* passed on, with what their visits look like; by its disk, twice."""
    return counters(gateway, "clicks_published", "clicks_spilled")


def visit_through_outages(
    world: World, requests: Iterator[bytes], visits: int, restarts: Sequence[int]
) -> None:
    """
    Make *visits* while workers are killed, the broker is, and a gateway is stopped.

    Args:
        restarts: the parts before which the worker is killed and started again.
    """
    one, other = world.gateways

    def restart_worker() -> None:
        world.worker.kill()
        world.worker.start()

    def kill_broker() -> None:
        # Without a worker, descriptions stay on the broker's disk.
        broker = [world.rabbitmq.directory]
        eventually(
            lambda: b"r3.example" in address_traces.files(broker), 20, "the broker has some", every=0.2
        )
        world.rabbitmq.kill()
        assert address_traces.found(CANARIES, address_traces.files(broker)) == []

    def start_broker() -> None:
        spools = [world.folder / f"data-{gateway.port}" for gateway in world.gateways]
        eventually(lambda: b"r3.example" in address_traces.files(spools), 20, "descriptions are on disk")
        assert address_traces.found(CANARIES, address_traces.files(spools)) == []
        world.rabbitmq.start()
        world.worker.start()

    def restart_gateway() -> None:
        other.stop()
        other.start()

    before = {
        5: world.worker.kill,
        6: kill_broker,
        7: lambda: miss(one, "slae", 3),
        9: start_broker,
        10: lambda: miss(one, "slae", 2),
        15: lambda: miss(other, "sael", 4),
        16: restart_gateway,
        **dict.fromkeys(restarts, restart_worker),
    }
    for part in range(PARTS):
        before.get(part, lambda: None)()
        share = visits // PARTS
        make_in_turn((one, other) if part % 2 else (other, one), requests, share)


@pytest.mark.parametrize("address", CANARIES)
def test_traces_of_addresses_are_found(address):
    """The search below would find an address where it is kept, in each form."""
    for name, text, is_short in address_traces.forms(address):
        kept = b"\x00before" + text + b"after\x00"

        assert is_short or address_traces.found(CANARIES, kept), name
    for name in ("packed", "packed, in hex", "number"):
        every = [
            text
            for one in CANARIES
            for form, text, is_short in address_traces.forms(one)
            if form == name and is_short
        ]
        assert address_traces.found(CANARIES, b",".join(every)) == [name]
        assert address_traces.found(CANARIES, b",".join(every[1:])) == []
    assert address_traces.found(CANARIES, b"".join(bytes([n]) * 9 for n in range(256))) == []


@pytest.mark.services
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("visits", "people", "restarts"),
    [
        pytest.param(20_000, 6_000, (12, 14), id="twenty thousand"),
        pytest.param(
            *(1_000_000, 100_000, (2, 3, 11, 12, 13, 14, 18, 19)), id="a million", marks=pytest.mark.long
        ),
    ],
)
def test_every_visit_is_described_through_outages(world, visits, people, restarts):
    links = new_links(world)
    composition = Composition(links, people)
    began = datetime.now(UTC)

    visit_through_outages(world, composition.requests(visits), visits, restarts)

    def is_drained() -> bool:
        # Of the two queues, either may be the first to be empty.
        of_all = world.stats("stats")
        if of_all["missed"] < 9:
            return False
        shown = of_all["visits"]
        described = sum(shown[kind] for kind in ("people", "bots", "previews", "prefetches"))
        return described >= visits and sum(world.of_link(link)["total"] for link in links) >= visits

    try:
        eventually(is_drained, 120, "all visits are counted and described", every=0.5)
    finally:
        assert world.lost() == 0
    check_traces(world, with_files=visits > 100_000)
    now = datetime.now(UTC)
    hours = 1 + int(now.timestamp()) // 3600 - int(began.timestamp()) // 3600
    lie = {"days": 1 + (now.date() - began.date()).days, "hours": hours}
    of_all = world.stats("stats")
    check(of_all["visits"], composition.told(), **lie, within=WITHIN)
    assert of_all["missed"] == 9
    assert of_all["missing"] == [{"value": "slae", "visits": 5}, {"value": "sael", "visits": 4}]
    for host in (BASE, OTHER_HOST):
        shown = world.stats("stats", domain=host)["visits"]
        check(shown, composition.told(host=host), **lie, within=PART_WITHIN)
    for tag in TAGS:
        check(world.stats("stats", tag=tag)["visits"], composition.told(tag=tag), **lie, within=PART_WITHIN)
    for number, link in enumerate(links):
        shown, told = world.of_link(link), composition.by_link[number]
        assert shown["total"] == told.visits == sum(hour["clicks"] for hour in shown["hours"])
        check(shown["visits"], told, **lie, within=PART_WITHIN)


def check_traces(world: World, *, with_files: bool) -> None:
    """Check that no server keeps an address, or what one can be had from."""
    url = world.settings["HOPGATE_DATABASE_URL"]
    rows = address_traces.database(url)
    assert b"r3.example" in rows
    assert address_traces.found(CANARIES, rows) == []
    if with_files:
        kept = address_traces.database_files(world.postgres, url)
        assert b"r3.example" in kept
        assert address_traces.found(CANARIES, kept) == []
    logs = address_traces.files([world.folder], without=[".mmdb"])
    assert b"worker" in logs
    assert address_traces.found(CANARIES, logs) == []

    def cache_has_none() -> bool:
        # Rate limits keep an address there until its bucket is full, here for a second.
        kept = address_traces.cache(world.redis)
        assert b"hg:link:" in kept
        return address_traces.found(CANARIES, kept) == []

    eventually(cache_has_none, 10, "no address is in Redis", every=0.5)
