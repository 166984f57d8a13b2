"""The scenarios that compare servers, and how each is measured."""

from __future__ import annotations

import bisect
import http.client
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench import load
from bench import site as sites
from bench.contenders import title
from bench.load import Load, Visit
from bench.processes import Server
from bench.results import Bar, Measure, Result, Run, Side
from bench.site import ONE, Site

# More than the L1 cache holds: requests in sequence always miss it.
MANY = 100_000
_ONE_LINK = Visit(path=f"/{ONE}")
_ZIPF_REQUESTS = 200_000

Turn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Data:
    """Files of paths for the scenarios on the full stack; empty for an embedded site."""

    visits: Mapping[str, Visit] = field(default_factory=dict)
    cached: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    One comparison. The first of `servers` is Hopgate: as it ships, `traced`, or `alone`, without its front.

    Args:
        visit: a `Visit`, or the name of one in `Data.visits`.
        redis: the content of Redis at the start of each turn.
        rate: None for maximum throughput; else the share of the capacity of the slowest server.
        beyond_idle: whether the processor time is that beyond what an idle server uses, measured before each
            turn: for few requests a second.
    """

    name: str
    title: str
    method: str
    servers: tuple[str, ...]
    where: Literal["embedded", "stack"]
    visit: Visit | str = _ONE_LINK
    redis: Literal["full", "empty", "as it is"] = "as it is"
    rate: float | None = None
    bars: Mapping[str, Bar] = field(default_factory=dict)
    beyond_idle: bool = False

    @property
    def measure(self) -> Measure:
        """The figure by which the servers are compared."""
        return "per_second" if self.rate is None else "p99_ms"


# Beside granian it runs without its front: that would show nothing of what Python costs.
_ALONE = ("alone", "bare", "nginx", "handler", "robyn", "fastapi", "blacksheep")
_CACHED = {"bare": Bar(at_least=0.85, moonshot=0.95), "robyn": Bar(at_least=3.5, moonshot=5)}

SCENARIOS: Sequence[Scenario] = (
    Scenario(
        "l1-hit",
        "One link, L1 hit",
        "`wrk -c64`, one link, embedded: every request is an L1 hit, except for one renewal every two "
        "seconds.",
        ("hopgate", "alone", "nginx", "robyn"),
        "embedded",
        bars={"alone": Bar(at_least=1.8, moonshot=2.5), "nginx": Bar(at_least=0.8, moonshot=1)},
    ),
    Scenario(
        "l1-hit-alone",
        "The same without the front",
        "`wrk -c64`, one link, embedded: granian and Python answer.",
        _ALONE,
        "embedded",
        bars=_CACHED,
    ),
    *(
        Scenario(
            f"front-{connections}",
            f"The front, {connections} connection{'s' * (connections > 1)}",
            f"`wrk -c{connections}`, one link, embedded: with its front, without it, and nginx.",
            ("hopgate", "alone", "nginx"),
            "embedded",
            Visit(path=f"/{ONE}", connections=connections),
        )
        for connections in (1, 8, 64)
    ),
    Scenario(
        "traces",
        "Traces",
        "`wrk -c64`, one link, embedded: the default share of requests traced, none, and all. The "
        "collector takes bodies and reads none of them.",
        ("traced", "hopgate", "traced-all"),
        "embedded",
        bars={"hopgate": Bar(at_least=0.95, moonshot=1)},
    ),
    Scenario(
        "connections-1",
        "The same over 1 connection",
        "`wrk -c1`: one request at a time.",
        ("alone", "bare", "robyn"),
        "embedded",
        Visit(path=f"/{ONE}", connections=1),
    ),
    Scenario(
        "connections-512",
        "The same over 512 connections",
        "`wrk -c512`.",
        ("alone", "bare", "robyn"),
        "embedded",
        Visit(path=f"/{ONE}", connections=512),
    ),
    Scenario(
        "churn",
        "A new connection for each request",
        "`wrk -c64` with `Connection: close`.",
        ("alone", "bare", "nginx", "robyn"),
        "embedded",
        Visit(path=f"/{ONE}", close=True),
    ),
    Scenario(
        "latency-shared",
        "Latency at half the capacity of the slowest server",
        "`h2load --rps`, 64 connections, half the capacity of the slowest; a delayed request counts from "
        "when it was due.",
        _ALONE,
        "embedded",
        rate=0.5,
    ),
    Scenario(
        "latency-high",
        "Latency at half of the capacity of Hopgate",
        "`h2load --rps`, 64 connections, half the capacity of the slowest of these.",
        ("alone", "bare", "nginx"),
        "embedded",
        rate=0.5,
    ),
    Scenario(
        "hot-key",
        "One link on the full stack",
        "`wrk -c64`, one link on PostgreSQL, Redis and RabbitMQ: each renewal is one read of Redis.",
        ("alone", "bare", "robyn"),
        "stack",
        redis="full",
        bars=_CACHED,
    ),
    *(
        Scenario(
            name,
            f"The front, the Zipf list, {connections} connections",
            f"`wrk -c{connections}` on the full stack, with the front and without it: hits, and renewals "
            "every two seconds.",
            ("hopgate", "alone"),
            "stack",
            visit,
            redis="full",
        )
        for name, visit, connections in (("front-zipf", "zipf", 64), ("front-zipf-8", "zipf-8", 8))
    ),
    Scenario(
        "front-redis-hit",
        "The front, Redis hit",
        f"`wrk -c64`, {MANY:,} links in sequence: each is looked up, by batches of the front or one by one.",
        ("hopgate", "alone"),
        "stack",
        "many",
        redis="full",
    ),
    Scenario(
        "front-not-found",
        "The front, a scan of slugs that do not exist",
        "`wrk -c64`, limits not reached, the tarpit on: compare the processor time, beyond that of an idle "
        "server.",
        ("hopgate", "alone"),
        "stack",
        "absent",
        redis="empty",
        beyond_idle=True,
    ),
    Scenario(
        "workers-2",
        "Two workers",
        "`wrk -c64`, one link on the full stack. Two workers share all processors with the load.",
        ("alone-2", "alone", "bare-2"),
        "stack",
        redis="full",
    ),
    Scenario(
        "redis-hit",
        "Redis hit",
        f"`wrk -c64`, {MANY:,} links in sequence: more than the L1 cache holds, so each is an L1 miss.",
        ("hopgate", "redis-get", "robyn"),
        "stack",
        "many",
        redis="full",
        bars={"redis-get": Bar(at_least=0.9, moonshot=1)},
    ),
    Scenario(
        "zipf",
        "Zipf distribution over imported URLs",
        "`wrk -c64`; the link of rank k has a weight of 1/k. Redis holds every link.",
        ("hopgate", "redis-get", "robyn"),
        "stack",
        "zipf",
        redis="full",
    ),
    Scenario(
        "read-write",
        "Nine redirects, one create",
        "`wrk -c64`, the Zipf list, each tenth request a POST that commits to PostgreSQL.",
        ("hopgate", "handler", "robyn"),
        "stack",
        "mixed",
        redis="full",
    ),
    Scenario(
        "postgres-hit",
        "PostgreSQL look-up",
        f"`wrk -c64`, {MANY:,} links in sequence, Redis empty; misses are published to RabbitMQ.",
        ("hopgate", "postgres-get", "robyn"),
        "stack",
        "many",
        redis="empty",
    ),
    Scenario(
        "not-found",
        "A scan of slugs that do not exist",
        "`wrk -c64`, limits not reached: each slug is looked up in Redis and PostgreSQL and answered with "
        "404. Above 500 a second, the tarpit delays these responses by 0.1 s: compare the processor time.",
        ("hopgate", "postgres-get", "robyn"),
        "stack",
        "absent",
        redis="empty",
    ),
)


def stack_data(site: Site, imported: Sequence[tuple[str, str]], links: int = MANY) -> Data:
    """Return the visits of *site*: its numbered links, the imported ones, and slugs that do not exist."""
    numbered = [sites.numbered_slug(number) for number in range(links)]
    target = "https://example.com/a/long/path?with=query&number="
    cached = [(slug, f"{target}{number}") for number, slug in enumerate(numbered)]
    ranked = site.paths("zipf", zipf([slug for slug, _ in imported], _ZIPF_REQUESTS))
    absent = [f"{slug[::-1]}-" for slug in numbered]
    visits = {
        "many": Visit(paths=site.paths("many", numbered)),
        "zipf": Visit(paths=ranked),
        "zipf-8": Visit(paths=ranked, connections=8),
        "mixed": Visit(paths=ranked, right=(302, 201), create_every=10, key=site.key),
        "absent": Visit(paths=site.paths("absent", absent), right=(404,)),
    }
    return Data(visits, [*cached, *imported, (ONE, sites.TARGET)])


def zipf(slugs: Sequence[str], count: int) -> list[str]:
    """Draw *count* of *slugs*, the k-th with a weight of 1/k; every run draws the same."""
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(slugs) + 1)))
    choose = random.Random(0)
    return [slugs[bisect.bisect_left(weights, choose.random() * weights[-1])] for _ in range(count)]


def measure(scenario: Scenario, site: Site, data: Data, run: Run, turn: Turn) -> Result:
    """Visit the servers of *scenario* in turn, round after round; *turn* is called before each visit."""
    visit = data.visits[scenario.visit] if isinstance(scenario.visit, str) else scenario.visit
    servers = {name: site.server(name) for name in scenario.servers}
    if scenario.redis == "full":
        sites.fill_redis(site, data.cached)
    for server in servers.values():
        _check(server, visit)
    starts = random.Random(scenario.name)

    def visited(name: str, seconds: int, rate: float | None) -> Load:
        turn(title(name))
        if scenario.redis == "empty":
            sites.flush_redis(site)
        if rate is not None:
            return load.at_rate(servers[name], visit, seconds=seconds, rate=rate)
        idle = load.idle_share(servers[name], seconds=seconds) if scenario.beyond_idle else 0.0
        return load.flood(servers[name], visit, seconds=seconds, start=starts.randrange(MANY), idle=idle)

    warm = [visited(name, 1, None).per_second for name in servers]
    rate = None if scenario.rate is None else round(min(warm) * scenario.rate, -1)
    rounds = [{name: visited(name, run.seconds, rate) for name in servers} for _ in range(run.rounds)]
    sides = [Side(name, title(name), [one[name] for one in rounds]) for name in servers]
    method = scenario.method if rate is None else f"{scenario.method} Here: {rate:,.0f}/s."
    bars = dict(scenario.bars)
    return Result(scenario.name, scenario.title, method, scenario.measure, sides, bars, run)


def turns(rounds: int, scenario: Scenario) -> int:
    """Return how often `measure` calls `turn`."""
    return len(scenario.servers) * (rounds + 1)


def _check(server: Server, visit: Visit) -> None:
    """Raise RuntimeError if *server* does not return the expected status and location."""
    path = visit.path
    if visit.paths is not None:
        with visit.paths.open() as file:
            path = file.readline().strip()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        location = answer.getheader("location")
        if answer.status not in visit.right or (answer.status == 302) != bool(location):
            raise RuntimeError(f"port {server.port} answers {path} with {answer.status} to {location}")
    finally:
        connection.close()
