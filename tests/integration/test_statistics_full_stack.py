"""Statistics through outages: every visit is described once, exactly, and visitors are within two percent."""

from __future__ import annotations

import socket
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.servers.hopgate import Gateway, Worker, eventually, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

VISITS, LINKS, CLIENTS = 20_000, 8, 3_001
AT_ONCE = 100
PEOPLE = {
    "Firefox": "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
    "Mobile Safari": (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
        " Version/17.0 Mobile/15E148 Safari/604.1"
    ),
}
BOTS = {"curl": "curl/8.5.0", "Twitterbot": "Twitterbot/1.0"}
LANGUAGES = ("de", "en", "fr")
# Fewer than the values that an hour counts apart, and more than a request shows.
REFERRERS = 60


@dataclass(frozen=True)
class Visit:
    """What visit number *n* looks like."""

    n: int

    @property
    def link(self) -> int:
        return self.n % LINKS

    @property
    def client(self) -> str:
        client = self.n % CLIENTS
        return f"10.1.{client // 250}.{client % 250}"

    @property
    def program(self) -> str:
        # One visit in five is of a program.
        names = (*BOTS,) if self.n % 5 == 0 else (*PEOPLE,)
        return names[self.n // 7 % 2]

    @property
    def is_of_a_person(self) -> bool:
        return self.program in PEOPLE

    @property
    def language(self) -> str:
        return LANGUAGES[self.n // 3 % 3]

    @property
    def referrer(self) -> str:
        # The first ones are more frequent.
        return f"r{min(self.n * 7919 % REFERRERS, self.n * 104_729 % REFERRERS)}.example"

    def request(self, slugs: Sequence[str]) -> bytes:
        agent = {**PEOPLE, **BOTS}[self.program]
        lines = (
            f"GET /{slugs[self.link]} HTTP/1.1",
            "Host: hop.example",
            f"X-Forwarded-For: {self.client}",
            f"User-Agent: {agent}",
            f"Accept-Language: {self.language}",
            f"Referer: https://{self.referrer}/page",
        )
        return "\r\n".join([*lines, "", ""]).encode()


def make(gateway: Gateway, slugs: Sequence[str], visits: Sequence[Visit]) -> None:
    """Make *visits*; each is redirected."""
    for start in range(0, len(visits), AT_ONCE):
        part = visits[start : start + AT_ONCE]
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
            connection.sendall(b"".join(visit.request(slugs) for visit in part))
            received = b""
            while received.count(b"\r\n\r\n") < len(part):
                chunk = connection.recv(1 << 16)
                assert chunk, received[-500:]
                received += chunk
            assert received.count(b"HTTP/1.1 302") == len(part)


@dataclass(frozen=True)
class World:
    settings: dict[str, str]
    rabbitmq: PrivateRabbit
    gateways: tuple[Gateway, Gateway]
    worker: Worker
    api: httpx.Client

    def stats(self, path: str) -> Any:
        answer = self.api.get(f"/api/v1/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    with ExitStack() as running:
        postgres = running.enter_context(PrivatePostgres())
        redis, rabbitmq = running.enter_context(PrivateRedis()), running.enter_context(PrivateRabbit())
        settings = {
            **stack_settings(postgres, redis, rabbitmq),
            "HOPGATE_TRUSTED_PROXIES": "127.0.0.1/32",
        }
        gateways = [running.enter_context(Gateway(settings, tmp_path)) for _ in range(2)]
        worker = running.enter_context(Worker(settings, tmp_path))
        headers = {"Authorization": f"Bearer {make_key(settings)}"}
        api = running.enter_context(httpx.Client(base_url=gateways[0].url, headers=headers, timeout=20))

        def all_well() -> bool:
            return set(api.get("/readyz").json()["dependencies"].values()) == {"ok"}

        eventually(all_well, 30, "everything is connected")
        yield World(settings, rabbitmq, (gateways[0], gateways[1]), worker, api)


def told(visits: Sequence[Visit]) -> dict[str, Any]:
    """What statistics have to say of *visits*."""
    people = [visit for visit in visits if visit.is_of_a_person]
    programs = Counter(visit.program for visit in visits if not visit.is_of_a_person)
    return {
        "people": len(people),
        "bots": programs["curl"],
        "previews": programs["Twitterbot"],
        "browser": Counter(visit.program for visit in people),
        "language": Counter(visit.language for visit in people),
        "bot": programs,
        "referrer": Counter(visit.referrer for visit in people),
        "visitors": len({(visit.client, visit.program) for visit in people}),
    }


def check(shown: dict[str, Any], visits: Sequence[Visit], *, days: int) -> None:
    right = told(visits)
    assert {name: shown[name] for name in ("people", "bots", "previews", "prefetches")} == {
        **{name: right[name] for name in ("people", "bots", "previews")},
        "prefetches": 0,
    }
    for field in ("browser", "language", "bot"):
        assert {one["value"]: one["visits"] for one in shown[field]} == dict(right[field])
    named = {one["value"]: one["visits"] for one in shown["referrer"]}
    others = named.pop("", 0)
    assert len(named) == 10
    assert {name: right["referrer"][name] for name in named} == named
    assert sum(named.values()) + others == right["people"]
    assert 0.98 * right["visitors"] <= shown["visitors"] <= 1.02 * days * right["visitors"]


@pytest.mark.services
@pytest.mark.timeout(300)
def test_every_visit_is_described_through_outages(world):
    slugs = []
    for _ in range(LINKS):
        answer = world.api.post("/api/v1/links", json={"long_url": "https://example.com/"})
        slugs.append(answer.json()["slug"])
    visits = [Visit(n) for n in range(VISITS)]
    began = datetime.now(UTC).date()
    fifth = VISITS // 5
    one, other = world.gateways

    make(one, slugs, visits[:fifth])
    world.rabbitmq.kill()
    make(one, slugs, visits[fifth : 2 * fifth])
    make(other, slugs, visits[2 * fifth : 3 * fifth])
    folder = one._log.parent / f"data-{one.port}" / "visits"
    eventually(lambda: any(path.stat().st_size for path in folder.glob("*")), 20, "descriptions are on disk")
    world.rabbitmq.start()
    make(other, slugs, visits[3 * fifth : 4 * fifth])
    world.worker.kill()
    make(one, slugs, visits[4 * fifth :])
    world.worker.start()

    by_link = defaultdict(list)
    for visit in visits:
        by_link[slugs[visit.link]].append(visit)

    def is_drained() -> bool:
        # Of the two queues, either may be the first to be empty.
        shown = world.stats("stats")["visits"]
        counted = sum(world.stats(f"links/{slug}/stats")["total"] for slug in slugs)
        return counted >= VISITS and sum(shown[kind] for kind in ("people", "bots", "previews")) >= VISITS

    eventually(is_drained, 120, "all visits are counted and described", every=0.5)
    days = 1 + (datetime.now(UTC).date() - began).days
    check(world.stats("stats")["visits"], visits, days=days)
    for slug, own in by_link.items():
        shown = world.stats(f"links/{slug}/stats")
        assert shown["total"] == len(own) == sum(hour["clicks"] for hour in shown["hours"])
        check(shown["visits"], own, days=days)
