"""Limits of a Robyn application, on Robyn's own server."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import processes
from tests.servers.ports import free_ports

APP = """
import os

from hopgate_limiter import Limiter, ManualClock
from hopgate_limiter.contrib.robyn import Answer, RateLimits, by_header, by_user
from robyn import Request, Response, Robyn

clock = ManualClock()
limits = RateLimits(
    "5/h",
    key=lambda call: call.header("x-client") or call.address,
    routes={"/path/{id}": "2/h", "/free": None, "/both": "9/h", "/decorated/*": None, "/address": None},
    trusted_proxies=os.environ.get("TRUSTED", "").split(),
    answer=lambda call, decision: Answer.json({"path": call.path, "policy": decision.policy}),
    make=lambda _, rates: Limiter(*rates, clock=clock),
)
app = Robyn(__file__)
limits.install(app)


@app.get("/")
@app.get("/other")
def home():
    return "home"


@app.get("/path/:id")
async def path(request: Request):
    return {"id": request.path_params["id"]}


@app.get("/free")
def free():
    return "free"


@app.get("/both")
@limits.limit("1/h", key=by_header("x-key"))
async def both():
    return Response(200, {"x-own": "1"}, "both")


@app.get("/decorated/plain/:id")
@limits.limit("1/h")
def plain(id: str, question: str = "none"):
    return f"{id} {question}"


@app.get("/decorated/request")
@limits.limit("1/h")
async def with_request(req):
    return req.method


@app.get("/decorated/response")
@limits.limit("2/h")
def with_response():
    return Response(200, {"x-own": "1"}, "own")


@app.get("/decorated/boom")
@limits.limit("9/h")
def boom():
    raise LookupError("theirs")


@app.get("/address")
@limits.limit("99/h", key=lambda call: None)
def address(request: Request):
    from hopgate_limiter.contrib.robyn import RobynCall
    return str(RobynCall(request, limits.trusted).address)


app.start(host="127.0.0.1", port=int(os.environ["PORT"]))
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("robyn")
    (folder / "site.py").write_text(APP)
    (port,) = free_ports(1)
    environment = {**os.environ, "PORT": str(port), "TRUSTED": "127.0.0.1"}
    command = [sys.executable, str(folder / "site.py"), "--log-level", "ERROR"]
    process = processes.start(command, output=folder / "log", environment=environment, directory=folder)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{url}/free")
            break
        except httpx.TransportError:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.02)
    yield url
    # Robyn ignores SIGTERM.
    processes.end(process, signal.SIGKILL)


@pytest.fixture
def ask(url, request):
    """Ask as a client of this test alone."""
    with httpx.Client(base_url=url, headers={"x-client": request.node.name}) as client:
        yield client.get


def test_default_counts_all_routes_without_a_rule(ask):
    responses = [ask(path) for path in ("/", "/other", "/", "/missing", "/", "/other")]

    assert [response.status_code for response in responses] == [200, 200, 200, 404, 200, 429]
    assert responses[0].headers["ratelimit"] == '"5/h";r=4;t=720'
    assert responses[5].json() == {"path": "/other", "policy": "5/h"}
    assert responses[5].headers["retry-after"] == "720"
    assert responses[5].headers.get_list("ratelimit-policy") == ['"5/h";q=5;w=3600']


def test_rules_of_paths_take_the_place_of_the_default(ask):
    assert [ask(f"/path/{number}").status_code for number in range(3)] == [200, 200, 429]
    assert [ask("/free").status_code for _ in range(7)] == [200] * 7
    assert "ratelimit" not in ask("/free").headers


def test_refusal_by_a_handler_gives_back_what_its_path_was_charged(ask):
    assert [ask("/both", headers={"x-key": "a"}).status_code for _ in range(5)] == [200] + [429] * 4
    admitted = ask("/both", headers={"x-key": "b"})
    assert admitted.headers["ratelimit"] == '"1/h";r=0;t=3600'
    keys = [ask("/both", headers={"x-key": f"key {number}"}).status_code for number in range(8)]
    assert keys == [200] * 7 + [429]


def test_handlers_keep_their_parameters(ask):
    assert ask("/decorated/plain/7?question=why").text == "7 why"
    assert ask("/decorated/plain/8").status_code == 429
    assert ask("/decorated/request").text == "GET"
    assert ask("/decorated/request").status_code == 429
    response = ask("/decorated/response")
    assert (response.text, response.headers["x-own"]) == ("own", "1")
    assert response.headers["ratelimit"] == '"2/h";r=1;t=1800'
    assert ask("/decorated/boom").status_code == 500


def test_forwarded_address_counts_from_the_right(ask):
    forwarded = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2, 198.51.100.7")]
    assert ask("/address", headers=forwarded).text == "198.51.100.7"
    assert ask("/address").text == "127.0.0.1"
