"""Measures recovery: readiness, processes, file descriptors, and the cache against the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from app.domain.link import Resolution, Slug
from app.wire import cache_key, decode_resolution
from tests.faults.harness.observer import stored
from tests.faults.harness.stage import Stage
from tests.servers.hopgate import Gateway, eventually

LOAD = {"visits": 100.0, "creates": 10.0, "edits": 3.0, "warm": 100}


_RECOVERY_S = 20.0


@contextmanager
def recovery_noted(stage: Stage, recovery: list[float]) -> Iterator[None]:
    """Append to *recovery* the seconds until every gateway is ready and has all circuit breakers closed."""
    began = time.monotonic()
    time.sleep(1.5)  # /readyz caches its checks for a second

    def watch() -> None:
        with suppress(AssertionError):
            eventually(lambda: all(map(_is_ready, stage.gateways)), _RECOVERY_S + 5)
            recovery.append(time.monotonic() - began)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _is_ready(gateway: Gateway) -> bool:
    with suppress(httpx.HTTPError):
        document = httpx.get(f"{gateway.url}/readyz", timeout=2).json()
        return document["status"] == "ok" and set(document["breakers"].values()) == {"closed"}
    return False


def processes(stage: Stage) -> set[int]:
    """Return the process ids of the worker and of every gateway worker."""
    return {stage.worker.pid, *(pid for gateway in stage.gateways for pid in stage.children(gateway.pid))}


def descriptors(stage: Stage) -> list[int]:
    """Return the number of open file descriptors of each gateway worker and of the worker."""
    pids = [pid for gateway in stage.gateways for pid in stage.children(gateway.pid)]
    return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in [*pids, stage.worker.pid]]


def cached_wrong(stage: Stage, values: Callable[[str], Mapping[str, bytes]]) -> int:
    """Count the cached entries that differ from the store; wait up to half a minute until there are none."""
    wrong = -1
    end = time.monotonic() + 30
    while wrong and time.monotonic() < end:
        held = values(cache_key(Slug("*")))
        links = stored(stage)
        expected = {cache_key(link.slug): Resolution.of(link) for link in links.values()}
        slugs = {cache_key(link.slug): link.slug for link in links.values()}
        wrong = sum(
            decode_resolution(slugs[key], value) != expected[key]
            for key, value in held.items()
            if key in expected
        )
        time.sleep(0.5)
    return wrong
