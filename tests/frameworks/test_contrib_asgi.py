"""The ASGI middleware, alone and around Starlette."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from hopgate_limiter import Limiter, ManualClock
from hopgate_limiter.contrib.asgi import Answer, RateLimitMiddleware, RateLimits, by_user
from starlette.applications import Starlette
from starlette.authentication import SimpleUser, UnauthenticatedUser
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute


def limits_of(*default, **options):
    clock = options.pop("clock", None) or ManualClock()
    return RateLimits(*default, make=lambda _, rates: Limiter(*rates, clock=clock), **options)


def scope_of(path="/", method="GET", **fields):
    scope = {"type": "http", "method": method, "path": path, "headers": [], "client": ("198.51.100.7", 5000)}
    return {**scope, **fields}


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def sent_by(app, scope):
    """Serve one request and return the messages of its response."""
    sent: list[dict] = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent


def headers_in(sent):
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def client_of(app, address="198.51.100.7", **options):
    transport = httpx.ASGITransport(app, client=(address, 5000), **options)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


# --- pure ASGI ------------------------------------------------------------------------------


async def test_requests_beyond_the_limit_are_refused():
    app = RateLimitMiddleware(hello, limits_of("2/min"))
    async with client_of(app) as client:
        responses = [await client.get("/") for _ in range(3)]

    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[0].headers["ratelimit"] == '"2/min";r=1;t=30'
    assert responses[0].headers["x-app"] == "1"
    refused = responses[2]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "30"
    assert refused.headers["ratelimit-policy"] == '"2/min";q=2;w=60'
    assert refused.json()["title"] == "Too Many Requests"
    assert "x-app" not in refused.headers


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "unknown"])
async def test_other_scopes_pass(kind):
    """As the same objects."""
    seen = []

    async def app(*given):
        seen.append(given)

    limited = RateLimitMiddleware(app, limits_of("1/h"))
    scope = {"type": kind}

    async def receive():
        return {}

    async def send(message):
        pass

    for _ in range(3):
        await limited(scope, receive, send)

    assert seen == [(scope, receive, send)] * 3


@pytest.mark.parametrize("client", [None, ("testclient", 50000), ("", 0), ("2001:db8::1", 1)])
async def test_every_kind_of_client_is_counted(client):
    """A Unix socket has no address, and Starlette's test client a name instead."""
    app = RateLimitMiddleware(hello, limits_of("1/h"))
    sent = [(await sent_by(app, scope_of(client=client)))[0]["status"] for _ in range(2)]
    other = await sent_by(app, scope_of(client=("203.0.113.9", 1)))

    assert sent == [200, 429]
    assert other[0]["status"] == 200


async def test_scope_without_client_is_counted():
    app = RateLimitMiddleware(hello, limits_of("1/h"))
    scope = scope_of()
    del scope["client"]
    assert (await sent_by(app, scope))[0]["status"] == 200


async def test_neighbours_in_one_ipv6_network_are_one_client():
    app = RateLimitMiddleware(hello, limits_of("1/h"))
    first = await sent_by(app, scope_of(client=("2001:db8::1", 1)))
    second = await sent_by(app, scope_of(client=("2001:db8::ffff", 1)))

    assert [first[0]["status"], second[0]["status"]] == [200, 429]


@pytest.mark.parametrize(("trusted", "statuses"), [((), [200, 429]), (("198.51.100.0/24",), [200, 200])])
async def test_forwarded_address_counts_only_from_trusted_proxies(trusted, statuses):
    app = RateLimitMiddleware(hello, limits_of("1/h", trusted_proxies=trusted))
    found = []
    for spoofed in (b"192.0.2.1", b"192.0.2.2"):
        sent = await sent_by(app, scope_of(headers=[(b"x-forwarded-for", spoofed)]))
        found.append(sent[0]["status"])

    assert found == statuses


async def test_stream_passes_unbuffered():
    """Each message of the application is sent before the next is made, and is the same object."""
    sent: list[dict] = []
    bodies = [{"type": "http.response.body", "body": bytes([n]), "more_body": n < 2} for n in range(3)]

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        for number, body in enumerate(bodies):
            await send(body)
            assert len(sent) == number + 2

    async def receive():
        return {}

    async def send(message):
        sent.append(message)

    await RateLimitMiddleware(app, limits_of("1/h"))(scope_of(), receive, send)
    assert all(ours is theirs for ours, theirs in zip(sent[1:], bodies, strict=True))
    assert b"ratelimit" in dict(sent[0]["headers"])


async def test_exception_of_the_application_propagates():
    async def app(scope, receive, send):
        raise LookupError("theirs")

    with pytest.raises(LookupError, match="theirs"):
        await sent_by(RateLimitMiddleware(app, limits_of("1/h")), scope_of())


async def test_message_that_is_sent_again_stays_as_it_was():
    """Starlette's responses may be module constants, whose list of headers is sent each time."""
    response = PlainTextResponse("constant")
    app = RateLimitMiddleware(response, limits_of("9/h"))
    async with client_of(app) as client:
        for _ in range(3):
            answer = await client.get("/")

    assert len(answer.headers.get_list("ratelimit")) == 1
    assert "ratelimit" not in response.headers


async def test_headers_of_the_application_win():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 503, "headers": [(b"ratelimit", b"own")]})
        await send({"type": "http.response.body"})

    sent = await sent_by(RateLimitMiddleware(app, limits_of("9/h")), scope_of())
    assert headers_in(sent)["ratelimit"] == "own"
    assert [name for name, _ in sent[0]["headers"]].count(b"ratelimit") == 1


async def test_head_of_a_refusal_has_no_body():
    app = RateLimitMiddleware(hello, limits_of("1/h"))
    await sent_by(app, scope_of())
    start, body = await sent_by(app, scope_of(method="HEAD"))

    assert start["status"] == 429
    assert int(headers_in([start])["content-length"]) > 0
    assert body == {"type": "http.response.body", "body": b""}


async def test_preflight_may_be_exempt():
    app = RateLimitMiddleware(hello, limits_of("1/h", exempt_methods=("OPTIONS",)))
    sent = [
        await sent_by(app, scope_of(method=method)) for method in ("OPTIONS", "OPTIONS", "GET", "OPTIONS")
    ]

    assert [messages[0]["status"] for messages in sent] == [200] * 4
    assert "ratelimit" not in headers_in(sent[0])


async def test_rules_of_paths_are_below_the_root_path():
    """As uvicorn --root-path gives it, or a mount."""
    limits = limits_of(routes={"/login": "1/h"})
    app = RateLimitMiddleware(hello, limits)
    scopes = [
        scope_of("/api/login", root_path="/api"),
        scope_of("/login"),
        scope_of("/apilogin", root_path="/api"),
    ]
    assert [(await sent_by(app, scope))[0]["status"] for scope in scopes] == [200, 429, 200]
    assert (await sent_by(app, scope_of("/api", root_path="/api")))[0]["status"] == 200


async def test_answer_may_be_own_or_an_application():
    own = limits_of(
        "1/h", answer=lambda call, decision: Answer.text(f"{call.path} {decision.policy}", status=503)
    )
    starlettes = limits_of("1/h", answer=lambda *_: RedirectResponse("/wait", 302))
    retries = limits_of("1/h", answer=lambda *_: Answer(429, {"Retry-After": "7"}))
    refused = []
    for limits in (own, starlettes, retries):
        async with client_of(RateLimitMiddleware(hello, limits)) as client:
            await client.get("/x")
            refused.append(await client.get("/x"))

    assert (refused[0].status_code, refused[0].text) == (503, "/x 1/h")
    assert refused[0].headers["retry-after"] == "3600"
    assert (refused[1].status_code, refused[1].headers["location"]) == (302, "/wait")
    assert "retry-after" in refused[1].headers
    assert refused[2].headers.get_list("retry-after") == ["7"]


async def test_redirects_announce_no_exhausted_quota():
    app = RateLimitMiddleware(RedirectResponse("/elsewhere"), limits_of("1/h"))
    sent = await sent_by(app, scope_of())
    assert "r=0" not in headers_in(sent).get("ratelimit", "")


async def test_of_two_middlewares_the_outer_writes_the_headers():
    """Once, and of the tightest; a refusal by the inner gives back the units of the outer."""
    clock = ManualClock()
    outer, inner = limits_of("5/h", clock=clock), limits_of("2/h", clock=clock)
    app = RateLimitMiddleware(RateLimitMiddleware(hello, inner), outer)
    async with client_of(app) as client:
        responses = [await client.get("/") for _ in range(4)]

    assert [response.status_code for response in responses] == [200, 200, 429, 429]
    assert [response.headers.get_list("ratelimit-policy") for response in responses] == [
        ['"2/h";q=2;w=3600']
    ] * 4
    assert outer.default is not None
    assert outer.default.limiter.peek("* 198.51.100.7").remaining == 3


async def test_limits_change_nothing_in_shadow_mode():
    app = RateLimitMiddleware(hello, limits_of("1/h", shadow=True))
    for _ in range(3):
        sent = await sent_by(app, scope_of())
    assert sent[0]["status"] == 200
    assert sent[0]["headers"] == [(b"x-app", b"1")]


async def test_shared_limiter_never_blocks_the_loop(redis_server):
    """While Redis is silent, other tasks run, and the request is decided by the limiter's own policy."""
    redis_server.flush()
    limits = RateLimits("5/h", redis=redis_server.url, prefix="rl:asgi:", on_error="allow")
    app = RateLimitMiddleware(hello, limits)
    assert (await sent_by(app, scope_of()))[0]["status"] == 200
    redis_server.pause()
    try:
        request = asyncio.create_task(sent_by(app, scope_of(client=("203.0.113.9", 1))))
        turns = 0
        while not request.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 3
        assert (await request)[0]["status"] == 200
    finally:
        redis_server.resume()
        await asyncio.to_thread(limits.close)


async def test_policy_while_redis_is_away_is_the_limiters():
    found = {}
    for policy in ("allow", "deny"):
        limits = RateLimits("100/min", redis="redis://127.0.0.1:1/0", on_error=policy)
        sent = await sent_by(RateLimitMiddleware(hello, limits), scope_of())
        found[policy] = sent[0]["status"]
        await asyncio.to_thread(limits.close)

    assert found == {"allow": 200, "deny": 429}


# --- Starlette ------------------------------------------------------------------------------


def a_site(limits, own):
    async def page(request):
        return PlainTextResponse("page")

    async def stream(request):
        async def parts():
            for part in ("a", "b"):
                yield part

        return StreamingResponse(parts())

    async def echo(websocket):
        await websocket.accept()
        await websocket.send_text("echo")
        await websocket.close()

    limited = [Middleware(RateLimitMiddleware, limits=own)]
    return Starlette(
        routes=[
            Route("/page", page),
            Route("/own", page, middleware=limited),
            Route("/stream", stream),
            WebSocketRoute("/ws", echo),
            Mount("/inner", routes=[Route("/page", page), Mount("/deep", routes=[Route("/page", page)])]),
        ],
        middleware=[Middleware(RateLimitMiddleware, limits=limits)],
    )


async def test_starlette_application_and_route():
    """The limit of a route is checked besides that of the application, which covers mounts and 404, too."""
    clock = ManualClock()
    app = a_site(limits_of("6/h", clock=clock), limits_of("1/h", clock=clock))
    async with client_of(app) as client:
        paths = ["/page", "/own", "/own", "/stream", "/inner/page", "/inner/deep/page", "/missing", "/page"]
        responses = [await client.get(path) for path in paths]

    assert [response.status_code for response in responses] == [200, 200, 429, 200, 200, 200, 404, 429]
    assert responses[3].text == "ab"
    assert responses[6].headers["ratelimit"] == '"6/h";r=0;t=3600'


async def test_keys_by_user_are_those_of_starlette():
    app = RateLimitMiddleware(hello, limits_of("1/h", key=by_user()))
    users = [SimpleUser("alice"), SimpleUser("bob"), SimpleUser("alice"), UnauthenticatedUser(), None]
    assert [(await sent_by(app, scope_of(user=user)))[0]["status"] for user in users] == [
        200,
        200,
        429,
        200,
        429,
    ]


@pytest.mark.filterwarnings("ignore:Using `httpx`")
def test_starlettes_test_client_is_served():
    """Its address is "testclient"; lifespan and WebSockets go through the middleware, too."""
    from starlette.testclient import TestClient

    app = a_site(limits_of("2/h"), limits_of("1/h"))
    with TestClient(app) as client:
        for _ in range(3):
            with client.websocket_connect("/ws") as websocket:
                assert websocket.receive_text() == "echo"
        assert [client.get("/page").status_code for _ in range(3)] == [200, 200, 429]
