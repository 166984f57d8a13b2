"""Budgets of httpx and requests, for what this process sends."""

from __future__ import annotations

import asyncio
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import requests
from hopgate_limiter import Limiter, ManualClock, RateLimitExceeded
from hopgate_limiter.contrib import httpx as limited_httpx
from hopgate_limiter.contrib import requests as limited_requests
from hopgate_limiter.contrib.httpx import AsyncLimitedTransport, LimitedTransport
from hopgate_limiter.contrib.requests import LimitedAdapter
from requests.adapters import BaseAdapter


def a_limiter(rates):
    return Limiter(rates, clock=ManualClock())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        is_moved = self.path == "/moved"
        self.send_response(302 if is_moved else 200)
        if is_moved:
            self.send_header("Location", "/")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


# --- httpx ----------------------------------------------------------------------------------


def test_httpx_waits_for_its_turn(url):
    """A redirect is two requests."""
    limiter = Limiter("200/s burst 1")
    with httpx.Client(transport=LimitedTransport(limiter), follow_redirects=True) as client:
        assert [client.get(url).text for _ in range(3)] == ["ok"] * 3
        assert client.get(f"{url}/moved").text == "ok"
    assert limiter.stats().allowed == 5


async def test_async_httpx_waits_while_other_tasks_run(url):
    """One of which moves the clock that they wait for."""
    clock = ManualClock()
    transport = AsyncLimitedTransport(Limiter("1/s burst 1", clock=clock))
    async with httpx.AsyncClient(transport=transport) as client:
        sending = asyncio.gather(*(client.get(url) for _ in range(4)))
        while not sending.done():
            await asyncio.sleep(0.001)
            clock.advance(10_000_000)
        assert [response.text for response in await sending] == ["ok"] * 4
    assert clock.now_ns >= 3_000_000_000


def test_httpx_counts_each_host_and_what_the_caller_says():
    def transport(**options):
        mock = httpx.MockTransport(lambda _: httpx.Response(200))
        return LimitedTransport(a_limiter("2/h"), transport=mock, timeout=0.0, **options)

    with httpx.Client(transport=transport()) as client:
        assert [client.get(f"http://{host}/").status_code for host in ("a", "a", "b")] == [200] * 3
        with pytest.raises(httpx.TimeoutException, match="refused by the rate '2/h'") as refused:
            client.get("http://a/")
    assert isinstance(refused.value, RateLimitExceeded)
    assert refused.value.decision.retry_after == 1800.0
    assert refused.value.request.url == "http://a/"
    with httpx.Client(transport=transport(key="all", cost=2)) as client:
        client.get("http://a/")
        with pytest.raises(RateLimitExceeded):
            client.get("http://b/")
    with httpx.Client(transport=transport(key=lambda request: request.headers.get("x-tenant"))) as client:
        assert [client.get("http://a/").status_code for _ in range(5)] == [200] * 5


async def test_async_httpx_is_refused_without_a_turn():
    mock = httpx.MockTransport(lambda _: httpx.Response(200))
    transport = AsyncLimitedTransport(a_limiter("1/h"), transport=mock, timeout=0.0)
    async with httpx.AsyncClient(transport=transport) as client:
        await client.get("http://a/")
        with pytest.raises(limited_httpx.BudgetExceeded):
            await client.get("http://a/")


def test_httpx_transports_are_closed_and_not_the_limiter():
    closed = []

    class Inner(httpx.MockTransport):
        def close(self):
            closed.append("sync")

        async def aclose(self):
            closed.append("async")

    limiter = a_limiter("9/h")
    httpx.Client(transport=LimitedTransport(limiter, transport=Inner(lambda _: httpx.Response(200)))).close()
    client = httpx.AsyncClient(
        transport=AsyncLimitedTransport(limiter, transport=Inner(lambda _: httpx.Response(200)))
    )
    asyncio.run(client.aclose())
    assert closed == ["sync", "async"]
    assert limiter.allow("a")


# --- requests -------------------------------------------------------------------------------


def test_requests_waits_for_its_turn(url):
    limiter = Limiter("200/s burst 1")
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", LimitedAdapter(limiter))
        assert [session.get(url).text for _ in range(3)] == ["ok"] * 3
        assert session.get(f"{url}/moved").text == "ok"
        assert session.get(url, stream=True).raw.read() == b"ok"
    assert limiter.stats().allowed == 6


def test_requests_is_refused_without_a_turn_and_passes_everything_on():
    sent: list[object] = []

    class Inner(BaseAdapter):
        def send(self, request, stream=False, **options):  # type: ignore[override]
            options["stream"] = stream
            sent.append(options)
            response = requests.Response()
            response.status_code, response.url, response.raw = 200, request.url, None
            response._content = b""
            return response

        def close(self):
            sent.append("closed")

    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", LimitedAdapter(a_limiter("2/h"), adapter=Inner(), timeout=0.0))
        found = [
            session.get(f"http://{host}/", timeout=3, verify=False, cert="c") for host in ("a", "A", "b")
        ]
        with pytest.raises(requests.Timeout, match="refused by the rate '2/h'") as refused:
            session.get("http://a/x")
    assert [response.status_code for response in found] == [200] * 3
    assert isinstance(refused.value, RateLimitExceeded)
    assert refused.value.request is not None
    assert refused.value.request.url == "http://a/x"
    assert sent[0] == {"stream": False, "timeout": 3, "verify": False, "cert": "c", "proxies": {}}
    assert "closed" in sent


def test_errors_survive_pickle():
    decision = Limiter("1/h", clock=ManualClock()).hit("a", 2)
    ours = limited_requests.BudgetExceeded(decision, requests.Request("GET", "http://a/").prepare())
    theirs = pickle.loads(pickle.dumps(ours))
    assert theirs.decision == decision
    assert theirs.request.url == "http://a/"
