"""The wall clock of gateways and worker steps, as an operator or NTP steps it, and is right again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import httpx

from tests.faults.breaks.network import refused
from tests.faults.harness import drill
from tests.faults.harness.drill import FULL_LOAD, Figures, Timing
from tests.faults.harness.journal import Kind, Reply
from tests.faults.harness.journaled_client import JournaledClient
from tests.faults.harness.reconfigured import running_with
from tests.faults.harness.recovery import recovery_noted
from tests.faults.harness.stage import Stage
from tests.servers.hopgate import Gateway, make_key
from tests.servers.stepped_clock import stepped_clock

HOUR_S = 3600
# Refills 20 in a minute, and 1,200 in an hour that did not pass. The load's keys stay far below.
_BURST = 2400
LIMITED = {
    "HOPGATE_LIMIT_API": f"20/min burst {_BURST}",
    "HOPGATE_LIMIT_NOT_FOUND": f"20/min burst {_BURST}",
    "HOPGATE_TRUSTED_PROXIES": "127.0.0.0/8",
}
_GREEDY = "198.51.100.200"
_LINKS = "/api/v1/links"
# An answer is kept for two seconds.
_KEPT_S = 2.2


def stepped(stage: Stage) -> Figures:
    """
    An hour forward, an hour back, and right again. Redis and RabbitMQ refuse for a while after each step.

    `time_wrong` counts links whose time is not the clock's, `made_twice` creates whose key did not find
    their link, `admitted` the visits of a client that has used up its limits.
    """
    with stepped_clock(stage.directory) as clock, running_with(stage, **clock.settings):
        found: list[tuple[int, int, int]] = []
        recovery: list[float] = []

        @contextmanager
        def fault(stage: Stage) -> Iterator[None]:
            with JournaledClient(stage) as client:
                watched = _Watched(stage, client)
                for shift_s in (HOUR_S, -HOUR_S, 0):
                    clock.step(shift_s)
                    admitted = watched.admitted()
                    time.sleep(_KEPT_S)
                    found.append((watched.time_wrong(shift_s), watched.made_twice(), admitted))
                    for service in ("redis", "rabbitmq"):
                        with refused(service)(stage):
                            time.sleep(2.0)
                with recovery_noted(stage, recovery):
                    yield
                watched.remove()

        outcomes = drill.run(stage, fault, Timing(before_s=3.0, during_s=3.0, after_s=6.0), **FULL_LOAD)
    time_wrong, made_twice, admitted = map(sum, zip(*found, strict=True))
    return {
        **outcomes.figures,
        "violations": len(outcomes.violations),
        "time_wrong": time_wrong,
        "made_twice": made_twice,
        "admitted": admitted,
        "recovery_s": min(recovery, default=float("inf")),
    }


class _Watched:
    """Links with times half an hour from now, a keyed create, and a client that has used up its limits."""

    def __init__(self, stage: Stage, client: JournaledClient) -> None:
        self._gateways = stage.gateways
        self._client = client
        self._key = stage.api_keys[0]
        self._fields: dict[str, str | None] = {}
        edge = (datetime.now(UTC) + timedelta(seconds=HOUR_S / 2)).isoformat()
        self._ends = self._made(expires_at=edge)
        self._begins = self._made(valid_from=edge)
        self._kept = f"clock-{time.monotonic_ns()}"
        self._slug = self._made(key=self._kept)
        self._greedy_key = make_key(stage.settings)
        self.admitted(_BURST)

    def admitted(self, tries: int = 100) -> int:
        """Return how often the greedy client is admitted: by a shared limit, and by one of each process."""

        def ask(gateway: Gateway, path: str, **headers: str) -> int:
            with httpx.Client(base_url=gateway.url, headers=headers, timeout=10) as client:
                statuses = (client.get(path).status_code for _ in range(tries))
                # Once refused, always refused: a bucket refills too slowly for more.
                return sum(1 for _ in takewhile(lambda status: status != 429, statuses))

        authorization = {"Authorization": f"Bearer {self._greedy_key}"}
        return sum(
            ask(gateway, f"{_LINKS}?unknown=", **authorization)
            + ask(gateway, "/no-such-link", **{"X-Forwarded-For": _GREEDY})
            for gateway in self._gateways
        )

    def time_wrong(self, shift_s: int) -> int:
        """Count the answers that are not those of the clock."""
        is_past = shift_s > HOUR_S / 2
        expected = {self._ends: 410 if is_past else 302, self._begins: 302 if is_past else 404}
        return sum(
            httpx.get(f"{gateway.url}/{slug}").status_code != status
            for gateway in self._gateways
            for slug, status in expected.items()
        )

    def made_twice(self) -> int:
        """Repeat the keyed create: does it find its link?"""
        return int(self._created(self._title, key=self._kept) != self._slug)

    def remove(self) -> None:
        """Remove the links with times: the ledger knows none."""
        for slug in (self._ends, self._begins):
            status = self._client.remove(slug)
            assert status == 204, f"a key far below its limit is answered {status}"

    def _made(self, *, key: str | None = None, **times: str) -> str:
        # Without its key: the drill would repeat it with another body.
        intent = self._client.intent(Kind.CREATE)
        self._title = intent.id
        slug = self._created(intent.id, key, url=intent.url, **times)
        reply = Reply(id=intent.id, status=201, at=time.monotonic(), slug=slug, version=1)
        self._client.record(intent, reply)
        return slug

    def _created(self, title: str, key: str | None, **fields: str | None) -> str:
        self._fields = fields or self._fields
        headers = {"Authorization": f"Bearer {self._key}", **({"Idempotency-Key": key} if key else {})}
        body = {"long_url": self._fields["url"], "title": title, **self._fields}
        del body["url"]
        answer = httpx.post(f"{self._gateways[1].url}{_LINKS}", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["slug"])
