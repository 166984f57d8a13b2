"""
An open-loop load with a journal: `python -m tests.faults.harness.load PLAN.json`.

Requests are sent when they are due, independent of response times; the journal stays correct
however this process ends. The load first creates and visits the warm links, prints "ready", and
then runs until SIGTERM.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.harness.http_client import HttpClient
from tests.faults.harness.journal import Intent, JournalWriter, Kind
from tests.faults.harness.operations import api_key_of, perform
from tests.servers import watcher
from tests.servers.hopgate import environment

_MAX_IN_FLIGHT = 2000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    The parameters of a load; rates are per second.

    Args:
        name: prefix of the id of every operation; unique among the loads of one stage.
        gateways: their ports; each operation picks one at random.
        warm: links created and visited on each gateway before the load begins; most visits are for them.
        keyed: share of the creates that carry an Idempotency-Key.
        custom: share of the creates that choose their slug.
        failover: a visit without a response is retried on the next gateway, as nginx does.
    """

    name: str
    journal: str
    gateways: tuple[int, ...]
    api_keys: tuple[str, ...]
    seed: int = 0
    warm: int = 50
    visits: float = 60.0
    creates: float = 8.0
    edits: float = 4.0
    deletes: float = 0.5
    clients: int = 8
    keyed: float = 0.5
    custom: float = 0.2
    failover: bool = False


class Load:
    """Runs one plan and writes its journal."""

    def __init__(self, plan: Plan, journal: JournalWriter) -> None:
        self._plan = plan
        self._journal = journal
        self._random = random.Random(plan.seed)
        self._slugs: list[str] = []
        self._removed: set[str] = set()
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        addresses = [f"127.0.0.{2 + i}" for i in range(plan.clients)]
        self._clients = {
            (gateway, address): HttpClient(port, address)
            for gateway, port in enumerate(plan.gateways)
            for address in addresses
        }
        self._addresses = addresses

    async def prepare(self) -> None:
        """Create the warm links, ten at a time, and visit each on every gateway."""
        for start in range(0, self._plan.warm, 10):
            batch = [
                self._perform(self._create(time.monotonic())) for _ in range(min(10, self._plan.warm - start))
            ]
            await asyncio.gather(*batch)
        for slug in tuple(self._slugs):
            now, gateways = time.monotonic(), range(len(self._plan.gateways))
            visits = [self._intent(self._name(), Kind.VISIT, now, slug=slug, gateway=one) for one in gateways]
            await asyncio.gather(*map(self._perform, visits))

    async def run(self, stop: asyncio.Event) -> None:
        """Send operations when they are due until *stop*, then wait for the replies."""
        plan = self._plan
        rates = {Kind.VISIT: plan.visits, Kind.CREATE: plan.creates, Kind.EDIT: plan.edits}
        rates[Kind.DELETE] = plan.deletes
        began = time.monotonic()
        due = {kind: began + self._random.random() / rate for kind, rate in rates.items() if rate > 0}
        while not stop.is_set():
            kind = min(due, key=due.__getitem__)
            if (wait_s := due[kind] - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            if len(self._tasks) < _MAX_IN_FLIGHT:
                self._start(kind, due[kind])
            due[kind] += 1 / rates[kind]
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, kind: Kind, due_at: float) -> None:
        intent = self._create(due_at) if kind is Kind.CREATE else self._on_known(kind, due_at)
        if intent is not None:
            task = asyncio.create_task(self._perform(intent))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _create(self, due_at: float) -> Intent:
        name = self._name()
        slug = f"own-{name}" if self._random.random() < self._plan.custom else None
        key = f"key-{name}" if self._random.random() < self._plan.keyed else None
        return self._intent(name, Kind.CREATE, due_at, slug=slug, url=_url(name), key=key)

    def _on_known(self, kind: Kind, due_at: float) -> Intent | None:
        if not self._slugs:
            return None
        name = self._name()
        # Visits are skewed towards early and recent links; writes are uniform.
        rank = int(len(self._slugs) * self._random.random() ** (3 if kind is Kind.VISIT else 1))
        slug = self._slugs[rank]
        if kind is Kind.VISIT:
            if self._random.random() < 0.1:
                slug = self._slugs[-1 - int(10 * self._random.random()) % len(self._slugs)]
            return self._intent(name, kind, due_at, slug=slug)
        if slug in self._removed:
            return None
        if kind is Kind.DELETE:
            self._removed.add(slug)
            return self._intent(name, kind, due_at, slug=slug)
        return self._intent(name, kind, due_at, slug=slug, url=_url(name))

    def _name(self) -> str:
        self._count += 1
        return f"{self._plan.name}-{self._count}"

    def _intent(
        self,
        name: str,
        kind: Kind,
        due_at: float,
        *,
        slug: str | None = None,
        url: str | None = None,
        key: str | None = None,
        gateway: int | None = None,
    ) -> Intent:
        return Intent(
            id=name,
            kind=kind,
            slug=slug,
            url=url,
            key=key,
            gateway=self._random.randrange(len(self._plan.gateways)) if gateway is None else gateway,
            client=self._random.choice(self._addresses),
            due_at=due_at,
        )

    async def _perform(self, intent: Intent) -> None:
        intent = dataclasses.replace(intent, sent_at=time.monotonic())
        self._journal.write(intent)
        api_key = api_key_of(intent.client, self._plan.api_keys)
        reply = await perform(intent, self._clients[intent.gateway, intent.client], api_key)
        if reply.status == 0 and intent.kind is Kind.VISIT and self._plan.failover:
            other = (intent.gateway + 1) % len(self._plan.gateways)
            reply = await perform(intent, self._clients[other, intent.client], api_key)
        self._journal.write(reply)
        if intent.kind is Kind.CREATE and reply.status == 201 and reply.slug is not None:
            self._slugs.append(reply.slug)

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()


class LoadProcess:
    """A load in a process of its own."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        file = directory / f"{plan.name}.plan.json"
        file.write_text(json.dumps(dataclasses.asdict(plan)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.harness.load", str(file)],
            env=environment({}),
            cwd=Path(__file__).parents[3],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        watcher.watch_process(self._process.pid)

    def wait_ready(self) -> None:
        """Wait until the warm links exist and the load runs."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", "the load did not start"

    def stop(self) -> None:
        """Stop sending, wait for pending replies, and end the process."""
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=30)
        watcher.forget_process(self._process.pid)

    def kill(self) -> None:
        """End the process by SIGKILL."""
        self._process.kill()
        self._process.communicate(timeout=30)
        watcher.forget_process(self._process.pid)


def _url(name: str) -> str:
    return f"https://example.com/{name}"


async def _main(plan: Plan) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with JournalWriter(Path(plan.journal)) as journal:
        load = Load(plan, journal)
        await load.prepare()
        print("ready", flush=True)
        await load.run(stop)
        await load.aclose()


def plan_of(text: str) -> Plan:
    """Parse a plan that `json.dumps(dataclasses.asdict(plan))` wrote."""
    fields: dict[str, Any] = json.loads(text)
    for name, value in fields.items():
        fields[name] = tuple(value) if isinstance(value, list) else value
    return Plan(**fields)


if __name__ == "__main__":
    asyncio.run(_main(plan_of(Path(sys.argv[1]).read_text())))
