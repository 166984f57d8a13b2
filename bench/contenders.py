"""The servers under comparison: their titles in reports and their commands."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000;
    server {{ listen 127.0.0.1:{port} backlog=4096; return 302 https://example.com/a/long/path?with=query; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """
    One server.

    Args:
        title: its title in reports.
        command: returns its command line for a port, a number of workers, and a private folder.
        needs: a package that only requirements/bench.txt installs.
        is_traced: it sends its spans to a collector, which shares the processor of the load.
    """

    title: str
    command: Callable[[int, int, Path], list[str]]
    needs: str = ""
    is_traced: bool = False


def _hopgate(_port: int, _workers: int, _folder: Path) -> list[str]:
    return [sys.executable, "-m", "app.cli", "serve"]


def _varied(name: str, *variables: str) -> Callable[[int, int, Path], list[str]]:
    def command(_port: int, _workers: int, folder: Path) -> list[str]:
        # Gateways do not share a data folder: this one has a copy of the links.
        own = folder / name
        own.mkdir(mode=0o700, exist_ok=True)
        links = folder / "hopgate.db"
        if links.exists():
            with (
                closing(sqlite3.connect(links)) as source,
                closing(sqlite3.connect(own / links.name)) as copy,
            ):
                source.backup(copy)
        return ["env", *variables, f"HOPGATE_DATA_DIR={own}", sys.executable, "-m", "app.cli", "serve"]

    return command


def _granian(target: str, *options: str, interface: str = "rsgi") -> Callable[[int, int, Path], list[str]]:
    def command(port: int, workers: int, _folder: Path) -> list[str]:
        common = [sys.executable, "-m", "granian", "--interface", interface, "--loop", "uvloop"]
        # The same options as `hopgate serve`.
        common += ["--http", "1", "--no-ws"]
        return [*common, "--workers", str(workers), "--port", str(port), *options, target]

    return command


def _robyn(port: int, _workers: int, _folder: Path) -> list[str]:
    return [sys.executable, "-m", "bench.servers.robyn_own", str(port)]


def _uvicorn(port: int, _workers: int, _folder: Path) -> list[str]:
    fastest = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    target = "bench.servers.fastapi_own:create"
    return [sys.executable, "-m", "uvicorn", "--factory", "--port", str(port), *fastest, target]


def _nginx(port: int, _workers: int, folder: Path) -> list[str]:
    file = folder / f"nginx-{port}.conf"
    file.write_text(_NGINX.format(folder=folder, port=port))
    return ["/usr/sbin/nginx", "-e", "stderr", "-p", f"{folder}/", "-c", str(file)]


CONTENDERS: Mapping[str, Contender] = {
    "hopgate": Contender("Hopgate", _hopgate),
    "alone": Contender("Hopgate without its front", _varied("alone", "HOPGATE_FRONT=off")),
    "traced": Contender("Hopgate, 1 % of its requests traced", _varied("traced"), is_traced=True),
    "traced-all": Contender(
        "Hopgate, all of its requests traced",
        _varied("traced-all", "OTEL_TRACES_SAMPLER=always_on"),
        is_traced=True,
    ),
    "handler": Contender(
        "Hopgate without its fast path: its Robyn route on granian",
        _granian("tests.servers.fast_path_off:create", "--factory"),
    ),
    "bare": Contender("granian alone, RSGI, constant 302", _granian("bench.servers.bare_rsgi:app")),
    "robyn": Contender("the same handlers on Robyn's own server", _robyn),
    "fastapi": Contender("the same handler on FastAPI and uvicorn", _uvicorn, "fastapi"),
    "blacksheep": Contender(
        "the same handler on BlackSheep and granian (ASGI)",
        _granian("bench.servers.blacksheep_own:create", "--factory", interface="asgi"),
        "blacksheep",
    ),
    "nginx": Contender("nginx, `return 302`", _nginx),
    "redis-get": Contender(
        "granian alone, one redis-py GET a request", _granian("bench.servers.redis_get:app")
    ),
    "postgres-get": Contender(
        "granian alone, one psycopg SELECT a request", _granian("bench.servers.postgres_get:app")
    ),
}


def title(name: str) -> str:
    """Return the title of the contender *name*; the suffix `-2` means two workers."""
    base, dash, workers = name.rpartition("-")
    if dash and workers.isdigit():
        return f"{CONTENDERS[base].title}, {workers} workers"
    return CONTENDERS[name].title
