"""Limits that decorate endpoints of FastAPI."""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI, Header, Request
from hopgate_limiter import Limiter, ManualClock
from hopgate_limiter.contrib.fastapi import RateLimits, by_header


def limits_of(*default, **options):
    clock = ManualClock()
    return RateLimits(*default, make=lambda _, rates: Limiter(*rates, clock=clock), **options)


def client_of(app):
    transport = httpx.ASGITransport(app, client=("198.51.100.7", 5000))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def statuses(client, path, times, **options):
    return [(await client.get(path, **options)).status_code for _ in range(times)]


async def test_decorated_endpoints_keep_their_parameters():
    """Plain and async, with a request of their own or without; OpenAPI shows nothing else."""
    limits = limits_of("9/h")
    app = FastAPI()
    limits.install(app)

    @app.get("/async/{number}")
    @limits.limit("1/h")
    async def coroutine(number: int, question: str = "none"):
        """Answer."""
        return [number, question]

    @app.get("/plain")
    @limits.limit("1/h")
    def plain(own: Request):
        return own.url.path

    @app.get("/values")
    @limits.limit("1/h")
    async def values(request: Request, name: Annotated[str, Header()] = "x"):
        return [request.method, name]

    async with client_of(app) as client:
        assert (await client.get("/async/7?question=why")).json() == [7, "why"]
        assert (await client.get("/plain")).json() == "/plain"
        assert (await client.get("/values", headers={"name": "n"})).json() == ["GET", "n"]
        refused = [await client.get(path) for path in ("/async/8", "/plain", "/values")]
    assert [response.status_code for response in refused] == [429] * 3
    assert refused[0].headers["content-type"] == "application/problem+json"
    assert refused[0].headers.get_list("ratelimit") == ['"1/h";r=0;t=3600']
    assert coroutine.__name__ == "coroutine"
    operation = app.openapi()["paths"]["/async/{number}"]["get"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["number", "question"]
    assert operation["description"] == "Answer."


@pytest.mark.parametrize("is_async", [True, False])
async def test_two_decorators_charge_both_or_none(is_async):
    limits = limits_of()
    app = FastAPI()
    limits.install(app)
    address, key = limits.limit("3/h"), limits.limit("1/h", key=by_header("x-api-key"))

    async def coroutine():
        return {}

    def plain():
        return {}

    app.get("/")(address(key(coroutine if is_async else plain)))
    async with client_of(app) as client:
        assert await statuses(client, "/", 5, headers={"x-api-key": "a"}) == [200] + [429] * 4
        assert [(await client.get("/", headers={"x-api-key": key})).status_code for key in "bcd"] == [
            200,
            200,
            429,
        ]


async def test_decorator_without_install_refuses_by_a_problem_document():
    limits = limits_of()
    app = FastAPI()

    @app.get("/")
    @limits.limit("1/h")
    async def home():
        return {}

    async with client_of(app) as client:
        await client.get("/")
        refused = await client.get("/")
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "3600"


def test_generator_endpoints_are_refused():
    """They would be charged after the headers are sent."""
    limit = limits_of().limit("1/h")

    def plain():
        yield 1

    async def coroutine():
        yield 1

    for endpoint in (plain, coroutine):
        with pytest.raises(TypeError, match="must depend on the limit"):
            limit(endpoint)
