"""The load: wrk for as much as goes through, h2load for the latency at a fixed rate."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import tempfile
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
        path: what is asked for, unless `paths` names a file with many.
        paths: one a line; every turn starts somewhere else in it.
        right: the statuses that are no error.
        close: a new connection for each request.
        create_every: each so-many-th request creates a link, with the API key `key`.
    """

    path: str = "/"
    paths: Path | None = None
    right: tuple[int, ...] = (302,)
    connections: int = 64
    close: bool = False
    create_every: int = 0
    key: str = ""


class Seen(NamedTuple):
    """One answer: when it was asked for (unix time), its status, and how long it took; in µs."""

    at_us: int
    status: int
    took_us: int


@dataclass(frozen=True, slots=True)
class Load:
    """
    What one turn saw. `bad`: wrong statuses and broken connections.

    `cpu_us`: the server's processor time for each request, in µs, whatever else the machine did.
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
        """The time of one request after the other, in µs."""
        return 1e6 / self.per_second


def check_tools() -> None:
    """Say in one line what is missing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    missing = sorted(package for tool, package in _PACKAGES.items() if not shutil.which(tool, path=path))
    if missing:
        raise SystemExit(f"the benchmarks need programs: apt-get install {' '.join(missing)}")


def flood(server: Server, visit: Visit, *, seconds: int, start: int = 0) -> Load:
    """Ask as fast as answers come, from one thread; begin with the path numbered *start*."""
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
        raise RuntimeError(f"no request came through: {out}")
    return Load(
        out["requests"],
        out["requests"] / (out["us"] / 1e6),
        out["wrong"] + out["broken"],
        *(out[name] / 1000 for name in ("p50", "p99", "p999")),
        cpu_s * 1e6 / out["requests"],
    )


def at_rate(
    server: Server, visit: Visit, *, seconds: int, rate: float, addresses: Sequence[str] = ("",)
) -> Load:
    """
    Ask *rate* times a second, however long answers take.

    A connection has one request under way, so a slow answer holds back those that were due
    meanwhile. They are added, as late as they would have been (as wrk2 does).

    Args:
        addresses: clients by turns, told in X-Forwarded-For to a server that trusts this machine;
            `visit.connections` is a multiple of their number.
    """
    each_s = visit.connections / rate
    arguments = [f"-c{visit.connections // len(addresses)}", f"--rps={1 / each_s:.6f}", f"-D{seconds}"]
    headers = [["-H", f"X-Forwarded-For: {address}"] if address else [] for address in addresses]
    return _h2load(server, visit, [[*arguments, *header] for header in headers], each_s)


def counted(server: Server, visit: Visit, *, count: int) -> Load:
    """
    Ask *count* times, as fast as answers come, and wait for every answer.

    Fewer `requests` in the result: the server died, and up to one a connection was not answered.
    """
    return _h2load(server, visit, [[f"-c{visit.connections}", f"-n{count}"]], None)


def one_by_one(server: Server, visit: Visit, *, count: int) -> Load:
    """Ask for the first *count* paths, one after the other, on one connection."""
    return counted(server, dataclasses.replace(visit, connections=1), count=count)


def _h2load(server: Server, visit: Visit, commands: Sequence[Sequence[str]], each_s: float | None) -> Load:
    """Run all of *commands* at once and put together what they saw."""
    with tempfile.TemporaryDirectory(prefix="hopgate-h2load-") as folder:
        urls = urls_of(server, visit, Path(folder))
        before_s = server.cpu_s()
        with ThreadPoolExecutor(len(commands)) as pool:
            seen = list(itertools.chain(*pool.map(answers, [[*command, urls] for command in commands])))
        cpu_s = max(0.0, server.cpu_s() - before_s)  # a server that was killed has none
    return put_together(seen, visit.right, each_s=each_s, cpu_s=cpu_s)


def answers(arguments: Sequence[str]) -> list[Seen]:
    """Run h2load, with one thread, and return every answer it saw."""
    with tempfile.NamedTemporaryFile(prefix="hopgate-h2load-") as log:
        _run(["h2load", "--h1", "-t1", f"--log-file={log.name}", *arguments])
        return [Seen(*map(int, line.split(b"\t"))) for line in log]


def put_together(
    seen: Sequence[Seen], right: Sequence[int], *, each_s: float | None = None, cpu_s: float = 0.0
) -> Load:
    """Return the figures of *seen*; one request was due every *each_s* on its connection."""
    if len(seen) < 2:
        raise RuntimeError("h2load saw no answers")
    span_s = (max(one.at_us + one.took_us for one in seen) - min(one.at_us for one in seen)) / 1e6
    latencies_ms = sorted(_as_planned([one.took_us / 1000 for one in seen], each_s))
    return Load(
        len(seen),
        len(seen) / span_s,
        sum(one.status not in right for one in seen),
        *(percentile(latencies_ms, share) for share in (0.5, 0.99, 0.999)),
        cpu_s * 1e6 / len(seen),
    )


def urls_of(server: Server, visit: Visit, folder: Path) -> str:
    """Return h2load's argument for what is asked for."""
    if visit.paths is None:
        return _url(server, visit)
    file = folder / "urls.txt"
    file.write_text(
        "".join(f"http://127.0.0.1:{server.port}{path}\n" for path in visit.paths.read_text().split())
    )
    return f"--input-file={file}"


def _as_planned(latencies_ms: Iterable[float], each_s: float | None) -> Iterable[float]:
    """Add the requests that a slow answer held back; one was due every *each_s* on its connection."""
    for latency_ms in latencies_ms:
        yield latency_ms
        while each_s is not None and (latency_ms := latency_ms - each_s * 1000) > 0:
            yield latency_ms


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value of *ordered* (ascending, not empty) that *share* of them do not exceed."""
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
