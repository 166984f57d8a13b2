"""granian, with listening sockets that outlast its workers, and more patience with them."""

from __future__ import annotations

import math
import multiprocessing
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from granian.net import SocketHolder
from granian.server.mp import MPServer, WorkerProcess

# So often, in such a time, a worker has to die for the gateway to be given up.
DEATHS, DEATHS_WITHIN_S = 10, 20.0


class Server(MPServer):
    """
    granian as it is, but for what happens when a worker ends.

    There, each worker opens a socket of its own: when it dies, whoever waits for it is reset, and
    whoever comes is refused until another runs. Here this process opens one for each worker and
    keeps it, so they wait for the next worker, about a third of a second. The kernel spreads
    connections over the sockets (SO_REUSEPORT), as it does there. Before the first worker runs,
    whoever comes is refused, and may try another gateway.
    """

    def __init__(self, target: str, **options: Any) -> None:
        super().__init__(target, **options)
        self.respawned_wrks = Respawns()
        self._sockets: list[socket.socket] = []

    def _init_shared_socket(self) -> None:
        if multiprocessing.get_start_method() != "fork":
            # Only a fork has the sockets of its parent.
            super()._init_shared_socket()
            return
        self._ssp = self._sso = None
        for _ in range(self.workers):
            self._sockets.append(bound(self.bind_addr, self.bind_port))

    def _spawn_workers(self, spawn_target: Any, target_loader: Any) -> None:
        # Until its loop runs, a worker would lose the signal; `RsgiApplication` lets it through then.
        with _term_blocked():
            super()._spawn_workers(spawn_target, target_loader)

    def _respawn_workers(self, *arguments: Any, **options: Any) -> None:
        with _term_blocked():
            super()._respawn_workers(*arguments, **options)

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> WorkerProcess:
        if self._sockets:
            unix = False
            self._shd = SocketHolder(self._sockets[idx].fileno(), unix, self.backlog)
        others = [sock for sock in self._sockets if sock is not self._sockets[idx]]
        return super()._spawn_worker(idx, target, partial(_without, others, callback_loader))

    def _drop_shared_socket(self) -> None:
        super()._drop_shared_socket()
        # The workers close theirs when they have been told, so nobody comes who is not served.
        for sock in self._sockets:
            sock.close()


class Respawns(dict[int, float]):
    """
    When each worker was started again, as granian keeps it: a gateway ends if one dies 5.5 s after that.

    Two deaths would be enough, and every worker would go. Here it takes `DEATHS` within
    `DEATHS_WITHIN_S`: one that cannot start comes to that in seconds, one that is killed now and then never.
    """

    def __init__(self) -> None:
        super().__init__()
        self._latest: deque[float] = deque(maxlen=DEATHS)

    def __setitem__(self, worker: int, at: float) -> None:
        self._latest.append(at)
        super().__setitem__(worker, at)

    def get(self, worker: int, default: Any = 0.0) -> Any:
        """Return when *worker* was started again, if that was once too often."""
        span_s = self._latest[-1] - self._latest[0] if len(self._latest) == DEATHS else math.inf
        return super().get(worker, default) if span_s <= DEATHS_WITHIN_S else default


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound there, beside others. Its first worker makes it listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((host, port))
    return sock


@contextmanager
def _term_blocked() -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _without(others: Iterable[socket.socket], load: Callable[[], Any]) -> Any:
    # A socket listens as long as anybody has it; these are for their own workers to close.
    for sock in others:
        sock.close()
    return load()
