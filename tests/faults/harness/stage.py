"""
The system under test: servers, a fault proxy in front of each, gateways, a worker and a load.

Each gateway and the worker has a proxy of its own to each server, so a fault can affect all
parties or one. Tests connect to the servers directly, bypassing the proxies.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.faults.harness.journal import Operation, read
from tests.faults.harness.load import LoadProcess, Plan
from tests.faults.harness.servers import SERVICES, Servers
from tests.servers.hopgate import Gateway, Worker, make_key
from tests.servers.proxy import GOOD, FaultProxy, Network
from tests.servers.stack import stack_settings

_URLS = dict(zip(SERVICES, ("DATABASE", "REDIS", "AMQP"), strict=True))


class Stage:
    """
    A new database, an empty Redis and a new virtual host, with gateways and a worker that use them.

    Args:
        gateways: how many, with one worker process each.
        target: an RSGI application that gateways serve instead of the one in `app.main`.
        worker: a command line to run instead of `hopgate worker`.
        settings: additional settings of gateways and worker.
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
        # Processes are ended even if healing fails: a load would otherwise run for ever.
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
        """Return a gateway that uses the proxies of `gateway-{number}`, not started."""
        settings = self.settings_of(f"gateway-{number}")
        gateway = Gateway(settings, self.directory)
        if self._target is not None:
            gateway._arguments = granian(self._target, gateway.port)
        self._running.callback(gateway.kill)
        return gateway

    def settings_of(self, party: str) -> dict[str, str]:
        """Return the settings of a gateway or the worker, with URLs of its own proxies."""
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
        """Apply *network* between *service* and every party, or *party* alone."""
        for name, proxies in self.proxies.items():
            if party in (None, name):
                proxies[service].become(network)

    def reset(self, service: str) -> None:
        """Break every connection to *service*."""
        for proxies in self.proxies.values():
            proxies[service].reset()

    def heal(self) -> None:
        """Restore every network."""
        for service in SERVICES:
            self.network(service, GOOD)

    def start_load(self, **changes: object) -> LoadProcess:
        """Start a load on all gateways, with *changes* to its `Plan`. Returns when it runs."""
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
        """Return every operation of every load and client so far."""
        return read(sorted(self.directory.glob("*.journal")))

    def children(self, parent: int) -> list[int]:
        """Return the child processes of *parent*, such as the workers of a gateway."""
        found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(pid) for pid in found if _is_python(int(pid))]


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """
    Disable the cyclic garbage collector, which stops the proxies: they are threads of this process.

    A full collection took 0.06 to 0.1 s in a single row, and more with the history of earlier rows in
    memory. To gateways that is an outage of all servers at once, which no row injects.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def granian(target: str, port: int) -> list[str]:
    """Return the command line that serves *target* with the options of `hopgate serve`."""
    command_line = [sys.executable, "-m", "granian", "--interface", "rsgi", "--loop", "uvloop", "--http", "1"]
    command_line += ["--host", "127.0.0.1", "--port", str(port), "--no-ws", "--workers", "1"]
    return [*command_line, "--log-level", "warning", "--respawn-failed-workers", "--factory", target]


def _is_python(pid: int) -> bool:
    try:
        return b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
