"""Loads: wrk for maximum throughput, h2load for latency at a fixed rate."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.processes import LOAD_CPU, Server

_SCRIPT = Path(__file__).parent / "lua" / "visit.lua"
_PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client", "nginx": "nginx-light", "taskset": "util-linux"}


@dataclass(frozen=True, slots=True)
class Visit:
    """
    How a server is visited.

    Args:
        path: the path to request, unless `paths` is given.
        paths: a file with one path per line; every turn starts at another line.
        right: the expected statuses; others count as errors.
        close: open a new connection for each request.
        create_every: every n-th request creates a link, with the API key `key`; 0 for none.
    """

    path: str = "/"
    paths: Path | None = None
    right: tuple[int, ...] = (302,)
    connections: int = 64
    close: bool = False
    create_every: int = 0
    key: str = ""


class Seen(NamedTuple):
    """One response: time of the request (unix time, µs), status, and latency (µs)."""

    at_us: int
    status: int
    took_us: int


@dataclass(frozen=True, slots=True)
class Load:
    """
    The figures of one turn. `bad` counts unexpected statuses and broken connections.

    `cpu_us` is the processor time of the server per request, in µs; see `flood` for what is subtracted.
    """

    requests: int
    per_second: float
    bad: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_us: float = 0.0

    @property
    def us_each(self) -> float:
        """The time per request, in µs, if requests are sequential."""
        return 1e6 / self.per_second


def check_tools() -> None:
    """Exit with a message that names the missing programs."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    missing = sorted(package for tool, package in _PACKAGES.items() if not shutil.which(tool, path=path))
    if missing:
        raise SystemExit(f"the benchmarks need programs: apt-get install {' '.join(missing)}")


def idle_share(server: Server, *, seconds: int) -> float:
    """Return the share of a processor that *server* uses while nothing is requested, over *seconds*."""
    before_s, began = server.cpu_s(), time.monotonic()
    time.sleep(seconds)
    return (server.cpu_s() - before_s) / (time.monotonic() - began)


def flood(server: Server, visit: Visit, *, seconds: int, start: int = 0, idle: float = 0.0) -> Load:
    """
    Request as fast as responses arrive, from one thread, beginning with path number *start*.

    Args:
        idle: subtracted from the processor time: what the server uses anyway, as a share of one.
    """
    command = ["wrk", "-t1", f"-c{visit.connections}", f"-d{seconds}s", "-s", str(_SCRIPT)]
    command += ["-H", "Connection: close"] if visit.close else []
    command += [_url(server, visit)]
    if visit.paths is not None:
        right = ",".join(map(str, visit.right))
        command += ["--", str(visit.paths), str(start), right, str(visit.create_every), visit.key]
    before_s = server.cpu_s()
    out = json.loads(_run(command).splitlines()[-1])
    cpu_s = server.cpu_s() - before_s
    if not out["requests"]:
        raise RuntimeError(f"no request was answered: {out}")
    return Load(
        requests=out["requests"],
        per_second=out["requests"] / (out["us"] / 1e6),
        bad=out["wrong"] + out["broken"],
        p50_ms=out["p50"] / 1000,
        p99_ms=out["p99"] / 1000,
        p999_ms=out["p999"] / 1000,
        cpu_us=max(0.0, cpu_s * 1e6 - idle * out["us"]) / out["requests"],
    )


def at_rate(
    server: Server, visit: Visit, *, seconds: int, rate: float, addresses: Sequence[str] = ("",)
) -> Load:
    """
    Request *rate* times a second, independent of response times.

    A connection has one request in flight, so a slow response delays those due meanwhile. Their
    latencies are added as if they had been sent on time, as wrk2 does (coordinated omission).

    Args:
        addresses: clients in X-Forwarded-For, for a server that trusts this machine;
            `visit.connections` is a multiple of their number.
    """
    each_s = visit.connections / rate
    arguments = [f"-c{visit.connections // len(addresses)}", f"--rps={1 / each_s:.6f}", f"-D{seconds}"]
    headers = [["-H", f"X-Forwarded-For: {address}"] if address else [] for address in addresses]
    return _h2load(server, visit, [[*arguments, *header] for header in headers], each_s)


def counted(server: Server, visit: Visit, *, count: int) -> Load:
    """
    Request *count* times, as fast as responses arrive, and wait for every response.

    If the server dies, the result has fewer `requests`; up to one per connection is not counted.
    """
    return _h2load(server, visit, [[f"-c{visit.connections}", f"-n{count}"]], None)


def one_by_one(server: Server, visit: Visit, *, count: int) -> Load:
    """Request the first *count* paths in sequence on one connection."""
    return counted(server, dataclasses.replace(visit, connections=1), count=count)


def _h2load(server: Server, visit: Visit, commands: Sequence[Sequence[str]], each_s: float | None) -> Load:
    """Run all *commands* concurrently and combine their responses."""
    with tempfile.TemporaryDirectory(prefix="hopgate-h2load-") as folder:
        urls = urls_of(server, visit, Path(folder))
        before_s = server.cpu_s()
        with ThreadPoolExecutor(len(commands)) as pool:
            seen = list(itertools.chain(*pool.map(answers, [[*command, urls] for command in commands])))
        cpu_s = max(0.0, server.cpu_s() - before_s)  # a killed server has none
    return put_together(seen, visit.right, each_s=each_s, cpu_s=cpu_s)


def answers(arguments: Sequence[str]) -> list[Seen]:
    """Run h2load with one thread and return every response."""
    with tempfile.NamedTemporaryFile(prefix="hopgate-h2load-") as log:
        _run(["h2load", "--h1", "-t1", f"--log-file={log.name}", *arguments])
        return [Seen(*map(int, line.split(b"\t"))) for line in log]


def put_together(
    seen: Sequence[Seen], right: Sequence[int], *, each_s: float | None = None, cpu_s: float = 0.0
) -> Load:
    """Return the figures of *seen*; each connection was due to send a request every *each_s*."""
    if len(seen) < 2:
        raise RuntimeError("h2load received no responses")
    span_s = (max(one.at_us + one.took_us for one in seen) - min(one.at_us for one in seen)) / 1e6
    latencies_ms = sorted(_as_planned([one.took_us / 1000 for one in seen], each_s))
    return Load(
        requests=len(seen),
        per_second=len(seen) / span_s,
        bad=sum(one.status not in right for one in seen),
        p50_ms=percentile(latencies_ms, 0.5),
        p99_ms=percentile(latencies_ms, 0.99),
        p999_ms=percentile(latencies_ms, 0.999),
        cpu_us=cpu_s * 1e6 / len(seen),
    )


def urls_of(server: Server, visit: Visit, folder: Path) -> str:
    """Return the argument of h2load for the paths of *visit*."""
    if visit.paths is None:
        return _url(server, visit)
    file = folder / "urls.txt"
    file.write_text(
        "".join(f"http://127.0.0.1:{server.port}{path}\n" for path in visit.paths.read_text().split())
    )
    return f"--input-file={file}"


def _as_planned(latencies_ms: Iterable[float], each_s: float | None) -> Iterable[float]:
    """Add the latencies of requests that a slow response delayed; one was due every *each_s*."""
    for latency_ms in latencies_ms:
        yield latency_ms
        while each_s is not None and (latency_ms := latency_ms - each_s * 1000) > 0:
            yield latency_ms


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that *share* of *ordered* (ascending, not empty) do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _url(server: Server, visit: Visit) -> str:
    return f"http://127.0.0.1:{server.port}{visit.path}"


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        ["taskset", "--cpu-list", str(LOAD_CPU), *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
