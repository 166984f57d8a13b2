"""A private RabbitMQ: its own ports, epmd, cookie and directory, removed with the tests."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from types import TracebackType

from tests.servers import processes, watcher
from tests.servers.ports import free_ports, is_listening

# Debian's /usr/sbin/rabbitmq-server changes to the user rabbitmq and its directories; the
# scripts behind it take them from the environment.
_PLACES = "/usr/lib/rabbitmq/bin:/usr/local/lib/rabbitmq/bin:/opt/rabbitmq/sbin"
_START_TIMEOUT_S = 60.0

_NOT_YET = "requires the 'rabbit' app to be running"
_CONFIG = """
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 1MB
raft.wal_max_size_bytes = 16777216
log.file.level = warning
"""


class PrivateRabbit:
    """
    `with PrivateRabbit() as server:` runs a broker on free ports of 127.0.0.1.

    It keeps its data over `stop`, `kill` and `start`. Starting takes about five seconds and
    each `ctl` about one, so share one server and give each test module a virtual host.
    """

    def __init__(self) -> None:
        path = f"{_PLACES}:{os.environ.get('PATH', '')}"
        server, ctl = shutil.which("rabbitmq-server", path=path), shutil.which("rabbitmqctl", path=path)
        epmd, call = (shutil.which(name, path=f"{path}:/usr/lib/erlang/bin") for name in ("epmd", "erl_call"))
        if server is None or ctl is None or epmd is None or call is None:
            raise RuntimeError("rabbitmq-server was not found: install the package rabbitmq-server")
        self._server, self._ctl, self._epmd, self._call = server, ctl, epmd, call
        self.port, self._dist_port, self._epmd_port = free_ports(3)
        # Of the plugin rabbitmq_prometheus, if it is configured.
        self.metrics_port = 0
        self.directory = watcher.make_directory("hopgate-rabbit-")
        self._environment = self._make_environment()
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd_process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The default virtual host."""
        return self.url_of("%2F")

    def url_of(self, vhost: str) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost}"

    def start(self) -> None:
        """Start, and return when it speaks AMQP."""
        if self._process is not None:
            return
        if self._epmd_process is None:
            # The epmd that erl would start outlives the tests.
            command = [self._epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd_process = self._spawn(command)
            self._wait(lambda: is_listening(self._epmd_port), self._epmd_process)
        self._process = self._spawn([self._server])
        self._wait(self._speaks_amqp, self._process)

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

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl and return what it printed."""
        command = [self._ctl, "--quiet", *arguments]
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            done = subprocess.run(
                command, env=self._environment, capture_output=True, text=True, timeout=60, check=False
            )
            if done.returncode == 0:
                return done.stdout
            # It speaks AMQP a moment before it counts as running.
            if _NOT_YET not in done.stderr or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")

    def _evaluate(self, expression: str) -> str:
        """Have the node evaluate an Erlang expression, and return its value as it prints it."""
        cookie = (self.directory / ".erlang.cookie").read_text()
        command = [self._call, "-n", self._environment["RABBITMQ_NODENAME"], "-c", cookie, "-e"]
        done = subprocess.run(
            command,
            env=self._environment,
            input=f"{expression}.\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return (done.stdout + done.stderr).strip()

    def add_vhost(self, name: str) -> str:
        """Make an empty virtual host and return its URL."""
        allowed = {"user": "guest", "vhost": name, "configure": ".*", "write": ".*", "read": ".*"}
        definitions = json.dumps({"vhosts": [{"name": name}], "permissions": [allowed]})
        # Escaped once more, JSON is a string of Erlang; and `ctl` would start an Erlang for this.
        imports = f"rabbit_definitions:import_raw(<<{json.dumps(definitions)}>>)"
        # It speaks AMQP a moment before it counts as running.
        imported = self._evaluate(f"ok = rabbit:await_startup(node(), false, 60000), {imports}")
        if imported != "{ok, ok}":
            raise RuntimeError(f"the virtual host {name} was not made: {imported}")
        return self.url_of(name)

    def close(self) -> None:
        """End every process and remove the directory."""
        self.kill()
        if self._epmd_process is not None:
            processes.end(self._epmd_process, signal.SIGKILL)
            self._epmd_process = None
        watcher.remove_directory(self.directory)

    def __enter__(self) -> PrivateRabbit:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make_environment(self) -> dict[str, str]:
        here = self.directory
        (here / "rabbitmq.conf").write_text(_CONFIG)
        (here / "rabbitmq-env.conf").write_text("")
        (here / "enabled_plugins").write_text("[].")
        cookie = here / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(20))
        cookie.chmod(0o400)
        ours = {
            "HOME": str(here),
            "RABBITMQ_NODENAME": f"hopgate{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": str(here / "erl_crash.dump"),
            "RABBITMQ_MNESIA_BASE": str(here / "data"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RABBITMQ_PID_FILE": str(here / "pid"),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(here / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            # One scheduler, no busy waiting: the tests need the processor too.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +SDcpu 1:1 +SDio 4 +sbwt none",
            "RABBITMQ_CTL_ERL_ARGS": "+S 1:1 +sbwt none",
            # Makes the script become the node, so that there is one process to signal.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        foreign = ("RABBITMQ_", "ERL_", "NOTIFY_SOCKET")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        return {**kept, **ours}

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        return processes.start(
            command,
            output=self.directory / "output.log",
            environment=self._environment,
            directory=self.directory,
        )

    def _wait(self, is_ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                output = (self.directory / "output.log").read_text(errors="replace")
                raise RuntimeError(f"rabbitmq-server or its epmd did not start:\n{output[-3000:]}")
            time.sleep(0.05)

    def _speaks_amqp(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            processes.end(self._process, number, within_s=30)
            self._process = None
