"""
How fast is a redirect, beside the server under it and beside Robyn's own?

Usage: python -m bench.redirect [--rounds N] [--seconds S]

All servers run at once, one worker each on one processor; wrk visits them in turn, so that a
slow moment of the machine hits all of them. The ratio of each round is taken before the
median, which is what is written to bench/RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from app.bootstrap import open_store
from app.migrations import migrate
from app.service import keys
from app.settings import Settings
from bench.processes import Load, free_port, serving, wrk

RESULTS = Path(__file__).parent / "RESULTS.md"
_UNLIMITED = "1000000000/s burst 1000000000"
_TARGET = "https://example.com/a/long/path?with=query"


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds < 1:
        parser.error("at least one round of one second")
    with tempfile.TemporaryDirectory(prefix="hopgate-bench-") as folder:
        rounds = measure(Path(folder), arguments.rounds, arguments.seconds)
    text = report(rounds, arguments.seconds)
    RESULTS.write_text(text)
    print(text)


def measure(folder: Path, rounds: int, seconds: int) -> list[dict[str, Load]]:
    """Return, for each round, the load that each server carried."""
    environment = {"HOPGATE_DATA_DIR": str(folder), "HOPGATE_LIMIT_REDIRECT": _UNLIMITED}
    settings = Settings(data_dir=folder)
    migrate(settings.store_url)
    key = asyncio.run(_make_key(settings))
    ports = {name: free_port() for name in ("hopgate", "handler", "bare", "robyn")}
    granian = [sys.executable, "-m", "granian", "--interface", "rsgi", "--loop", "uvloop", "--no-ws"]
    commands = {
        "hopgate": [sys.executable, "-m", "app.cli", "serve"],
        "handler": [*granian, "--factory", "--port", str(ports["handler"]), "tests.servers.lane_off:create"],
        "bare": [*granian, "--port", str(ports["bare"]), "bench.servers.bare_rsgi:app"],
        "robyn": [sys.executable, "-m", "bench.servers.robyn_own", str(ports["robyn"])],
    }
    with contextlib.ExitStack() as running:
        for name, command in commands.items():
            bind = {"HOPGATE_BIND": f"127.0.0.1:{ports[name]}"}
            running.enter_context(serving(command, ports[name], {**environment, **bind}))
        slug = _create(ports["hopgate"], key)
        urls = {name: f"http://127.0.0.1:{port}/{slug}" for name, port in ports.items()}
        for url in urls.values():
            wrk(url, seconds=1)
        return [{name: wrk(url, seconds=seconds) for name, url in urls.items()} for _ in range(rounds)]


async def _make_key(settings: Settings) -> str:
    text, record = keys.issue("bench", keys.ALL_SCOPES, now=datetime.now(UTC), choice=_choice)
    async with open_store(settings) as store:
        await store.add_key(record)
    return text


def _choice(text: str) -> str:
    return text[int.from_bytes(os.urandom(4)) % len(text)]


def _create(port: int, key: str) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/links",
        json.dumps({"long_url": _TARGET}).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(json.load(answer)["slug"])


_NAMES: Mapping[str, str] = {
    "hopgate": "Hopgate (limiter, first cache, redirect lane)",
    "handler": "Hopgate without the lane (Robyn handler on granian)",
    "bare": "granian alone, RSGI, constant 302",
    "robyn": "the same handler on Robyn's own server",
}


def report(rounds: list[dict[str, Load]], seconds: int) -> str:
    """Return the figures as Markdown."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    sha = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("granian", "robyn", "uvloop", "hopgate-limiter")
    )
    lines = [
        "# Redirects, measured",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, commit {sha}, {len(os.sched_getaffinity(0))} processors.",
        f"Python {platform.python_version()}, {packages}.",
        f"`wrk -t1 -c64 -d{seconds}s`, {len(rounds)} rounds, all servers visited in turn; one worker each.",
        "",
        "A ratio is taken within each round; the table shows the median (and the range). Absolute",
        "figures are those of a small shared machine and mean nothing elsewhere.",
        "",
        "| server | requests/s | p99 ms | bad answers | Hopgate ÷ this |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, title in _NAMES.items():
        loads = [one[name] for one in rounds]
        ratios = [one["hopgate"].per_second / one[name].per_second for one in rounds]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(
            f"| {title} | {statistics.median(load.per_second for load in loads):,.0f} "
            f"| {statistics.median(load.p99_ms for load in loads):.1f} | {sum(load.bad for load in loads)} "
            f"| {'' if name == 'hopgate' else ratio} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
