"""Limits of FastAPI routes and routers."""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.routing import APIRoute
from hopgate_limiter import Decision, Limiter, ManualClock
from hopgate_limiter.contrib.asgi import RateLimitMiddleware
from hopgate_limiter.contrib.fastapi import _MAX_LABELS, Answer, RateLimits, _Labels, by_header


def limits_of(*default, **options):
    clock = ManualClock()
    return RateLimits(*default, make=lambda _, rates: Limiter(*rates, clock=clock), **options)


def client_of(app, address="198.51.100.7"):
    transport = httpx.ASGITransport(app, client=(address, 5000))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def statuses(client, path, times, **options):
    return [(await client.get(path, **options)).status_code for _ in range(times)]


async def test_limit_of_a_route_takes_the_place_of_the_default():
    limits = limits_of("3/h")
    app = FastAPI()
    limits.install(app)

    @app.get("/default")
    async def default():
        return {}

    @app.get("/own", dependencies=[limits.limit("1/h")])
    def own():
        return {}

    @app.get("/wide", dependencies=[limits.limit("50/h")])
    async def wide():
        return {}

    @app.get("/exempt")
    @limits.exempt
    async def exempt():
        return {}

    async with client_of(app) as client:
        assert await statuses(client, "/own", 2) == [200, 429]
        assert await statuses(client, "/default", 4) == [200, 200, 200, 429]
        assert await statuses(client, "/wide", 4) == [200] * 4
        assert await statuses(client, "/exempt", 4) == [200] * 4
        refused = await client.get("/own")
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["status"] == 429
        assert refused.headers["retry-after"] == "3600"
        assert refused.headers.get_list("ratelimit") == ['"1/h";r=0;t=3600']
        assert "ratelimit" not in (await client.get("/exempt")).headers


@pytest.mark.parametrize("is_installed", [True, False])
async def test_headers_are_on_every_kind_of_response(is_installed):
    limits = limits_of()
    app = FastAPI()
    if is_installed:
        limits.install(app)

    @app.get("/{kind}", dependencies=[limits.limit("50/h")])
    async def kinds(kind: str):
        if kind == "error":
            raise HTTPException(418)
        made = {
            "json": JSONResponse({}),
            "text": PlainTextResponse("x"),
            "stream": StreamingResponse(iter(["a"])),
        }
        return made.get(kind, {})

    async with client_of(app) as client:
        found = {kind: await client.get(f"/{kind}") for kind in ("plain", "json", "text", "stream", "error")}
    # Without the middleware FastAPI gives a dependency no way to reach responses that a handler makes itself.
    expected = set(found) if is_installed else {"plain"}
    assert {kind for kind, response in found.items() if "ratelimit" in response.headers} == expected
    assert found["error"].status_code == 418


async def test_dependency_alone_refuses_by_a_problem_document():
    limits = limits_of()
    app = FastAPI()

    @app.get("/", dependencies=[limits.limit("1/h")])
    async def home():
        return {}

    async with client_of(app) as client:
        await client.get("/")
        refused = await client.get("/")

    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "3600"
    assert refused.headers["ratelimit"] == '"1/h";r=0;t=3600'
    assert refused.json() == {"detail": "The rate 1/h is exhausted. Retry in 3600 s."}


@pytest.mark.parametrize("first", ["address", "key"])
async def test_two_limits_of_a_route_charge_both_or_none(first):
    limits = limits_of()
    app = FastAPI()
    limits.install(app)
    by_address, by_key = limits.limit("3/h"), limits.limit("1/h", key=by_header("x-api-key"))
    both = [by_address, by_key] if first == "address" else [by_key, by_address]

    @app.get("/", dependencies=both)
    async def home():
        return {}

    async with client_of(app) as client:
        assert await statuses(client, "/", 5, headers={"x-api-key": "a"}) == [200] + [429] * 4
        # Four refusals by the key have cost the address nothing.
        assert [(await client.get("/", headers={"x-api-key": key})).status_code for key in "bcd"] == [
            200,
            200,
            429,
        ]


async def test_routers_mounts_and_prefixes():
    """Routes that look alike inside of their routers count for themselves."""
    limits = limits_of("2/h")
    app = FastAPI()
    limits.install(app)
    limit = limits.limit("1/h")

    def crud():
        router = APIRouter()

        @router.get("/", dependencies=[limit])
        async def list_all():
            return {}

        @router.get("/{number}")
        async def one(number: int):
            return {}

        return router

    outer = APIRouter(prefix="/outer")
    outer.include_router(crud(), prefix="/a")
    outer.include_router(crud(), prefix="/b")
    app.include_router(outer)
    both = APIRouter(dependencies=[limits.limit("1/h", name="both")])

    @both.get("/first")
    async def first():
        return {}

    @both.get("/second")
    async def second():
        return {}

    app.include_router(both, prefix="/both")
    inner = FastAPI()

    @inner.get("/", dependencies=[limit])
    async def home():
        return {}

    app.mount("/inner", inner)
    async with client_of(app) as client:
        assert await statuses(client, "/outer/a/", 2) == [200, 429]
        assert await statuses(client, "/outer/b/", 2) == [200, 429]
        assert [(await client.get(f"/outer/a/{n}")).status_code for n in range(3)] == [200, 200, 429]
        assert (await client.get("/both/first")).status_code == 200
        assert (await client.get("/both/second")).status_code == 429
        assert await statuses(client, "/inner/", 2) == [200, 429]
        assert (await client.get("/inner/")).headers.get_list("ratelimit") == ['"1/h";r=0;t=3600']


async def test_application_that_is_mounted_twice_counts_twice():
    """The route is one object; its mount point tells the two apart."""
    limits = limits_of()
    inner = FastAPI()

    @inner.get("/x", dependencies=[limits.limit("1/h")])
    async def x():
        return {}

    app = FastAPI()
    limits.install(app)
    app.mount("/{tenant}", inner)
    async with client_of(app) as client:
        assert await statuses(client, "/a/x", 2) == [200, 429]
        assert await statuses(client, "/b/x", 2) == [200, 429]


def test_names_of_routes_are_kept_for_a_bounded_number_of_mount_points():
    """A server may take the root path from a header."""
    labels, route = _Labels(), APIRoute("/x", list, methods=["GET"])
    for tenant in range(3000):
        assert labels.of({"route": route, "root_path": f"/{tenant}"}) == f"GET /{tenant}/x"

    assert len(labels._known) <= _MAX_LABELS
    assert labels.of({"route": route}) == "GET /x"


async def test_limit_of_an_including_router_takes_the_place_of_the_default():
    limits = limits_of("1/h")
    app = FastAPI()
    limits.install(app)
    router = APIRouter()

    @router.get("/x")
    async def x():
        return {}

    app.include_router(router, dependencies=[limits.limit("3/h")])
    async with client_of(app) as client:
        assert await statuses(client, "/x", 4) == [200, 200, 200, 429]


async def test_limit_as_a_parameter_is_the_decision():
    limits = limits_of("9/h")
    app = FastAPI()
    limits.install(app)

    limit = limits.limit("5/h")

    async def nested(decision: Decision = limit) -> int:
        return decision.remaining

    @app.get("/")
    async def home(remaining: int = Depends(nested)):
        return remaining

    async with client_of(app) as client:
        assert (await client.get("/")).json() == 4


async def test_paths_and_preflight_may_be_exempt():
    limits = limits_of("1/h", exempt=["/healthz"], routes={"/slow": "2/h"}, exempt_methods=["OPTIONS"])
    app = FastAPI()
    limits.install(app)

    @app.api_route("/{path:path}", methods=["GET", "OPTIONS"])
    async def anything(path: str):
        return path

    async with client_of(app) as client:
        assert await statuses(client, "/healthz", 3) == [200] * 3
        assert await statuses(client, "/slow", 3) == [200, 200, 429]
        assert [(await client.options("/x")).status_code for _ in range(3)] == [200] * 3
        assert await statuses(client, "/x", 2) == [200, 429]


@pytest.mark.filterwarnings("ignore:Using `httpx`")
async def test_websockets_pass_the_default():
    """A route of a WebSocket has the dependencies of the application, too."""
    from starlette.testclient import TestClient

    limits = limits_of("1/h")
    app = FastAPI()
    limits.install(app)

    @app.websocket("/ws", dependencies=[limits.limit("1/h")])
    async def echo(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_text("echo")
        await websocket.close()

    for _ in range(3):
        with TestClient(app).websocket_connect("/ws") as websocket:
            assert websocket.receive_text() == "echo"


async def test_handler_and_validation_errors_propagate():
    limits = limits_of("9/h")
    app = FastAPI()
    limits.install(app)

    @app.get("/boom")
    async def boom(number: int = 0):
        raise LookupError("theirs")

    async with client_of(app) as client:
        with pytest.raises(LookupError, match="theirs"):
            await client.get("/boom")
        assert (await client.get("/boom?number=x")).status_code == 422


async def test_own_answers_are_sent():
    for answer in (
        lambda call, decision: Answer.json({"error": decision.policy, "path": call.path}, status=420),
        lambda call, decision: JSONResponse({"error": decision.policy, "path": call.path}, 420),
    ):
        limits = limits_of(answer=answer)
        app = FastAPI()
        limits.install(app)

        @app.get("/x", dependencies=[limits.limit("1/h")])
        async def x():
            return {}

        async with client_of(app) as client:
            await client.get("/x")
            refused = await client.get("/x")
        assert (refused.status_code, refused.json()) == (420, {"error": "1/h", "path": "/x"})
        assert refused.headers["retry-after"] == "3600"


async def test_cost_and_key_see_the_request():
    limits = limits_of()
    app = FastAPI()
    limits.install(app)
    limit = limits.limit("10/h", key=by_header("x-key"), cost=lambda call: int(call.header("x-items") or 1))

    @app.get("/", dependencies=[limit])
    async def home(x_items: Annotated[int, Header()] = 1):
        return x_items

    async with client_of(app) as client:
        costs = [("a", 9), ("a", 2), ("b", 2), ("a", 1)]
        found = [await client.get("/", headers={"x-key": key, "x-items": str(cost)}) for key, cost in costs]
    assert [response.status_code for response in found] == [200, 429, 200, 200]


async def test_overridden_dependency_leaves_the_limit_out():
    """As tests of an application do it; `limits.enabled` switches all off."""
    limits = limits_of("1/h")
    app = FastAPI()
    limits.install(app)
    limit = limits.limit("1/h")

    @app.get("/own", dependencies=[limit])
    async def own():
        return {}

    @app.get("/default")
    async def default():
        return {}

    app.dependency_overrides[limit.dependency] = lambda: None
    async with client_of(app) as client:
        assert await statuses(client, "/own", 3) == [200] * 3
        limits.enabled = False
        assert await statuses(client, "/default", 3) == [200] * 3


async def test_install_comes_before_the_routes():
    app = FastAPI()

    @app.get("/")
    async def home():
        return {}

    with pytest.raises(ValueError, match="before the routes"):
        limits_of("1/h").install(app)


async def test_middleware_around_counts_besides():
    """What the middleware has charged is given back when a route refuses."""
    limits, around = limits_of(), limits_of("3/h")
    app = FastAPI()
    limits.install(app)
    app.add_middleware(RateLimitMiddleware, limits=around)

    @app.get("/own", dependencies=[limits.limit("1/h")])
    async def own():
        return {}

    async with client_of(app) as client:
        assert await statuses(client, "/own", 4) == [200, 429, 429, 429]
        assert await statuses(client, "/missing", 3) == [404, 404, 429]
