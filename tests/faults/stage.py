"""
Where a drill is played: servers, a bad network in front of each, gateways, a worker, a load.

Every gateway and the worker has its own proxy to every server, so a fault may meet all of
them or one. Tests look at the servers directly, past the proxies.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.faults.journal import Operation, read
from tests.faults.load import Plan
from tests.servers.hopgate import Gateway, Worker, environment, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.proxy import GOOD, FaultProxy, Network
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

SERVICES = ("postgres", "redis", "rabbitmq")
_URLS = dict(zip(SERVICES, ("DATABASE", "REDIS", "AMQP"), strict=True))


class Servers:
    """One PostgreSQL (with fsync), Redis and RabbitMQ; the stages that use them come one after the other."""

    def __init__(self) -> None:
        self.postgres = PrivatePostgres()
        self.redis = PrivateRedis()
        self.rabbitmq = PrivateRabbit()
        self._running = ExitStack()

    def __enter__(self) -> Self:
        for server in (self.postgres, self.redis, self.rabbitmq):
            self._running.enter_context(server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()


class LoadProcess:
    """`tests.faults.load` in a process of its own."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        file = directory / f"{plan.name}.plan.json"
        file.write_text(json.dumps(dataclasses.asdict(plan)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.load", str(file)],
            env=environment({}),
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_ready(self) -> None:
        """Return when the links to visit are made and the load runs."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", "the load did not start"

    def stop(self) -> None:
        """Let it wait for the answers that are out, and end."""
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=30)

    def kill(self) -> None:
        """End it as the kernel would."""
        self._process.kill()
        self._process.communicate()


class Stage:
    """
    A fresh database, an empty Redis and a fresh virtual host, with gateways and a worker on them.

    Args:
        gateways: how many, of one process each.
        target: an RSGI application that gateways serve instead of Hopgate's own.
        worker: a command line that runs instead of `hopgate worker`.
        settings: further settings of Hopgate.
    """

    def __init__(
        self,
        servers: Servers,
        directory: Path,
        *,
        gateways: int = 2,
        target: str | None = None,
        worker: Sequence[str] | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.servers = servers
        self.directory = directory
        self._count = gateways
        self._target = target
        self._worker_command = worker
        self._more = settings or {}
        self._running = ExitStack()
        self._loads = 0
        self.proxies: dict[str, dict[str, FaultProxy]] = {}
        self.gateways: list[Gateway] = []
        self.poison = 0
        self.restarts_s: list[float] = []

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whatever cannot be healed, nothing may stay behind: a load would go on for ever.
        try:
            self.heal()
        finally:
            self._running.close()

    def _open(self) -> None:
        servers = self.servers
        self.settings = {**stack_settings(servers.postgres, servers.redis, servers.rabbitmq), **self._more}
        self.vhost = urlsplit(self.settings["HOPGATE_AMQP_URL"]).path[1:]
        self.api_keys = tuple(make_key(self.settings) for _ in range(2))
        for number in range(self._count):
            self._proxied(f"gateway-{number}")
        self._proxied("worker")
        for number in range(self._count):
            self.gateways.append(self.new_gateway(number))
        with ThreadPoolExecutor() as starting:
            list(starting.map(Gateway.start, self.gateways))
        arguments = list(self._worker_command) if self._worker_command else None
        self.worker = Worker(self.settings_of("worker"), self.directory, arguments)
        self._running.callback(self.worker.kill)
        self.worker.start()

    def new_gateway(self, number: int) -> Gateway:
        """Return a gateway behind the proxies of number *number*, not started."""
        settings = self.settings_of(f"gateway-{number}")
        gateway = Gateway(settings, self.directory)
        if self._target is not None:
            gateway._arguments = granian(self._target, gateway.port)
        self._running.callback(gateway.kill)
        return gateway

    def settings_of(self, party: str) -> dict[str, str]:
        """Return the settings of a gateway or the worker: its URLs lead through its own proxies."""
        settings = dict(self.settings)
        for service, proxy in self.proxies[party].items():
            name = f"HOPGATE_{_URLS[service]}_URL"
            settings[name] = settings[name].replace(f":{proxy.target}", f":{proxy.port}")
        return settings

    def _proxied(self, party: str) -> None:
        self.proxies[party] = {
            service: self._running.enter_context(
                FaultProxy(getattr(self.servers, service).port, speaks_amqp=service == "rabbitmq")
            )
            for service in SERVICES
        }

    def network(self, service: str, network: Network, *, party: str | None = None) -> None:
        """Make *network* what lies between *service* and everybody, or *party* alone."""
        for name, proxies in self.proxies.items():
            if party in (None, name):
                proxies[service].become(network)

    def reset(self, service: str) -> None:
        """Break every connection to *service*."""
        for proxies in self.proxies.values():
            proxies[service].reset()

    def heal(self) -> None:
        """Make every network good again."""
        for service in SERVICES:
            self.network(service, GOOD)

    def start_load(self, **changes: object) -> LoadProcess:
        """Start a load on all gateways; see `Plan` for *changes*. Returns when it runs."""
        self._loads += 1
        name = f"l{self._loads:03d}"  # journals are read in the order of their names
        plan = Plan(
            name=name,
            journal=str(self.directory / f"{name}.journal"),
            gateways=tuple(gateway.port for gateway in self.gateways),
            api_keys=self.api_keys,
            seed=self._loads,
        )
        load = LoadProcess(dataclasses.replace(plan, **changes), self.directory)  # type: ignore[arg-type]
        self._running.callback(load.kill)
        load.wait_ready()
        return load

    def history(self) -> list[Operation]:
        """Return every operation of every load so far."""
        return read(sorted(self.directory.glob("*.journal")))

    def children(self, parent: int) -> list[int]:
        """Return the processes that *parent* has started, such as a gateway's workers."""
        found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(pid) for pid in found if _is_python(int(pid))]


@contextmanager
def proxies_undisturbed() -> Iterator[None]:
    """
    Collect no cycles meanwhile: the proxies are threads of this process, and wait as long as that takes.

    A full collection held them up for 0.06 to 0.1 s in a row played alone, and the history of all rows
    before is in memory too: to gateways it is a silence of everything at once, which no row asks for.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def granian(target: str, port: int) -> list[str]:
    """Return the command line that serves *target* as `hopgate serve` serves Hopgate."""
    command_line = [sys.executable, "-m", "granian", "--interface", "rsgi", "--loop", "uvloop", "--http", "1"]
    command_line += ["--host", "127.0.0.1", "--port", str(port), "--no-ws", "--workers", "1"]
    return [*command_line, "--log-level", "warning", "--respawn-failed-workers", "--factory", target]


def _is_python(pid: int) -> bool:
    try:
        return b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
