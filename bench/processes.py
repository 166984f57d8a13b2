"""Servers under measurement, and wrk: each on a processor of its own where there are two."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_START_S = 20.0
# Servers on the first processor, the load on the last; the same one if there is only one.
_CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = _CPUS[0], _CPUS[-1]


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw: requests per second, answers that were no 2xx or 3xx, errors, p99 in ms."""

    per_second: float
    bad: int
    p99_ms: float


def free_port() -> int:
    """Return a port that nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(command: Sequence[str], port: int, environment: Mapping[str, str]) -> Iterator[None]:
    """Run *command*, which listens on *port*, while the body runs."""
    process = subprocess.Popen(
        ["taskset", "--cpu-list", str(SERVER_CPU), *command],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + _START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} does not listen on {port}")
            time.sleep(0.05)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wrk(url: str, *, seconds: int, connections: int = 64) -> Load:
    """Ask for *url* as fast as answers come, from one thread."""
    if shutil.which("wrk") is None:
        raise SystemExit("the benchmark needs wrk: install the package wrk")
    command = ["taskset", "--cpu-list", str(LOAD_CPU), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    out = subprocess.run([*command, "--latency", url], capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec: +([\d.]+)", out)
    p99 = re.search(r"99% +([\d.]+)(us|ms|s)", out)
    if rate is None or p99 is None:
        raise RuntimeError(f"wrk said something else: {out}")
    bad = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", out)))
    bad += sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", out)))
    return Load(float(rate[1]), bad, float(p99[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
