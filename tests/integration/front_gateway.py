"""A gateway with the front in front of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.servers.hopgate import UNLIMITED, Gateway, hopgate, make_store
from tests.servers.raw_http import RawAnswer, answered
from tests.unit.exposition import samples

FRONT = {"HOPGATE_FRONT": "on"}
# As it was before: tests that have it keep that arrangement right.
ALONE = {"HOPGATE_FRONT": "off"}
# The `server` of the front's own answers.
OWN_NAME = "hopgate"
TARGET = "https://example.com/"


def get(gateway: Gateway, path: str, *headers: str, version: str = "1.1") -> RawAnswer:
    """GET *path* on a connection of its own."""
    lines = [f"GET {path} HTTP/{version}", "Host: hop.example", "Connection: close", *headers]
    return answered(gateway.port, "\r\n".join([*lines, "", ""]).encode("latin-1"))


def is_of_the_front(answer: RawAnswer) -> bool:
    """Did the front answer by itself?"""
    return answer.header("server") == OWN_NAME


def total(gateway: Gateway, name: str, **labels: str) -> float:
    """Return the sum of the samples *name* with these labels."""
    text = get(gateway, "/metrics").body.decode()
    return sum(one.value for one in samples(text, name) if labels.items() <= one.labels.items())


def settled(read: Callable[[], float]) -> float:
    """Return what *read* returns once it stays the same for two seconds: the front counts each second."""
    value, since = read(), time.monotonic()
    deadline = since + 30
    while time.monotonic() < since + 2:
        assert time.monotonic() < deadline, "it goes on changing"
        time.sleep(0.1)
        if (found := read()) != value:
            value, since = found, time.monotonic()
    return value


def workers_of(gateway: Gateway) -> list[int]:
    """Return the process ids of the workers of *gateway*."""
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return [int(pid) for pid in children]


def limited(tmp_path: Path, **limits: str) -> Gateway:
    """Return a gateway with a front, these limits, and the link `known`."""
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), **UNLIMITED, **FRONT, **limits}
    make_store(settings)
    done = hopgate(settings, "links", "create", TARGET, "--slug", "known")
    assert done.returncode == 0, done.stderr
    return Gateway(settings, tmp_path)
