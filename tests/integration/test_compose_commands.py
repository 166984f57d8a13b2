"""
Runs the production setup without containers.

The commands, environments and configuration files come from docker-compose.yml and deploy/; only
addresses and ports are those of private servers.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.domain.target import canonical
from app.web.body import MAX_BODY_BYTES
from tests.integration.compose_file import ROOT
from tests.integration.compose_stack import Stack, composed, health_checks
from tests.integration.monitoring import EXPORTED
from tests.servers.hopgate import eventually, make_key
from tests.servers.raw_http import answered

# The setup starts five servers, which is slow on a busy machine.
pytestmark = [pytest.mark.timeout(120), pytest.mark.services]

LINKS = "/api/v1/links"


@pytest.fixture(scope="module")
def stack(services, postgres, tmp_path_factory) -> Iterator[Stack]:
    with composed(services, postgres, tmp_path_factory.mktemp("compose")) as stack:
        yield stack


@pytest.fixture(scope="module")
def api(stack) -> Iterator[httpx.Client]:
    """A client with a key, through nginx."""
    key = make_key(stack.environments["gateway-1"])
    with stack.client(headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


@pytest.fixture
def visitor(stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client


def make_link(api, **fields) -> str:
    answer = api.post(LINKS, json={"long_url": "https://example.com/", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()["slug"]


def test_redirect_through_nginx_is_byte_exact(api, visitor):
    made = 0
    for url in (ROOT / "tests/data/urls.txt").read_text().splitlines()[:600:8]:
        answer = api.post(LINKS, json={"long_url": url})
        if answer.status_code == 422:  # the sample has URLs that break the rules
            continue
        visit = visitor.get(f"/{answer.json()['slug']}")
        assert visit.status_code == 302
        assert visit.headers["location"] == canonical(url, own_hosts=())
        assert visit.headers["server"] == "nginx"
        made += 1
    assert made > 50


def test_nginx_forwards_paths_and_queries_unchanged(stack, api):
    """nginx does not decode, merge or normalise a target."""
    slug = make_link(api, forward_query=True)
    for target in (
        f"/{slug}?a=%2e%2E/&b=//x&c=%zz&d='\"",
        f"//{slug}",
        f"/{slug}/",
        f"/%{ord(slug[0]):x}{slug[1:]}",
    ):
        request = f"GET {target} HTTP/1.1\r\nHost: hop.example\r\nConnection: close\r\n\r\n".encode()
        through, direct = (answered(port, request) for port in (stack.nginx.port, stack.gateways[0].port))

        assert through.status == direct.status
        assert through.header("location") == direct.header("location")
        assert through.body == direct.body


def test_nginx_passes_every_method_of_the_api(api, visitor):
    slug = make_link(api)
    path = f"{LINKS}/{slug}"

    changed = api.patch(path, json={"title": "new"}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert api.get(path).json()["title"] == "new"
    assert api.get(LINKS, params={"limit": 200}).status_code == 200
    assert api.post("/api/v1/cache/invalidate", json={"slugs": [slug]}).status_code == 202
    assert api.options(path).status_code == 204
    assert visitor.head(f"/{slug}").status_code == 302
    assert visitor.get("/robots.txt").status_code == 200
    assert api.delete(path).status_code == 204
    eventually(lambda: visitor.get(f"/{slug}").status_code == 410, 30, "the removal is visible")


def test_clients_cannot_forge_their_address(stack):
    """Each gateway allows three misses per address; a forged X-Forwarded-For changes nothing."""

    def miss(source: str, count: int) -> list[int]:
        transport = httpx.HTTPTransport(local_address=source)
        with stack.client(transport=transport) as client:
            return [
                client.get("/unknown-slug", headers={"X-Forwarded-For": f"198.51.100.{i}"}).status_code
                for i in range(count)
            ]

    first = miss("127.0.0.2", 20)
    other = miss("127.0.0.3", 1)

    assert first.count(404) <= 6
    assert set(first[6:]) <= {404, 429}
    assert first[-1] == 429
    assert other == [404]


def test_only_healthz_is_public(visitor):
    assert visitor.get("/healthz").json() == {"status": "ok"}
    for path in ("/readyz", "/metrics"):
        hidden = visitor.get(path)
        assert hidden.status_code == 404
        assert hidden.json()["code"] == "not_found"


def test_oversized_body_gets_a_problem_document(api):
    answer = api.post(LINKS, content=b"x" * (MAX_BODY_BYTES + 1))

    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "body_too_large"


def test_oversized_request_line_gets_a_problem_document(stack):
    request = b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    answer = answered(stack.nginx.port, request)

    assert answer.status == 414
    assert answer.header("content-type") == "application/problem+json"
    assert json.loads(answer.body)["code"] == "target_too_long"


def test_container_health_checks_pass(stack, api):
    make_link(api)

    for name, check in health_checks(stack):
        environment = {**os.environ, **stack.environments[name]}
        done = subprocess.run(check, env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, (name, done.stdout, done.stderr)


def test_worker_fills_the_cache(stack, api):
    url = stack.environments["worker"]["HOPGATE_REDIS_URL"]
    slug = make_link(api)

    with redis.Redis.from_url(url) as client:
        eventually(lambda: client.exists(f"hg:link:{{{slug}}}"), what="the link is cached")


def test_service_accounts_have_least_privilege(stack):
    environment = stack.environments["gateway-1"]

    with psycopg.connect(environment["HOPGATE_DATABASE_URL"]) as connection:
        for statement in (b"DROP TABLE links", b"CREATE TABLE mine ()", b"TRUNCATE links"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement)
    with redis.Redis.from_url(environment["HOPGATE_REDIS_URL"]) as client:
        for forbidden in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*forbidden)
    port = httpx.URL(environment["HOPGATE_REDIS_URL"]).port
    assert port is not None
    anonymous = redis.Redis(port=port, retry=Retry(NoBackoff(), 0))
    with anonymous as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_monitoring_users_read_statistics_and_no_links(stack):
    """The users of the exporters: of PostgreSQL and of Redis."""
    environment = stack.environments["gateway-1"]
    database = httpx.URL(environment["HOPGATE_DATABASE_URL"])
    exporter = stack.services["postgres-exporter"]["environment"]
    user, password = exporter["DATA_SOURCE_USER"], exporter["DATA_SOURCE_PASS"]
    with psycopg.connect(
        f"postgresql://{user}:{password}@127.0.0.1:{database.port}{database.path}", autocommit=True
    ) as connection:
        backends = connection.execute("SELECT sum(numbackends) FROM pg_stat_database").fetchone()
        assert backends is not None
        assert backends[0] > 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT count(*) FROM links")
    exporter = stack.services["redis-exporter"]["environment"]
    port = httpx.URL(environment["HOPGATE_REDIS_URL"]).port
    assert port is not None
    with redis.Redis(
        port=port, username=exporter["REDIS_USER"], password=exporter["REDIS_PASSWORD"]
    ) as client:
        assert "evicted_keys" in client.info("stats")
        for forbidden in (("GET", "hg:link:{a}"), ("SCAN", "0"), ("FLUSHALL",)):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*forbidden)


def test_broker_reports_what_dashboards_and_alerts_name(stack):
    text = httpx.get(f"http://127.0.0.1:{stack.rabbitmq.metrics_port}/metrics", timeout=10).text

    reported = set(re.findall(r"^(\w+)", text, re.MULTILINE))
    assert reported >= EXPORTED["rabbitmq"]


async def test_broker_has_one_restricted_user(stack):
    import aio_pika
    from aiormq.exceptions import ChannelAccessRefused, ProbableAuthenticationError

    url = stack.environments["gateway-1"]["HOPGATE_AMQP_URL"]

    with pytest.raises(ProbableAuthenticationError):
        await aio_pika.connect(re.sub(r"//.*@", "//guest:guest@", url))
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        with pytest.raises(ChannelAccessRefused):
            await channel.declare_queue("foreign-queue")


# --- failures --------------------------------------------------------------------------


def test_killed_gateway_fails_no_redirect(stack, api):
    slug = make_link(api)
    victim = stack.gateways[0]
    victim.kill()
    try:
        with stack.client(transport=httpx.HTTPTransport(local_address="127.0.0.9")) as visitor:
            statuses = [visitor.get(f"/{slug}").status_code for _ in range(300)]
    finally:
        victim.start()

    assert set(statuses) == {302}


def visit_until(stop: threading.Event, stack: Stack, slugs: list[str], address: str) -> list[object]:
    outcomes: list[object] = []
    with stack.client(transport=httpx.HTTPTransport(local_address=address)) as client:
        for slug in itertools.cycle(slugs):
            if stop.wait(0.01):
                return outcomes
            try:
                outcomes.append(client.get(f"/{slug}").status_code)
            except httpx.HTTPError as error:
                outcomes.append(error)
    raise AssertionError


def write_until(stop: threading.Event, api: httpx.Client) -> dict[str, str]:
    """Create links; retry a 503 with the same Idempotency-Key, as a client should."""
    stored = {}
    for number in itertools.count():
        if stop.wait(0.01):
            break
        body = {"long_url": f"https://example.com/{number}"}
        answer = None
        while answer is None or answer.status_code == 503:
            answer = api.post(LINKS, json=body, headers={"Idempotency-Key": f"rolling-{number}"})
        assert answer.status_code == 201, answer.text
        stored[body["long_url"]] = answer.json()["slug"]
    return stored


def test_rolling_restart_loses_no_redirect_or_write(stack, api):
    slugs = [make_link(api) for _ in range(10)]
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write_until, stop, api)
        # From other addresses: the limit for unknown slugs, which other tests exceed, also blocks
        # look-ups of existing links for a while.
        visiting = [pool.submit(visit_until, stop, stack, slugs, f"127.0.0.{10 + n}") for n in range(4)]
        try:
            codes = []
            for gateway in stack.gateways:
                codes.append(gateway.stop())
                gateway.start()
                # No pause: the next gateway stops as soon as this one answers.
        finally:
            stop.set()

    refused = [line for line in stack.nginx.output.splitlines() if '"status":503' in line]
    visits = [outcome for future in visiting for outcome in future.result()]
    stored = writing.result()
    assert codes == [0, 0]
    assert set(visits) == {302}, refused
    assert len(visits) > 100
    with psycopg.connect(stack.environments["worker"]["HOPGATE_DATABASE_URL"]) as connection:
        rows = connection.execute("SELECT long_url, slug FROM links").fetchall()
    assert len(stored) > 10
    assert sorted(row for row in rows if row[0] in stored) == sorted(stored.items())
