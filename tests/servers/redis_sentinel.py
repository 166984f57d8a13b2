"""A private Redis primary with replicas, watched by three Redis Sentinels."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import redis

from tests.servers import processes, watcher
from tests.servers.ports import free_ports
from tests.servers.redis import PrivateRedis

NAME = "hop"
# Of the servers, and of the sentinels: every character that a URL has to escape.
PASSWORD, SENTINEL_PASSWORD = "geheim@/1", "geheim:?2"
_READY_S = 20.0


class PrivateSentinel:
    """One `redis-server --sentinel` on a free port, for the primary at *primary_port*."""

    def __init__(self, binary: str, primary_port: int, *, down_after_ms: int) -> None:
        self.port = free_ports(1)[0]
        self.directory = watcher.make_directory("hopgate-sentinel-")
        self._configuration = self.directory / "sentinel.conf"
        self._configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\nrequirepass {SENTINEL_PASSWORD}\n"
            f"sentinel sentinel-pass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {primary_port} 2\nsentinel auth-pass {NAME} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {NAME} {down_after_ms}\n"
            f"sentinel failover-timeout {NAME} 3000\n"
        )
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [self._binary, str(self._configuration), "--sentinel"]
        self._process = processes.start(command, output=self.directory / "sentinel.log")

    def kill(self) -> None:
        if self._process is not None:
            processes.end(self._process, signal.SIGKILL, within_s=5)
            self._process = None

    def pause(self) -> None:
        """Make it silent: connections stay open, and no answer comes."""
        assert self._process is not None
        processes.pause(self._process.pid)

    def resume(self) -> None:
        """End `pause`."""
        assert self._process is not None
        processes.resume(self._process.pid)

    def close(self) -> None:
        self.kill()
        watcher.remove_directory(self.directory)

    def primary(self) -> dict[str, object]:
        """Return what it says about the primary."""
        with redis.Redis(port=self.port, password=SENTINEL_PASSWORD, socket_timeout=0.5) as client:
            found = client.sentinel_master(NAME)
        assert isinstance(found, dict)
        return found


class PrivateSentinels:
    """
    `with PrivateSentinels() as site:` runs a primary, a replica in step with it, and three sentinels.

    A primary that does not answer for *down_after_ms* is replaced.
    """

    def __init__(self, *, down_after_ms: int = 700) -> None:
        options = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0")
        self.servers = [PrivateRedis(*options, password=PASSWORD) for _ in range(2)]
        self.sentinels = [
            PrivateSentinel(self.servers[0].binary, self.servers[0].port, down_after_ms=down_after_ms)
            for _ in range(3)
        ]
        self._running = ExitStack()

    @property
    def url(self) -> str:
        return self.url_of(*(sentinel.port for sentinel in self.sentinels))

    def url_of(self, *ports: int) -> str:
        """Return the URL with these ports of sentinels."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"redis+sentinel://:geheim%40%2F1@{hosts}/{NAME}/0?sentinel_password=geheim%3A%3F2"

    @property
    def primary(self) -> PrivateRedis:
        """The server that the sentinels name."""
        port = self.sentinels[0].primary()["port"]
        return next(server for server in self.servers if server.port == port)

    def await_another(self, than: PrivateRedis) -> PrivateRedis:
        """Return the primary once two sentinels name another one."""
        _eventually(lambda: sum(_names_another(one, than) for one in self.sentinels) >= 2)
        return next(server for server in self.servers if server is not than)

    def is_in_step(self, replica: PrivateRedis) -> bool:
        """Does *replica* follow a primary?"""
        return replica.info().get("master_link_status") == "up"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def _start(self) -> None:
        for server in self.servers:
            self._running.enter_context(server)
        self.servers[1].command("REPLICAOF", "127.0.0.1", self.servers[0].port)
        _eventually(lambda: self.is_in_step(self.servers[1]))
        for sentinel in self.sentinels:
            self._running.callback(sentinel.close)
            sentinel.start()
        _eventually(lambda: all(_knows_all(sentinel) for sentinel in self.sentinels))


def _names_another(sentinel: PrivateSentinel, than: PrivateRedis) -> bool:
    try:
        return sentinel.primary()["port"] != than.port
    except redis.RedisError:
        return False


def _knows_all(sentinel: PrivateSentinel) -> bool:
    try:
        known = sentinel.primary()
    except redis.RedisError:
        return False
    return known["num-slaves"] == 1 and known["num-other-sentinels"] == 2


def _eventually(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + _READY_S
    while not is_so():
        if time.monotonic() > end:
            raise RuntimeError("the sentinels did not agree")
        time.sleep(0.05)
