"""The queries that concurrent misses cost on the full stack."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import psycopg
import pytest

from app.domain.link import Slug
from app.service import keys
from app.wire import cache_key
from tests.conftest import NOW
from tests.servers.hopgate import Gateway, Worker, eventually, hopgate
from tests.servers.raw_http import answer_on
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]
VISITORS = 300
REQUEST = b"GET /cold HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def settings(postgres, redis_server, rabbitmq):
    return stack_settings(postgres, redis_server, rabbitmq)


def looks_at_links(settings) -> int:
    """How often backends that have ended read the table of links."""
    with psycopg.connect(settings["HOPGATE_DATABASE_URL"]) as connection:
        query = "SELECT seq_scan + idx_scan FROM pg_stat_user_tables WHERE relname = 'links'"
        [(scans,)] = connection.execute(query).fetchall()
    return scans


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


def test_concurrent_misses_are_one_query(settings, tmp_path):
    made = hopgate(settings, "links", "create", "https://example.com/", "--slug", "cold")
    assert made.returncode == 0, made.stderr
    before = settled(settings)
    with (
        Gateway(settings, tmp_path) as gateway,
        connections(gateway.port, 1 + VISITORS) as (first, *others),
    ):
        # The lock holds the query back until all visitors have sent their requests.
        with psycopg.connect(settings["HOPGATE_DATABASE_URL"]) as holding:
            holding.execute("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
            first.sendall(REQUEST)
            time.sleep(0.01)
            first.close()
            for other in others:
                other.sendall(REQUEST)
        answers = [answer_on(other) for other in others]

    assert {(answer.status, answer.header("location")) for answer in answers} == {
        (302, "https://example.com/")
    }
    # One query looks for the link, and for the one whose alias it may be.
    assert settled(settings) - before == 2


def test_scan_leaves_redis_empty(settings, redis_server, tmp_path):
    made = hopgate(settings, "links", "create", "https://example.com/", "--slug", "known")
    assert made.returncode == 0, made.stderr
    with (
        Gateway(settings, tmp_path) as gateway,
        Worker(settings, tmp_path),
        httpx.Client(base_url=gateway.url) as visitor,
    ):
        guesses = {visitor.get(f"/guess-{i}").status_code for i in range(2000)}
        # Misses are published in order: once this one is cached, all earlier ones are.
        redis_server.command("DEL", cache_key(Slug("known")))
        visitor.get("/known")
        eventually(
            lambda: redis_server.command("EXISTS", cache_key(Slug("known"))) == 1,
            timeout=30,
            what="the worker has cached what was missed",
        )

        assert guesses == {404}
        # The only other keys are the limits that gateways share.
        keys = redis_server.command("KEYS", "*")
        assert isinstance(keys, list)
        links = [key for key in keys if not key.startswith(b"hg:limit:")]
        assert links == [cache_key(Slug("known")).encode()]
        assert len(keys) < 10


def test_concurrent_keys_share_one_limit(settings, tmp_path):
    """Each key is well formed and unknown: none may be looked up beyond the limit."""
    made_up = [keys.issue("x", frozenset(), now=NOW, choice=secrets.choice)[0] for _ in range(100)]
    with (
        Gateway({**settings, "HOPGATE_LIMIT_API": "1/h burst 5"}, tmp_path) as gateway,
        connections(gateway.port, len(made_up)) as sockets,
    ):
        for one, key in zip(sockets, made_up, strict=True):
            request = f"GET /api/v1/links HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
            one.sendall(request.encode())
        statuses = [answer_on(one).status for one in sockets]

    assert (statuses.count(401), statuses.count(429)) == (5, 95)
