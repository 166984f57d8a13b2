"""A private Redis: its own port and directory, removed with the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from types import TracebackType

import redis

from tests.servers import processes, watcher
from tests.servers.ports import free_ports

_PLACES = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
_START_TIMEOUT_S = 10.0


class PrivateRedis:
    """
    `with PrivateRedis() as server:` runs `redis-server` on a free port of 127.0.0.1.

    `start` after `stop` or `kill` brings it back empty, on the same port.
    """

    def __init__(self, *options: str, password: str | None = None) -> None:
        """Take further options of redis-server, such as `"--maxmemory", "2mb"`, and the password they set."""
        binary = shutil.which("redis-server", path=f"{os.environ.get('PATH', '')}:{_PLACES}")
        if binary is None:
            raise RuntimeError("redis-server was not found: install the package redis-server")
        self.binary = binary
        self._options = options
        self._password = password
        self.port = free_ports(1)[0]
        self.directory = watcher.make_directory("hopgate-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *options: str, is_loading: bool = False) -> None:
        """Start with further *options*; return when it answers; with *is_loading*, while it still loads."""
        if self._process is not None:
            return
        log = self.directory / "redis.log"
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--daemonize", "no"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        command += ["--logfile", str(log), *self._options, *options]
        self._process = processes.start(command, output=log)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers(is_loading=is_loading):
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = log.read_text(errors="replace") if log.exists() else ""
                self.kill()
                raise RuntimeError(f"redis-server did not start:\n{text[-2000:]}")
            time.sleep(0.01)

    @property
    def is_loading(self) -> bool:
        return self._answers(is_loading=True) and not self._answers()

    def wait_loaded(self) -> None:
        """Return when everything is loaded."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError("redis-server is still loading")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it by SIGTERM, as an operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it by SIGKILL, as the kernel does when memory runs out."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Make it silent: connections stay open, and no answer comes."""
        if self._process is not None:
            processes.pause(self._process.pid)

    def resume(self) -> None:
        """End `pause`."""
        if self._process is not None:
            processes.resume(self._process.pid)

    def command(self, *arguments: str | bytes | int) -> object:
        """Run one command outside of the adapter and return the reply."""
        with redis.Redis(port=self.port, password=self._password, socket_timeout=5) as client:
            return client.execute_command(*arguments)

    def config_set(self, name: str, value: str) -> None:
        """Change a setting of the running server."""
        self.command("CONFIG", "SET", name, value)

    def info(self) -> dict[str, object]:
        """Return the reply to `INFO`."""
        reply = self.command("INFO")
        assert isinstance(reply, dict)
        return reply

    def used_memory(self) -> int:
        """Return how many bytes it holds."""
        return int(str(self.info()["used_memory"]))

    def values(self, pattern: str) -> dict[str, bytes]:
        """Return the strings whose keys match *pattern*."""
        with redis.Redis(port=self.port, password=self._password, socket_timeout=5) as client:
            found = {key: client.get(key) for key in client.scan_iter(match=pattern, count=1000)}
        return {key.decode(): value for key, value in found.items() if value is not None}

    def flush(self) -> None:
        """Forget all keys."""
        self.command("FLUSHALL")

    def close(self) -> None:
        """End the server and remove its directory."""
        self.kill()
        watcher.remove_directory(self.directory)

    def __enter__(self) -> PrivateRedis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answers(self, *, is_loading: bool = False) -> bool:
        try:
            with redis.Redis(port=self.port, password=self._password, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.BusyLoadingError:
            return is_loading
        except redis.RedisError:
            return False

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            processes.end(self._process, number, within_s=5)
            self._process = None
