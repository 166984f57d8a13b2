"""
Measure what a limit adds to a request of FastAPI and of Flask, beside slowapi and Flask-Limiter.

    python -m bench.limiter.frameworks            # about two minutes; writes RESULTS.md
    python -m bench.limiter.frameworks --quick    # a fifth of the rounds, result on the screen only

Applications are called in process, without a server or a socket: the same route without a limit, with theirs,
and with each kind of ours. All kinds of one framework and storage run in alternating rounds; a figure is
processor time per request in the best of its rounds, of all threads. What a limit adds is the difference to
the route without one. All requests are admitted, from a hundred addresses, and all answers carry headers.
"""

import argparse
import asyncio
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path

from hopgate_limiter import _native

from bench.limiter.compare import RESULTS, machine
from bench.limiter.sections import put, table
from tests.servers.redis import PrivateRedis

RATE = "100000000/minute"
"""Never reached: an admitted request is what there is most of."""
OUR_RATE = "100000000/min"
ADDRESSES = [f"198.51.100.{number}" for number in range(100)]
REQUESTS = 250
"""Of a round: some rounds of a hundredth of a second are undisturbed on a busy machine, too."""
ROUNDS = 140
BAR = 5.0

Serve = Callable[[int], None]
"""Serve so many requests, and check each answer."""


# --- FastAPI ----------------------------------------------------------------------------------


def _serve_asgi(app: Callable, loop: asyncio.AbstractEventLoop, *, has_headers: bool) -> Serve:
    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def serve(count: int) -> None:
        for address in islice(cycle(ADDRESSES), count):
            sent: list[dict] = []

            async def send(message: dict, sent: list[dict] = sent) -> None:
                sent.append(message)

            scope = {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": "/limited",
                "raw_path": b"/limited",
                "root_path": "",
                "query_string": b"",
                "headers": [(b"host", b"bench"), (b"user-agent", b"bench"), (b"accept", b"*/*")],
                "client": (address, 50_000),
                "server": ("127.0.0.1", 80),
            }
            await app(scope, receive, send)
            names = {name for name, _ in sent[0]["headers"]}
            limited = bool(names & {b"ratelimit", b"x-ratelimit-remaining"})
            if sent[0]["status"] != 200 or limited is not has_headers:
                raise RuntimeError(f"unexpected answer: {sent[0]}")

    return lambda count: loop.run_until_complete(serve(count))


def fastapi_apps(storage: str | None) -> list[Serve]:
    """Return the route without a limit, with slowapi's, each kind of ours, and an empty dependency."""
    from fastapi import Depends, FastAPI, Request, Response
    from hopgate_limiter.contrib.asgi import RateLimitMiddleware
    from hopgate_limiter.contrib.fastapi import RateLimits
    from slowapi import Limiter
    from slowapi.util import get_remote_address
    from starlette.requests import HTTPConnection

    bare = FastAPI()

    @bare.get("/limited")
    async def unlimited(request: Request, response: Response) -> dict[str, str]:
        return {"hello": "world"}

    limits = RateLimits(redis=storage)
    ours = FastAPI()
    limits.install(ours)

    @ours.get("/limited")
    @limits.limit(OUR_RATE)
    async def limited(request: Request, response: Response) -> dict[str, str]:
        return {"hello": "world"}

    depending = FastAPI()
    limits.install(depending)

    @depending.get("/limited", dependencies=[limits.limit(OUR_RATE)])
    async def limited_by_dependency(request: Request, response: Response) -> dict[str, str]:
        return {"hello": "world"}

    empty = FastAPI()

    async def nothing(request: HTTPConnection, response: Response) -> None:
        """Cost what calling any dependency does."""

    @empty.get("/limited", dependencies=[Depends(nothing, scope="request")])
    async def depending_on_nothing(request: Request, response: Response) -> dict[str, str]:
        return {"hello": "world"}

    path = FastAPI()
    rules = RateLimits(routes={"/limited": OUR_RATE}, redis=storage, prefix="rl:path:")
    path.add_middleware(RateLimitMiddleware, limits=rules)

    @path.get("/limited")
    async def limited_by_path(request: Request, response: Response) -> dict[str, str]:
        return {"hello": "world"}

    limiter = Limiter(key_func=get_remote_address, headers_enabled=True, storage_uri=storage or "memory://")
    theirs = FastAPI()
    theirs.state.limiter = limiter

    @theirs.get("/limited")
    @limiter.limit(RATE)
    async def limited_by_slowapi(request: Request, response: Response) -> dict[str, str]:
        return {"hello": "world"}

    loop = asyncio.new_event_loop()
    kinds = [(bare, False), (theirs, True), (ours, True), (depending, True), (path, True)]
    kinds.append((empty, False))
    return [_serve_asgi(app, loop, has_headers=has_headers) for app, has_headers in kinds]


# --- Flask ------------------------------------------------------------------------------------


def _serve_wsgi(app: Callable, *, has_headers: bool) -> Serve:
    def serve(count: int) -> None:
        for address in islice(cycle(ADDRESSES), count):
            started: list[tuple] = []

            def start_response(status: str, headers: list, *_: object, started: list = started) -> None:
                started.append((status, headers))

            environ = {
                "REQUEST_METHOD": "GET",
                "SCRIPT_NAME": "",
                "PATH_INFO": "/limited",
                "QUERY_STRING": "",
                "REMOTE_ADDR": address,
                "SERVER_NAME": "127.0.0.1",
                "SERVER_PORT": "80",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "HTTP_HOST": "bench",
                "HTTP_ACCEPT": "*/*",
                "wsgi.version": (1, 0),
                "wsgi.url_scheme": "http",
                "wsgi.input": io.BytesIO(),
                "wsgi.errors": sys.stderr,
                "wsgi.multithread": True,
                "wsgi.multiprocess": True,
                "wsgi.run_once": False,
            }
            body = app(environ, start_response)
            list(body)
            body.close()
            status, headers = started[0]
            names = {name.lower() for name, _ in headers}
            limited = bool(names & {"ratelimit", "x-ratelimit-remaining"})
            if not status.startswith("200") or limited is not has_headers:
                raise RuntimeError(f"unexpected answer: {started}")

    return serve


def flask_apps(storage: str | None) -> list[Serve]:
    """Return the route without a limit, with Flask-Limiter's, and with each kind of ours."""
    from flask import Flask
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address
    from hopgate_limiter.contrib.flask import RateLimits
    from hopgate_limiter.contrib.wsgi import RateLimitMiddleware

    bare = Flask("bare")

    @bare.get("/limited")
    def unlimited() -> dict[str, str]:
        return {"hello": "world"}

    ours = Flask("ours")
    limits = RateLimits(redis=storage)
    limits.init_app(ours)

    @ours.get("/limited")
    @limits.limit(OUR_RATE)
    def limited() -> dict[str, str]:
        return {"hello": "world"}

    theirs = Flask("theirs")
    limiter = Limiter(
        get_remote_address, app=theirs, headers_enabled=True, storage_uri=storage or "memory://"
    )

    @theirs.get("/limited")
    @limiter.limit(RATE)
    def limited_by_flask_limiter() -> dict[str, str]:
        return {"hello": "world"}

    path = Flask("path")
    rules = RateLimits(routes={"/limited": OUR_RATE}, redis=storage, prefix="rl:path:")
    path.wsgi_app = RateLimitMiddleware(path.wsgi_app, rules)  # type: ignore[method-assign]

    @path.get("/limited")
    def limited_by_path() -> dict[str, str]:
        return {"hello": "world"}

    kinds = [(bare, False), (theirs, True), (ours, True), (path, True)]
    return [_serve_wsgi(app, has_headers=has_headers) for app, has_headers in kinds]


FRAMEWORKS = {
    "FastAPI": ("slowapi", fastapi_apps, ("decorator", "dependency", "middleware")),
    "Flask": ("Flask-Limiter", flask_apps, ("decorator", "middleware")),
}


# --- measuring --------------------------------------------------------------------------------


def microseconds(serve: Serve, count: int) -> float:
    """Serve *count* requests and return the processor time of one."""
    start = time.process_time_ns()
    serve(count)
    return (time.process_time_ns() - start) / count / 1000


def child(framework: str, storage: str | None, count: int) -> None:
    """Print the best time of each kind."""
    kinds = FRAMEWORKS[framework][1](storage)
    for serve in kinds:
        serve(4 * REQUESTS)
    rounds = [[microseconds(serve, REQUESTS) for serve in kinds] for _ in range(count)]
    print(json.dumps([min(times) for times in zip(*rounds, strict=True)]))


def row(
    framework: str, storage: str, name: str, rival: str, bare: float, ours: float, theirs: float
) -> tuple[object, ...]:
    """Render what ours and theirs add to a request without a limit, µs."""
    ratio = theirs / ours
    verdict = "yes" if ratio >= BAR else "**no**"
    return (
        framework,
        storage,
        name,
        rival,
        f"{bare:.0f}",
        f"{ours:.1f}",
        f"{theirs:.1f}",
        f"**{ratio:.1f}×**",
        verdict,
    )


def measure(count: int) -> str:
    """Measure all kinds and render the section."""
    rows: list[tuple[object, ...]] = []
    with PrivateRedis() as redis:
        for framework, (rival, _, names) in FRAMEWORKS.items():
            for storage, url in (("memory", ""), ("Redis", redis.url)):
                command = [sys.executable, "-m", "bench.limiter.frameworks", "--child", framework]
                command += ["--storage", url, "--rounds", str(count)]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                bare, theirs, *kinds = json.loads(output)
                empty = kinds.pop() if len(kinds) > len(names) else bare
                if empty != bare:
                    shown = (f"{bare:.0f}", f"{empty - bare:.1f}", f"{theirs - bare:.1f}")
                    rows.append((framework, storage, "an empty dependency", rival, *shown, "–", ""))
                for name, ours in zip(names, kinds, strict=True):
                    rows.append(row(framework, storage, name, rival, bare, ours - bare, theirs - bare))
                    if name == "dependency":
                        less = f"{name}, beyond an empty one"
                        rows.append(row(framework, storage, less, rival, bare, ours - empty, theirs - bare))
    head = (
        "framework | storage | our | beside | without a limit, µs: | ours adds, µs: | theirs adds, µs: "
        f"| ratio: | at least {BAR:g}×"
    )
    packages = ("fastapi", "flask", "slowapi", "flask-limiter", "limits")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    method = (
        "Written by `python -m bench.limiter.frameworks`. Processor time per request of a route, called in "
        "process, and what a limit of that route adds to it; Redis's own processor is not counted."
    )
    return "\n\n".join(["## In web frameworks", method, f"{machine()} {versions}.", table(head, rows)])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    for hidden in ("--child", "--storage"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if _native.build_profile != "release":
        sys.exit("refusing to measure a debug build: maturin develop --release")
    if args.child:
        child(args.child, args.storage or None, args.rounds)
        return
    text = measure(args.rounds // 5 if args.quick else args.rounds)
    if args.quick:
        print(text)
    else:
        put(Path(RESULTS), "in web frameworks", text)


if __name__ == "__main__":
    main()
