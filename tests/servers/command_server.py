"""
Runs `hopgate COMMAND` in forks of one process that has imported the program.

A start imports for a third of a second, and the tests run hundreds of commands. A fork has its own
environment, session and output, and ends as the command does; what it lacks is the start itself,
which the tests of `python -m app.cli` cover.

    server = CommandServer()
    done = server.run(["links", "list"], environment, timeout=60)
    gateway = server.start(["serve"], environment, output=log)

The server process ends with the process that holds its standard input.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TextIO

from tests.servers import processes, watcher

_LENGTH = 8


class CommandServer:
    """The client's side: one server process, and a connection for each command."""

    def __init__(self) -> None:
        self._address = str(watcher.make_directory("hopgate-commands-") / "socket")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self._address)
        listener.listen(64)
        with listener:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.servers.command_server", str(listener.fileno())],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        watcher.watch_process(self._process.pid)
        # Python warns of a process that it leaves behind, and of its pipe.
        atexit.register(self._close)

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        processes.end(self._process, signal.SIGKILL)

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """
        Run `hopgate ARGUMENTS` to its end.

        Raises:
            subprocess.TimeoutExpired: it took longer than *timeout* seconds, and was killed.
        """
        with ThreadPoolExecutor(2) as readers:
            pipes = [os.pipe(), os.pipe()]
            command = self._fork(arguments, environment, [inlet for _, inlet in pipes])
            for _, inlet in pipes:
                os.close(inlet)
            output, errors = [readers.submit(_read_all, outlet) for outlet, _ in pipes]
            command.go_on()
            try:
                code = command.wait(timeout)
            except BaseException:  # the time limit of a test as well: the readers would wait for ever
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(command.pid, signal.SIGKILL)
                command.wait()
                raise
            return subprocess.CompletedProcess(list(arguments), code, output.result(), errors.result())

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, output: Path
    ) -> ForkedCommand:
        """Start `hopgate ARGUMENTS`, to run until this process ends at the latest."""
        with output.open("ab") as log:
            command = self._fork(arguments, environment, [log.fileno()] * 2)
        watcher.watch_process(command.pid)
        command.go_on()
        return command

    def _fork(
        self, arguments: Sequence[str], environment: Mapping[str, str], outlets: Sequence[int]
    ) -> ForkedCommand:
        """Return a fork that does nothing yet and writes to the two *outlets*."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        request = json.dumps([list(arguments), dict(environment), str(Path.cwd())]).encode()
        socket.send_fds(connection, [len(request).to_bytes(_LENGTH)], outlets)
        connection.sendall(request)
        return ForkedCommand(arguments, connection)


class ForkedCommand:
    """
    A started command, with what `subprocess.Popen` offers for it.

    Its number is given to no other process before `poll` or `wait` has returned its exit code.
    """

    def __init__(self, arguments: Sequence[str], connection: socket.socket) -> None:
        self._arguments = list(arguments)
        self._connection = connection
        self._replies = connection.makefile()
        self.pid = int(self._replies.readline())
        self.returncode: int | None = None

    def go_on(self) -> None:
        """End the wait that the fork begins with."""
        self._connection.sendall(b"\n")

    def poll(self) -> int | None:
        """Return the exit code, or None while the command runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """
        Return the exit code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: the command runs after *timeout* seconds.
        """
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self._arguments, timeout or 0)
            self.returncode = int(self._replies.readline())
            self._replies.close()
            self._connection.close()
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM, unless the command has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


def _read_all(pipe: int) -> str:
    # Line ends as `subprocess` reads them.
    with open(pipe, encoding="utf-8") as text:
        return text.read()


def serve(listener: socket.socket) -> None:
    """Answer until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection)
        connection.close()


def _answer(connection: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, _, _ = socket.recv_fds(connection, _LENGTH, 2)
    with connection.makefile("rb") as requests:
        arguments, environment, directory = json.loads(requests.read(int.from_bytes(head)))
    held, let_go = os.pipe()
    pid = os.fork()
    if pid == 0:
        connection.close()
        os.close(let_go)
        _become(arguments, environment, directory, files, held)
    for file in (held, *files):
        os.close(file)
    with contextlib.suppress(OSError):  # the client has ended
        connection.sendall(f"{pid}\n".encode())
        os.write(let_go, connection.recv(1))
    os.close(let_go)
    # The number stays taken until the client has read the code and closes its end.
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    with contextlib.suppress(OSError):
        connection.sendall(f"{code}\n".encode())
        connection.recv(1)
    os._exit(0)


def _become(
    arguments: list[str], environment: dict[str, str], directory: str, files: list[int], held: int
) -> NoReturn:
    """Run the command as the whole of this process, as soon as *held* says so."""
    from app import cli

    os.setsid()
    if not os.read(held, 1):
        os._exit(1)
    os.close(held)
    os.chdir(directory)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in zip([nothing, *files], (0, 1, 2), strict=True):
        os.dup2(source, target)
        os.close(source)
    # The former ones know whether those that they were opened for can be sought in.
    sys.stdout = _stream(1, sys.stdout)
    sys.stderr = _stream(2, sys.stderr)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    time.tzset()
    sys.argv = ["hopgate", *arguments]
    # Else the help would name this module as the program.
    sys.modules["__main__"].__package__ = None
    code = 1
    try:
        cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _stream(descriptor: int, like: TextIO) -> TextIO:
    return open(
        descriptor,
        "w",
        buffering=1 if like.line_buffering else -1,
        encoding=like.encoding,
        errors=like.errors,
        closefd=False,
    )


def _import_all() -> None:
    """Import and make what each command would."""
    import gc
    import pkgutil

    import robyn  # noqa: F401 - gateways import it when they start

    import app
    import worker
    from app.adapters.user_agents import rules
    from app.cli import runner

    for package in (app, worker):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    runner()
    rules()
    gc.freeze()


if __name__ == "__main__":
    _import_all()
    serve(socket.socket(fileno=int(sys.argv[1])))
