"""Resources of processes: memory, file descriptors, threads, and asyncio tasks of a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app import settings as environment
from app.bootstrap import open_gateway
from app.web.rsgi import RsgiApplication
from tests.faults.harness.http_client import HttpClient
from tests.faults.harness.stage import Stage

_TASKS_PATH = "/-/tasks"


@dataclass(frozen=True)
class Held:
    """Resources of one process: resident kB, file descriptors, threads; tasks of gateways only."""

    rss_kb: int
    fds: int
    threads: int
    tasks: int = 0


class _Observed(RsgiApplication):
    """Hopgate with an endpoint that returns the number of asyncio tasks."""

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if scope.path == _TASKS_PATH:
            protocol.response_str(200, [], str(len(asyncio.all_tasks())))
        else:
            await super().__rsgi__(scope, protocol)


def observed() -> RsgiApplication:
    """Create the application as `app.main` does, for granian."""
    settings = environment.load()
    return _Observed(lambda: open_gateway(settings))


def held(stage: Stage) -> Mapping[str, Held]:
    """Return the resources of every gateway and the worker; tasks of those that serve `observed`."""
    found = {"worker": _of(stage.worker.pid)}
    for number, gateway in enumerate(stage.gateways):
        [pid] = stage.children(gateway.pid)
        tasks = asyncio.run(_tasks(gateway.port))
        process = _of(pid)
        found[f"gateway-{number}"] = Held(process.rss_kb, process.fds, process.threads, tasks)
    return found


def grown(before: Mapping[str, Held], after: Mapping[str, Held]) -> list[str]:
    """Describe each resource that grew by more than a tenth plus a fixed allowance."""
    found = []
    for name, then in before.items():
        now = after[name]
        for what, spare in (("rss_kb", 20_000), ("fds", 8), ("threads", 4), ("tasks", 8)):
            was, is_now = getattr(then, what), getattr(now, what)
            if is_now > was * 1.1 + spare:
                found.append(f"{name}: {what} {was} → {is_now}")
    return found


def resident_kb(pid: int) -> int:
    """Return the resident memory of a process."""
    return _of(pid).rss_kb


def is_healthy(url: str) -> bool:
    """Does the gateway at *url* answer /healthz with 200?"""
    try:
        return httpx.get(f"{url}/healthz", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


async def _tasks(port: int) -> int:
    client = HttpClient(port)
    try:
        answer = await client.ask("GET", _TASKS_PATH)
        return int(answer.body) if answer.status == 200 else 0
    finally:
        await client.aclose()


def _of(pid: int) -> Held:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status)}
    fds = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Held(int(fields["VmRSS"][0]), fds, int(fields["Threads"][0]))
