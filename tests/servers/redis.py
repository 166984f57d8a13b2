"""A Redis of our own: an own port, an own directory, gone when the tests are."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import redis

from tests.servers import processes
from tests.servers.ports import free_ports

_PLACES = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
_START_TIMEOUT_S = 10.0


class PrivateRedis:
    """
    `with PrivateRedis() as server:` runs `redis-server` on a free port of 127.0.0.1.

    `start` after `stop` or `kill` brings it back empty, on the same port.
    """

    def __init__(self, *options: str) -> None:
        """Take further options of redis-server, such as `"--maxmemory", "2mb"`."""
        binary = shutil.which("redis-server", path=f"{os.environ.get('PATH', '')}:{_PLACES}")
        if binary is None:
            raise RuntimeError("redis-server was not found: install the package redis-server")
        self._binary = binary
        self._options = options
        self.port = free_ports(1)[0]
        self.directory = Path(tempfile.mkdtemp(prefix="hopgate-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *options: str, is_loading: bool = False) -> None:
        """Start with further *options*; return when it answers, or, if *is_loading*, says that it loads."""
        if self._process is not None:
            return
        log = self.directory / "redis.log"
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--daemonize", "no"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        command += ["--logfile", str(log), *self._options, *options]
        # Its own process group, so that Ctrl-C reaches the tests only.
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
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
        """End it as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as the kernel would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Make it silent: connections stay open, nothing is answered."""
        if self._process is not None:
            processes.pause(self._process.pid)

    def resume(self) -> None:
        """End `pause`."""
        if self._process is not None:
            processes.resume(self._process.pid)

    def command(self, *arguments: str | bytes | int) -> object:
        """Run one command outside of the adapter and return the reply."""
        with redis.Redis(port=self.port, socket_timeout=5) as client:
            return client.execute_command(*arguments)

    def config_set(self, name: str, value: str) -> None:
        """Change a setting of the running server."""
        self.command("CONFIG", "SET", name, value)

    def info(self) -> dict[str, object]:
        """Return what `INFO` says."""
        reply = self.command("INFO")
        assert isinstance(reply, dict)
        return reply

    def used_memory(self) -> int:
        """Return how many bytes it holds."""
        return int(str(self.info()["used_memory"]))

    def values(self, pattern: str) -> dict[str, bytes]:
        """Return the strings whose keys match *pattern*."""
        with redis.Redis(port=self.port, socket_timeout=5) as client:
            found = {key: client.get(key) for key in client.scan_iter(match=pattern, count=1000)}
        return {key.decode(): value for key, value in found.items() if value is not None}

    def flush(self) -> None:
        """Forget all keys."""
        self.command("FLUSHALL")

    def close(self) -> None:
        """End the server and remove its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> PrivateRedis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answers(self, *, is_loading: bool = False) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.BusyLoadingError:
            return is_loading
        except redis.RedisError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(number)
        self._signal(signal.SIGCONT)  # a paused one would not see SIGTERM
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._process = None
