"""Processes that are killed, paused or restarted: servers, the worker, gateways."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.breaks.network import opened
from tests.faults.harness.drill import Fault
from tests.faults.harness.stage import Stage


def killed(service: str) -> Fault:
    """SIGKILL, then restart on the same port: Redis is empty, the others keep their data."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        server = getattr(stage.servers, service)
        server.kill()
        try:
            yield
        finally:
            server.start()

    return fault


def paused(service: str) -> Fault:
    """SIGSTOP, then SIGCONT: connections stay open without a response."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        server = getattr(stage.servers, service)
        server.pause()
        try:
            yield
        finally:
            server.resume()

    return fault


@contextmanager
def worker_restarted(stage: Stage) -> Iterator[None]:
    """Kill the worker and start it again at once."""
    stage.worker.kill()
    stage.worker.start()
    yield


@contextmanager
def worker_paused(stage: Stage) -> Iterator[None]:
    """SIGSTOP the worker, then SIGCONT."""
    stage.worker.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        stage.worker.signal(signal.SIGCONT)


@contextmanager
def gateway_worker_killed(stage: Stage) -> Iterator[None]:
    """Kill the worker process of the first gateway; its parent starts another."""
    for pid in stage.children(stage.gateways[0].pid):
        os.kill(pid, signal.SIGKILL)
    yield


@contextmanager
def gateways_restarted(stage: Stage) -> Iterator[None]:
    """Restart one gateway after the other by SIGTERM, while clients hold connections open."""
    for gateway in stage.gateways:
        with (
            opened(gateway.port, b"GET / HTTP/1.1\r\nHost: a\r\n"),
            opened(gateway.port, b""),
        ):
            began = time.monotonic()
            assert gateway.stop(40) == 0
            stage.restarts_s.append(time.monotonic() - began)
        gateway.start()
        time.sleep(0.5)
    yield
