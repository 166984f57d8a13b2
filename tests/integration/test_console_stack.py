"""Sessions of the console over two gateways, with real PostgreSQL, Redis and RabbitMQ."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import psycopg
import pytest

from tests.integration.console_session import ConsoleSession
from tests.servers.hopgate import Gateway, eventually, hopgate, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
COOKIE = "hopgate_session"


def test_session_holds_at_every_gateway_and_a_link_at_one(postgres, redis_server, rabbitmq, tmp_path):
    settings = stack_settings(postgres, redis_server, rabbitmq)
    key = make_key(settings)
    with ExitStack() as running:
        first, second = (running.enter_context(Gateway(settings, tmp_path)) for _ in range(2))
        with ConsoleSession(first, key) as console, httpx.Client(base_url=second.url) as other:
            cookie = {"Cookie": f"{COOKIE}={console.http.cookies[COOKIE]}"}
            made = {"form_token": console.token, "long_url": "https://example.com/", "slug": "second"}
            assert other.post("/console/links/new", data=made, headers=cookie).status_code == 303
            assert "hop.example/second" in console.get("/console/links").text

            for _ in range(5):
                link = hopgate(settings, "console").stdout.strip().partition("link=")[2]
                urls = [f"{gateway.url}/console/sign-in" for gateway in (first, second)] * 3
                with ThreadPoolExecutor(len(urls)) as senders:
                    answers = senders.map(lambda url, link=link: httpx.post(url, data={"link": link}), urls)
                    statuses = sorted(answer.status_code for answer in answers)
                assert statuses == [303, 401, 401, 401, 401, 401]

            with ConsoleSession(first, key) as leaving:
                left = {"Cookie": f"{COOKIE}={leaving.http.cookies[COOKIE]}"}
                assert other.get("/console", headers=left).status_code == 200
                assert leaving.send("/console/sign-out").status_code == 303
            eventually(
                lambda: other.get("/console", headers=left).status_code == 303, 10, "it is over elsewhere"
            )

            assert hopgate(settings, "keys", "revoke", key.split("_")[1]).returncode == 0
            for gateway in (first, second):
                eventually(
                    lambda gateway=gateway: (
                        httpx.get(f"{gateway.url}/console", headers=cookie).status_code == 303
                    ),
                    3,
                    "the session is over",
                )


def test_pages_say_that_the_store_is_away(redis_server, rabbitmq, tmp_path):
    with PrivatePostgres() as server:
        settings = stack_settings(server, redis_server, rabbitmq)
        key = make_key(settings)
        with Gateway(settings, tmp_path) as gateway, ConsoleSession(gateway, key) as console:
            assert console.create(long_url="https://example.com/", slug="edited").status_code == 303
            blank = console.get("/console/links/new").text
            once = re.findall(r'name="once" value="(\w+)"', blank)[0]
            new = {"once": once, "long_url": "https://example.com/", "slug": "refused", "title": "typed"}
            edit = {"slug": "edited", "version": "1", "long_url": "https://example.com/", "title": "typed"}

            _set_read_only(server, "on")
            for path, form in (("/console/links/new", new), ("/console/link/edit", edit)):
                answer = console.send(path, **form)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert 'value="typed"' in answer.text
                assert "what you typed is still here" in answer.text
                assert f'value="{form.get("once", "")}"' in answer.text
            _set_read_only(server, "off")
            eventually(
                lambda: console.send("/console/links/new", **new).status_code == 303, 20, "it is stored"
            )

            server.kill()

            eventually(lambda: console.get("/console/links").status_code == 503, 20, "the page is 503")
            page = console.get("/console/links")
            assert "Temporarily unavailable" in page.text
            assert "retry-after" in page.headers
            health = console.get("/console/health")
            assert (health.status_code, "<p>store: " in health.text) == (200, True)
            with ConsoleSession(gateway) as unknown:
                unknown.http.cookies.set(COOKIE, "A" * 43)
                assert unknown.get("/console/health").status_code == 503
            out = console.send("/console/sign-out")
            assert (out.status_code, "set-cookie" in out.headers) == (503, False)
            entering = httpx.post(f"{gateway.url}/console/sign-in", data={"key": key})
            assert (entering.status_code, "Temporarily unavailable" in entering.text) == (503, True)
            assert COOKIE in console.http.cookies
            sent = console.send("/console/links/new", **new)
            assert sent.status_code == 503
            assert sent.headers["content-type"].startswith("text/html")


def _set_read_only(server: PrivatePostgres, value: str) -> None:
    """Let PostgreSQL refuse writes, as a standby does, in sessions that are there already as well."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        connection.execute("SELECT pg_reload_conf()")

    def is_set() -> bool:
        with psycopg.connect(server.url()) as connection:
            return connection.execute("SHOW default_transaction_read_only").fetchone() == (value,)

    eventually(is_set, 10, "the setting is read")
