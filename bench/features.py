"""
Measures what domains, aliases, rules for case and statistics cost a redirect of the front, beside nginx.

    python -m bench.features                        # about five minutes
    python -m bench.features --rounds 3 --seconds 1

Embedded gateways with one process each and nginx run on one processor, wrk on another. All cases are visited
in turn, and each round begins with another one; a ratio is the median of those of its rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.contenders import CONTENDERS
from bench.load import check_tools
from bench.processes import LOAD_CPU, Server, free_port, serving
from tests.servers.hopgate import UNLIMITED, make_key

BASE, TARGET = "hop.example", "https://example.com/a/long/path?with=query"
CONNECTIONS = (1, 8, 64)
_SCRIPT = Path(__file__).parent / "lua" / "visit.lua"
# What a browser sends, and statistics describe.
_VISITOR = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0",
    "Accept-Language": "de-DE,de;q=0.9",
    "Referer": "https://news.example/story",
}


@dataclass(frozen=True, slots=True)
class Case:
    """A link, as it is visited: *path* at *host*."""

    name: str
    server: Server
    path: str = "/hot"
    host: str = BASE

    def flood(self, connections: int, seconds: int) -> tuple[float, float]:
        """Return requests a second and the server's processor time of each, in µs."""
        command = ["taskset", "--cpu-list", str(LOAD_CPU), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
        for name, value in {"Host": self.host, **_VISITOR}.items():
            command += ["-H", f"{name}: {value}"]
        command += ["-s", str(_SCRIPT), f"http://127.0.0.1:{self.server.port}{self.path}"]
        before_s = self.server.cpu_s()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        cpu_s = self.server.cpu_s() - before_s
        out = json.loads(done.stdout.splitlines()[-1])
        if out["wrong"] + out["broken"]:
            raise RuntimeError(f"{self.name}: wrong answers: {out}")
        return out["requests"] / out["us"] * 1e6, cpu_s * 1e6 / out["requests"]


def start(
    running: ExitStack, folder: Path, name: str, settings: Mapping[str, str]
) -> tuple[Server, httpx.Client]:
    """Start a gateway with the link `hot`; return it with a client of its API."""
    port = free_port()
    data = {
        "HOPGATE_DATA_DIR": str(folder / name),
        "HOPGATE_BASE_URL": f"http://{BASE}",
        **UNLIMITED,
        **settings,
    }
    key = make_key(data)
    command = CONTENDERS["hopgate"].command(port, 1, folder)
    bind = {"HOPGATE_BIND": f"127.0.0.1:{port}"}
    server = running.enter_context(serving(command, port, {**data, **bind}))
    headers = {"Authorization": f"Bearer {key}"}
    api = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", headers=headers, timeout=10)
    running.enter_context(api)
    made(api, "/links", long_url=TARGET, slug="hot")
    return server, api


def made(api: httpx.Client, path: str, **body: object) -> None:
    """Make what *body* describes."""
    answer = api.post(path, json=body)
    if answer.status_code != 201:
        raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text}")


def cases(running: ExitStack, folder: Path) -> list[Case]:
    """Start the servers; return what is visited: a gateway without any of it first, nginx last."""
    plain, _ = start(running, folder, "plain", {"HOPGATE_ANALYTICS": "off"})
    counted, _ = start(running, folder, "counted", {})
    full, api = start(running, folder, "full", {})
    for number in range(10):
        made(api, "/domains", host=f"d{number}.example")
    made(api, "/domains", host="nocase.example", case_sensitive=False)
    made(api, "/links", long_url=TARGET, slug="other", domain="d3.example")
    made(api, "/links", long_url=TARGET, slug="lower", domain="nocase.example")
    made(api, "/links", long_url=TARGET, slug="main", aliases=[{"slug": "alias"}])
    without, _ = start(running, folder, "without", {"HOPGATE_ANALYTICS": "off", "HOPGATE_FRONT": "off"})
    port = free_port()
    nginx = running.enter_context(serving(CONTENDERS["nginx"].command(port, 1, folder), port, {}))
    return [
        Case("statistics off, one domain", plain),
        Case("statistics on", counted),
        Case("also with twelve domains", full),
        Case("a link of another domain", full, "/other", "d3.example"),
        Case("of one without case, in capitals", full, "/LOWER", "nocase.example"),
        Case("an alias", full, "/alias"),
        Case("HOPGATE_FRONT=off, statistics off", without),
        Case("nginx", nginx),
    ]


def measure(found: list[Case], connections: int, rounds: int, seconds: int) -> list[str]:
    """Return a row of a table for each case."""
    figures: dict[str, list[tuple[float, float]]] = {case.name: [] for case in found}
    for number in range(rounds):
        first = number % len(found)
        for case in (*found[first:], *found[:first]):
            figures[case.name].append(case.flood(connections, seconds))
    base, nginx = figures[found[0].name], figures["nginx"]
    rows = []
    for name, mine in figures.items():
        rate, cpu_us = (statistics.median(values) for values in zip(*mine, strict=True))
        to_base = statistics.median(a / b for (a, _), (b, _) in zip(mine, base, strict=True))
        to_nginx = statistics.median(a / b for (_, a), (_, b) in zip(mine, nginx, strict=True))
        rows.append(
            f"| {connections} | {name} | {rate:,.0f} | {to_base:.3f} | {cpu_us:.1f} | {to_nginx:.2f} |"
        )
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2)
    arguments = parser.parse_args()
    check_tools()
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="hopgate-bench-")))
        found = cases(running, folder)
        for case in found:
            case.flood(8, 1)  # fills caches
        print("| connections | case | requests/s | ÷ the first | CPU, µs | ÷ nginx's CPU |")
        print("|---|---|---|---|---|---|")
        for connections in CONNECTIONS:
            print("\n".join(measure(found, connections, arguments.rounds, arguments.seconds)), flush=True)


if __name__ == "__main__":
    main()
