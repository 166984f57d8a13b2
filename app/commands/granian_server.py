"""granian's MPServer with listening sockets that outlive its workers, and a tolerant respawn limit."""

from __future__ import annotations

import math
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from typing import Any

from granian.net import SocketHolder
from granian.server.mp import MPServer, WorkerProcess

from app.commands.front_sockets import FrontSockets, forks

# The gateway exits once workers have died this often within this time.
MAX_DEATHS, DEATHS_WITHIN_S = 10, 20.0


class Server(MPServer):
    """
    granian's MPServer with listening sockets owned by the parent, so queued connections survive a worker.

    In granian each worker opens its own socket. When the worker dies, queued connections are reset, and
    new ones are refused until the next worker runs. Here the parent opens one socket per worker and
    keeps it: connections queue until the next worker accepts them, after about a third of a second. The
    kernel spreads connections over the sockets (SO_REUSEPORT), as with granian. Until the first worker
    runs, connections are refused, so that clients can try another gateway.

    With *front*, the public sockets are for the front of each worker, and granian serves its worker on a
    private Unix socket.

    With *is_renewed*, SIGHUP asks it, and is passed on to the workers if it says so, which read their
    certificates again; otherwise granian would replace the workers.
    """

    def __init__(
        self,
        target: str,
        *,
        front: FrontSockets | None = None,
        is_renewed: Callable[[], bool] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(target, **options)
        self._is_renewed = is_renewed
        self.respawned_wrks = Respawns()
        self._front = front
        # A worker would lose a SIGTERM that comes before its loop runs; `RsgiApplication` unblocks it then.
        # SIGINT would end granian before its front: `Fronted` takes it, and unblocks it after that.
        self._held_back = {signal.SIGTERM} if front is None else {signal.SIGTERM, signal.SIGINT}
        # By worker.
        self._sockets: list[list[socket.socket]] = []
        self._private: list[socket.socket] = []

    def signal_handler_reload(self, *arguments: Any, **options: Any) -> None:
        """Handle SIGHUP."""
        if self._is_renewed is None:
            super().signal_handler_reload(*arguments, **options)
        elif self._is_renewed():
            for worker in self.wrks:
                if worker.inner.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(worker.inner.pid, signal.SIGHUP)

    def _init_shared_socket(self) -> None:
        if not forks():
            # Only a forked worker inherits the sockets of its parent.
            super()._init_shared_socket()
            return
        self._ssp = self._sso = None
        each = 1 if self._front is None else self._front.threads
        for worker in range(self.workers):
            self._sockets.append([_bound_socket(self.bind_addr, self.bind_port) for _ in range(each)])
            if self._front is not None:
                self._private.append(self._front.private(worker, self.backlog))

    def _spawn_workers(self, spawn_target: Any, target_loader: Any) -> None:
        with _blocked(*self._held_back):
            super()._spawn_workers(spawn_target, target_loader)

    def _respawn_workers(self, *arguments: Any, **options: Any) -> None:
        with _blocked(*self._held_back):
            super()._respawn_workers(*arguments, **options)

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> WorkerProcess:
        if not self._sockets:
            return super()._spawn_worker(idx, target, callback_loader)
        own = self._sockets[idx]
        others = [sock for worker in self._sockets if worker is not own for sock in worker]
        load = callback_loader
        if self._front is None:
            unix = False
            self._shd = SocketHolder(own[0].fileno(), unix, self.backlog)
        else:
            unix = True
            self._shd = SocketHolder(self._private[idx].fileno(), unix, self.backlog)
            others += [sock for sock in self._private if sock is not self._private[idx]]
            load = partial(self._front.load, own, self._private[idx], load)
        return super()._spawn_worker(idx, target, partial(_without, others, load))

    def _drop_shared_socket(self) -> None:
        super()._drop_shared_socket()
        # Workers close their copies on SIGTERM: then no connection is accepted that is not served.
        for sock in chain(*self._sockets, self._private):
            sock.close()


class Respawns(dict[int, float]):
    """
    The time of each worker's last respawn, in the form that granian keeps and reads.

    granian exits if a worker dies within 5.5 s of its respawn, so two deaths take the gateway down. Here
    it takes `MAX_DEATHS` within `DEATHS_WITHIN_S`: a worker that cannot start reaches that in seconds, one
    that is killed now and then never does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._latest: deque[float] = deque(maxlen=MAX_DEATHS)

    def __setitem__(self, worker: int, at: float) -> None:
        self._latest.append(at)
        super().__setitem__(worker, at)

    def get(self, worker: int, default: Any = 0.0) -> Any:
        """Return the time of *worker*'s last respawn if the limit is reached, else *default*."""
        span_s = self._latest[-1] - self._latest[0] if len(self._latest) == MAX_DEATHS else math.inf
        return super().get(worker, default) if span_s <= DEATHS_WITHIN_S else default


def _bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket bound to *host* and *port*, shared with others. Its first worker makes it listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((host, port))
    return sock


@contextmanager
def _blocked(*signals: signal.Signals) -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def _without(others: Iterable[socket.socket], load: Callable[[], Any]) -> Any:
    # A socket listens as long as any process has it open. Each worker keeps its own only.
    for sock in others:
        sock.close()
    return load()
