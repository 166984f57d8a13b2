"""
An open-loop load with a journal: `python -m tests.faults.load PLAN.json`.

Requests leave when they are due, however slow the answers are; what the journal says of an
operation is true however this process ends. First links are made and visited, then a line
"ready" is printed and the load runs until SIGTERM.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.http_client import HttpAnswer, HttpClient
from tests.faults.journal import Intent, JournalWriter, Kind, Reply

# Longer than every deadline of the gateway: who waits this long was forgotten.
GIVE_UP_S = 6.0
_MAX_IN_FLIGHT = 2000
_LINKS = "/api/v1/links"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    What a load does; rates are per second.

    Args:
        name: starts the id of every operation; unique among the loads of one ledger.
        gateways: their ports; clients use them in turn.
        warm: links made, and visited on each gateway, before the load begins; most visits are for them.
        keyed: share of the creates that carry an Idempotency-Key.
        custom: share of the creates that choose their slug.
        failover: a visit that meets a closed door goes to the next gateway, as nginx sends it.
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
    """Runs one plan."""

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
        """Make the warm links and visit them, some at a time."""
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
        """Send what is due until *stop*, then wait for the answers."""
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
        # Few links are visited much, the latest among them; and any may be changed.
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
        """Hang up everywhere."""
        for client in self._clients.values():
            await client.aclose()


def api_key_of(address: str, api_keys: Sequence[str]) -> str:
    """Return the API key that the client at *address* uses, always the same."""
    return api_keys[int(address.rpartition(".")[2]) % len(api_keys)]


async def perform(intent: Intent, client: HttpClient, api_key: str) -> Reply:
    """Send *intent* and return what came back. Never raises for what the other side does."""
    headers = {} if intent.kind is Kind.VISIT else {"Authorization": f"Bearer {api_key}"}
    body: dict[str, object] | None = None
    match intent.kind:
        case Kind.VISIT:
            method, path = "GET", f"/{intent.slug}"
        case Kind.DELETE:
            method, path = "DELETE", f"{_LINKS}/{intent.slug}"
        case Kind.EDIT:
            method, path, body = "PATCH", f"{_LINKS}/{intent.slug}", {"long_url": intent.url}
        case Kind.CREATE:
            method, path, body = "POST", _LINKS, {"long_url": intent.url, "title": intent.id}
            if intent.slug is not None:
                body["slug"] = intent.slug
            if intent.key is not None:
                headers["Idempotency-Key"] = intent.key
    try:
        async with asyncio.timeout(GIVE_UP_S):
            answer = await client.ask(method, path, headers=headers, body=body)
    except (OSError, TimeoutError) as error:
        return Reply(id=intent.id, status=0, at=time.monotonic(), error=type(error).__name__)
    return _reply(intent, answer)


def _reply(intent: Intent, answer: HttpAnswer) -> Reply:
    document = answer.json() if answer.status in {200, 201} else {}
    slug, version = document.get("slug"), document.get("version")
    return Reply(
        id=intent.id,
        status=answer.status,
        at=time.monotonic(),
        slug=slug if isinstance(slug, str) else intent.slug,
        version=version if isinstance(version, int) else None,
        location=answer.headers.get("location") if intent.kind is Kind.VISIT else None,
        replayed="idempotency-replayed" in answer.headers,
        retry_after="retry-after" in answer.headers,
    )


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
    """Return the plan in *text*, as `json.dumps(dataclasses.asdict(plan))` makes it."""
    fields = json.loads(text)
    return Plan(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})


if __name__ == "__main__":
    asyncio.run(_main(plan_of(Path(sys.argv[1]).read_text())))
