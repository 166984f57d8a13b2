"""What a gateway on the full stack asks its services when many miss at once."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import psycopg
import pytest

from app.service import keys
from app.wire import cache_key
from tests.conftest import NOW
from tests.servers.hopgate import Gateway, Worker, eventually, hopgate
from tests.servers.raw_http import read_answer
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]
VISITORS = 300
REQUEST = b"GET /cold HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def settings(postgres, redis_server, rabbitmq):
    return stack_settings(postgres, redis_server, rabbitmq)


def looks_at_links(settings) -> int:
    """How often a backend that has ended read the table of links."""
    with psycopg.connect(settings["HOPGATE_DATABASE_URL"]) as connection:
        query = "SELECT seq_scan + idx_scan FROM pg_stat_user_tables WHERE relname = 'links'"
        return connection.execute(query).fetchone()[0]


def settled(settings) -> int:
    """As above, once the count stands still: backends report when they end."""
    counts = [-1, looks_at_links(settings)]
    while counts[-1] != counts[-2]:
        time.sleep(0.3)
        counts.append(looks_at_links(settings))
    return counts[-1]


@contextmanager
def connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as opened:
        yield [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            for _ in range(count)
        ]


def test_many_visitors_of_a_cold_link_are_one_query_though_the_first_hangs_up(settings, tmp_path):
    made = hopgate(settings, "links", "create", "https://example.com/", "--slug", "cold")
    assert made.returncode == 0, made.stderr
    before = settled(settings)
    with (
        Gateway(settings, tmp_path) as gateway,
        connections(gateway.port, 1 + VISITORS) as (first, *others),
    ):
        # Nothing is read from the store until all have asked.
        with psycopg.connect(settings["HOPGATE_DATABASE_URL"]) as holding:
            holding.execute("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
            first.sendall(REQUEST)
            time.sleep(0.01)
            first.close()
            for other in others:
                other.sendall(REQUEST)
        answers = [read_answer(other) for other in others]

    assert {(answer.status, answer.header("location")) for answer in answers} == {
        (302, "https://example.com/")
    }
    assert settled(settings) - before == 1


def test_a_scan_for_unknown_slugs_leaves_nothing_in_redis(settings, redis_server, tmp_path):
    made = hopgate(settings, "links", "create", "https://example.com/", "--slug", "known")
    assert made.returncode == 0, made.stderr
    with (
        Gateway(settings, tmp_path) as gateway,
        Worker(settings, tmp_path),
        httpx.Client(base_url=gateway.url) as visitor,
    ):
        guesses = {visitor.get(f"/guess-{i}").status_code for i in range(2000)}
        # Misses are reported in order: once this one is cached, so is whatever was missed before.
        redis_server.command("DEL", cache_key("known"))
        visitor.get("/known")
        eventually(
            lambda: redis_server.command("EXISTS", cache_key("known")) == 1,
            timeout=30,
            what="the worker has cached what was missed",
        )

        assert guesses == {404}
        # Beside it there is only what gateways know of each other and of the one who guessed.
        keys = redis_server.command("KEYS", "*")
        assert isinstance(keys, list)
        links = [key for key in keys if not key.startswith(b"hg:limit:")]
        assert links == [cache_key("known").encode()]
        assert len(keys) < 10


def test_keys_tried_all_at_once_are_limited_as_if_one_by_one(settings, tmp_path):
    """Each is well formed and unknown: none may be looked up beyond the limit."""
    made_up = [keys.issue("x", frozenset(), now=NOW, choice=secrets.choice)[0] for _ in range(100)]
    with (
        Gateway({**settings, "HOPGATE_LIMIT_API": "1/h burst 5"}, tmp_path) as gateway,
        connections(gateway.port, len(made_up)) as sockets,
    ):
        for one, key in zip(sockets, made_up, strict=True):
            request = f"GET /api/v1/links HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
            one.sendall(request.encode())
        statuses = [read_answer(one).status for one in sockets]

    assert (statuses.count(401), statuses.count(429)) == (5, 95)
