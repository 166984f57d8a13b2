"""
What ships for production, run as far as that goes without containers.

The commands, environments and configuration files of docker-compose.yml and deploy/ are used
as they are; only addresses and ports are those of private servers. Nothing here is a copy of
what it checks.
"""

from __future__ import annotations

import inspect
import ipaddress
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.domain.target import canonical
from app.resilience.deadline import ADMIN_S, DRAIN_S
from app.settings import Settings
from app.web.rsgi import MAX_BODY_BYTES
from tests.servers.hopgate import Gateway, Process, command, eventually, make_key
from tests.servers.nginx import CONFIGURATION, PrivateNginx
from tests.servers.ports import free_ports
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.raw_http import exchange

# Setting up takes as long as five servers take on a busy machine.
pytestmark = pytest.mark.timeout(120)
needs_servers = pytest.mark.services

ROOT = Path(__file__).parents[2]
LINKS = "/api/v1/links"
OURS = ("gateway-1", "gateway-2", "worker", "migrate")
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?::(-|\?)([^}]*))?\})")


# --- reading what ships ----------------------------------------------------------------


def compose() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def interpolated(value, variables):
    """Return *value* with its ${VARIABLES} put in, by the rules of Compose."""
    if isinstance(value, dict):
        return {key: interpolated(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def put_in(match: re.Match[str]) -> str:
        name, rule, text = match.groups()
        if name is None:
            return "$"
        if variables.get(name):
            return variables[name]
        assert rule == "-", f"{name} {text}"
        return text

    return _VARIABLE.sub(put_in, value)


def variables_of(text: str) -> dict[str, tuple[str, str]]:
    """Return each variable that *text* asks for: "-" and its default, or "?" and the message."""
    return {name: (rule, rest) for name, rule, rest in _VARIABLE.findall(text) if name}


def written_by_the_documented_command(directory: Path) -> dict[str, str]:
    """Make .env as .env.example says, and return what it holds."""
    example = (ROOT / ".env.example").read_text()
    lines = re.findall(r"^#   (.*)$", example, re.MULTILINE)
    (directory / ".env.example").write_text(example)
    subprocess.run(["sh", "-euc", "\n".join(lines)], cwd=directory, check=True)
    assert (directory / ".env").stat().st_mode & 0o077 == 0
    text = (directory / ".env").read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def variables(tmp_path_factory) -> dict[str, str]:
    return written_by_the_documented_command(tmp_path_factory.mktemp("env"))


@pytest.fixture(scope="module")
def services(variables) -> dict[str, dict]:
    return interpolated(compose(), variables)["services"]


def docker_compose(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        ["docker", "compose", "--project-directory", str(ROOT), "--env-file", os.devnull, *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


def has_compose() -> bool:
    return shutil.which("docker") is not None and (
        subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
    )


needs_compose = pytest.mark.skipif(not has_compose(), reason="docker compose is not installed")


# --- the files -------------------------------------------------------------------------


@needs_compose
def test_docker_compose_accepts_the_file(variables):
    done = docker_compose("config", "--quiet", environment=variables)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@needs_compose
def test_docker_compose_names_each_secret_that_is_missing(variables):
    for name in variables:
        rest = {key: value for key, value in variables.items() if key != name}
        done = docker_compose("config", "--quiet", environment=rest)

        assert done.returncode != 0
        assert name in done.stderr


def test_every_secret_must_be_set_and_none_has_a_default():
    text = (ROOT / "docker-compose.yml").read_text()
    asked = variables_of(text)

    secrets = {name for name in asked if re.search("PASSWORD|SECRET|TOKEN|KEY", name)}
    assert secrets == {"POSTGRES_PASSWORD", "DATABASE_PASSWORD", "REDIS_PASSWORD", "AMQP_PASSWORD"}
    assert all(asked[name][0] == "?" for name in secrets)
    assert not re.search("guest", text)


def test_the_documented_command_makes_a_different_secret_for_each_password(variables):
    secrets = [value for name, value in variables.items() if name.endswith("_PASSWORD")]

    assert len(secrets) == 4
    assert len(set(secrets)) == 4
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in secrets)


def test_the_example_has_every_variable_and_its_default():
    example = (ROOT / ".env.example").read_text()
    shown = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", example, re.MULTILINE))
    asked = variables_of((ROOT / "docker-compose.yml").read_text())

    assert set(shown) == set(asked)
    for name, (rule, default) in asked.items():
        if rule == "-":
            field = name.removeprefix("HOPGATE_").lower()
            # What is passed on empty counts as not set.
            assert shown[name] == (default or Settings.model_fields[field].default)


def test_every_hopgate_variable_is_a_setting_and_the_settings_are_accepted(services, monkeypatch):
    known = {f"HOPGATE_{name}".upper() for name in Settings.model_fields}
    for name in [name for name in os.environ if name.startswith("HOPGATE_")]:
        monkeypatch.delenv(name)

    for name in OURS:
        given = services[name]["environment"]
        assert set(given) <= known
        with monkeypatch.context() as patch:
            for key, value in given.items():
                patch.setenv(key, value)
            settings = Settings()
        assert not settings.embedded
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"HOPGATE_\w+", dockerfile)) <= known


def test_images_are_pinned_and_every_service_can_be_watched(services):
    for name, service in services.items():
        assert re.search(r":(?!latest)[\w.-]+$", service["image"]), name
        assert service["logging"] == {"driver": "local"}
        assert service["cap_drop"] == ["ALL"]
        assert service["deploy"]["resources"]["limits"]["memory"]
        if name != "migrate":
            assert service["healthcheck"]["test"]
            assert service["restart"] == "unless-stopped"
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert all(re.search(r":\d+\.\d+-slim-bookworm$", base) for base in bases)


def test_only_nginx_can_be_reached_from_outside(services):
    networks = compose()["networks"]

    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    assert not any("network_mode" in service for service in services.values())
    open_networks = {name for name, network in networks.items() if not (network or {}).get("internal")}
    assert open_networks == {"public"}
    assert [n for n, service in services.items() if open_networks & set(service["networks"])] == ["nginx"]


def test_gateways_believe_nginx_and_nobody_else(services):
    address = services["nginx"]["networks"]["edge"]["ipv4_address"]
    names = services["nginx"]["extra_hosts"]

    for name in ("gateway-1", "gateway-2"):
        trusted = services[name]["environment"]["HOPGATE_TRUSTED_PROXIES"]
        assert ipaddress.ip_network(trusted) == ipaddress.ip_network(address)
        assert services[name]["networks"]["edge"]["ipv4_address"] == names[name]
        assert f"server {name}:8000 " in (CONFIGURATION / "gateways.conf").read_text()


def test_whoever_drains_is_given_the_time(services):
    for name in ("gateway-1", "gateway-2", "worker"):
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > DRAIN_S


def test_all_connections_together_leave_the_database_room(services):
    """At most 80 % of what PostgreSQL accepts, so that doctors and operators get in."""
    from app.adapters.store_postgres import PostgresStore

    pool = inspect.signature(PostgresStore.open).parameters["max_connections"].default
    processes = 1 + sum(
        int(services[name]["environment"]["HOPGATE_WORKERS"]) for name in ("gateway-1", "gateway-2")
    )
    [accepted] = [part for part in services["postgres"]["command"] if part.startswith("max_connections=")]

    assert processes * pool <= 0.8 * int(accepted.partition("=")[2])


def test_nginx_allows_what_a_gateway_allows():
    text = (CONFIGURATION / "nginx.conf").read_text()

    def value(name: str) -> str:
        [found] = re.findall(rf"^\s*{name}\s+(.*);$", text, re.MULTILINE)
        return found

    assert value("client_max_body_size") == value("client_body_buffer_size") == f"{MAX_BODY_BYTES // 1024}k"
    assert int(value("proxy_read_timeout").removesuffix("s")) > ADMIN_S


def test_the_settings_in_the_manual_are_those_of_the_program():
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = dict(re.findall(r"^\| `(HOPGATE_\w+)` \|(.*?)\|", text, re.MULTILINE))

    assert set(rows) == {f"HOPGATE_{name}".upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        assert rows[f"HOPGATE_{name}".upper()].strip(" `") == str(field.default or "")


# --- the stack -------------------------------------------------------------------------


class Stack:
    """What compose would run: nginx, two gateways, a worker and the servers behind them."""

    def __init__(self, services, environments, directory) -> None:
        self.services = services
        self.environments = environments
        self.directory = directory
        self.gateways: list[Gateway] = []
        self.nginx: PrivateNginx
        self.worker: Process

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.nginx.url, **options)


def command_of(service) -> list[str]:
    """Return what the container of one of our services runs."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    [entrypoint] = re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)
    program, *arguments = [*json.loads(entrypoint), *service["command"]]
    assert program == "hopgate"
    return command(*arguments)


def health_checks(stack: Stack) -> Iterator[tuple[str, list[str]]]:
    """Give the health check of each of our containers, and the image's own, asking where they are here."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    [of_image] = re.findall(r"^HEALTHCHECK .*\\\n +CMD (.*)$", dockerfile, re.MULTILINE)
    ports = [str(gateway.port) for gateway in stack.gateways]
    for name, check, port in (
        ("gateway-1", stack.services["gateway-1"]["healthcheck"]["test"][1:], ports[0]),
        ("gateway-2", stack.services["gateway-2"]["healthcheck"]["test"][1:], ports[1]),
        ("gateway-2", json.loads(of_image), ports[1]),
        ("worker", stack.services["worker"]["healthcheck"]["test"][1:], ""),
    ):
        program, *arguments = [part.replace("8000", port) for part in check]
        yield name, command(*arguments) if program == "hopgate" else [sys.executable, *arguments]


@contextmanager
def composed_redis(service, directory) -> Iterator[int]:
    port = free_ports(1)[0]
    arguments = list(service["command"])
    assert arguments[-1].count("--port 6379") == 1
    arguments[-1] = arguments[-1].replace("--port 6379", f"--bind 127.0.0.1 --port {port}")
    password = service["environment"]["REDIS_PASSWORD"]

    def answers() -> bool:
        server.check_alive()
        try:
            with redis.Redis(port=port, username="hopgate", password=password) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    server = Process(arguments, service["environment"], directory / "redis.log")
    with server:
        eventually(answers, what="redis answers")
        yield port


@contextmanager
def composed_rabbitmq(service, directory) -> Iterator[PrivateRabbit]:
    """A broker set up by start.sh and rabbitmq.conf; its definitions in a folder of its own."""
    server = PrivateRabbit()
    definitions = directory / "definitions"
    definitions.mkdir()
    assert service["entrypoint"] == ["sh", "/etc/hopgate/start.sh"]
    subprocess.run(
        ["sh", ROOT / "deploy/rabbitmq/start.sh", "true"],
        env={**os.environ, **service["environment"], "DEFINITIONS_DIRECTORY": str(definitions)},
        check=True,
    )
    shipped = (ROOT / "deploy/rabbitmq/rabbitmq.conf").read_text()
    assert shipped.count(service["tmpfs"][0].partition(":")[0]) == 1
    shipped = shipped.replace("/run/hopgate", str(definitions))
    kept = [line for line in shipped.splitlines() if not line.startswith("disk_free_limit")]
    with (server.directory / "rabbitmq.conf").open("a") as configuration:
        configuration.write("\n".join(kept))
    with server:
        yield server


def create_database(postgres, service) -> str:
    """Make what the image makes, and run the script that it runs then; return the name."""
    url = postgres.create_database(migrated=False)
    name = url.rpartition("/")[2]
    place = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "POSTGRES_DB": name}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS hopgate")
    subprocess.run(
        ["sh", ROOT / "deploy/postgres/roles.sh"],
        env={**os.environ, **service["environment"], **place},
        check=True,
    )
    return name


@pytest.fixture(scope="module")
def stack(services, postgres, tmp_path_factory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("compose")
    with ExitStack() as running:
        rabbitmq = running.enter_context(composed_rabbitmq(services["rabbitmq"], directory))
        redis_port = running.enter_context(composed_redis(services["redis"], directory))
        database = create_database(postgres, services["postgres"])
        places = {
            "@postgres:5432/hopgate": f"@127.0.0.1:{postgres.port}/{database}",
            "@redis:6379": f"@127.0.0.1:{redis_port}",
            "@rabbitmq:5672": f"@127.0.0.1:{rabbitmq.port}",
            services["nginx"]["networks"]["edge"]["ipv4_address"]: "127.0.0.1",
        }
        environments = {}
        for name in OURS:
            environment = dict(services[name]["environment"])
            for old, new in places.items():
                environment = {key: value.replace(old, new) for key, value in environment.items()}
            environments[name] = environment
        stack = Stack(services, environments, directory)

        migrate = subprocess.run(
            command_of(services["migrate"]),
            env={**os.environ, **environments["migrate"]},
            capture_output=True,
            text=True,
        )
        assert migrate.returncode == 0, migrate.stderr

        limits = {
            "HOPGATE_LIMIT_REDIRECT": "1000000/s burst 1000000",
            "HOPGATE_LIMIT_CREATE": "1000000/s burst 1000000",
            "HOPGATE_LIMIT_API": "1000000/s burst 1000000",
            "HOPGATE_LIMIT_NOT_FOUND": "3/min burst 3",
            "HOPGATE_WORKERS": "1",
        }
        for name in ("gateway-1", "gateway-2"):
            gateway = Gateway({**environments[name], **limits}, directory, command_of(services[name]))
            stack.gateways.append(running.enter_context(gateway))
        stack.worker = running.enter_context(
            Process(command_of(services["worker"]), environments["worker"], directory / "worker.log")
        )
        stack.nginx = running.enter_context(
            PrivateNginx(directory, [gateway.port for gateway in stack.gateways])
        )
        yield stack


@pytest.fixture(scope="module")
def api(stack) -> Iterator[httpx.Client]:
    """A client with a key, by way of nginx."""
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


@needs_servers
def test_links_made_through_nginx_redirect_byte_for_byte(api, visitor):
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


@needs_servers
def test_paths_and_queries_reach_the_gateway_as_they_were_sent(stack, api):
    """Nothing is decoded, merged or tidied up on the way."""
    slug = make_link(api, forward_query=True)
    for target in (
        f"/{slug}?a=%2e%2E/&b=//x&c=%zz&d='\"",
        f"//{slug}",
        f"/{slug}/",
        f"/%{ord(slug[0]):x}{slug[1:]}",
    ):
        request = f"GET {target} HTTP/1.1\r\nHost: hop.example\r\nConnection: close\r\n\r\n".encode()
        through, direct = (exchange(port, request) for port in (stack.nginx.port, stack.gateways[0].port))

        assert through.status == direct.status
        assert through.header("location") == direct.header("location")
        assert through.body == direct.body


@needs_servers
def test_every_verb_of_the_api_passes_nginx(api, visitor):
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
    eventually(lambda: visitor.get(f"/{slug}").status_code == 410, 5, "it is gone")


@needs_servers
def test_clients_cannot_choose_their_address(stack):
    """Each gateway lets an address miss three times; whatever it sends along, it stays that address."""

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


@needs_servers
def test_health_is_public_and_the_inside_is_not(visitor):
    assert visitor.get("/healthz").json() == {"status": "ok"}
    for path in ("/readyz", "/metrics"):
        hidden = visitor.get(path)
        assert hidden.status_code == 404
        assert hidden.json()["code"] == "not_found"


@needs_servers
def test_too_large_a_body_is_refused_in_the_shape_of_the_api(api):
    answer = api.post(LINKS, content=b"x" * (MAX_BODY_BYTES + 1))

    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "body_too_large"


@needs_servers
def test_too_long_a_request_line_is_refused(stack):
    request = b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    assert exchange(stack.nginx.port, request).status == 414


@needs_servers
def test_the_health_checks_of_the_containers_pass(stack, api):
    make_link(api)

    for name, check in health_checks(stack):
        environment = {**os.environ, **stack.environments[name]}
        done = subprocess.run(check, env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, (name, done.stdout, done.stderr)


@needs_servers
def test_the_worker_fills_the_cache_with_what_was_asked_for(stack, api):
    url = stack.environments["worker"]["HOPGATE_REDIS_URL"]
    slug = make_link(api)

    with redis.Redis.from_url(url) as client:
        eventually(lambda: client.exists(f"hg:link:{{{slug}}}"), what="the link is cached")


@needs_servers
def test_nobody_has_more_rights_than_needed(stack):
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
    nobody = redis.Redis(port=port, retry=Retry(NoBackoff(), 0))
    with nobody as client, pytest.raises(redis.AuthenticationError):
        client.ping()


@needs_servers
async def test_the_broker_knows_one_user_who_owns_nothing_else(stack):
    import aio_pika
    from aiormq.exceptions import ChannelAccessRefused, ProbableAuthenticationError

    url = stack.environments["gateway-1"]["HOPGATE_AMQP_URL"]

    with pytest.raises(ProbableAuthenticationError):
        await aio_pika.connect(re.sub(r"//.*@", "//guest:guest@", url))
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        with pytest.raises(ChannelAccessRefused):
            await channel.declare_queue("somebody-elses")


# --- trouble ---------------------------------------------------------------------------


@needs_servers
def test_a_killed_gateway_fails_no_redirect(stack, api, visitor):
    slug = make_link(api)
    victim = stack.gateways[0]
    victim.kill()
    try:
        statuses = [visitor.get(f"/{slug}").status_code for _ in range(300)]
    finally:
        victim.start()

    assert set(statuses) == {302}


def visit_until(stop: threading.Event, stack: Stack, slugs: list[str]) -> list[object]:
    outcomes: list[object] = []
    with stack.client() as client:
        for slug in itertools.cycle(slugs):
            if stop.wait(0.01):
                return outcomes
            try:
                outcomes.append(client.get(f"/{slug}").status_code)
            except httpx.HTTPError as error:
                outcomes.append(error)
    raise AssertionError


def write_until(stop: threading.Event, api: httpx.Client) -> dict[str, str]:
    """Make links; what gets 503 is sent again with the same key, as a client should."""
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


@needs_servers
def test_a_rolling_restart_under_load_fails_no_redirect_and_loses_no_write(stack, api):
    slugs = [make_link(api) for _ in range(10)]
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write_until, stop, api)
        visiting = [pool.submit(visit_until, stop, stack, slugs) for _ in range(4)]
        try:
            codes = []
            for gateway in stack.gateways:
                codes.append(gateway.stop())
                gateway.start()
                # No pause: the other one goes as soon as this one answers.
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


# --- nginx alone -----------------------------------------------------------------------


class Upstream:
    """Stands in for a gateway: gives every request the same bytes, or just hangs up."""

    def __init__(self, reply: bytes) -> None:
        self.requests: list[bytes] = []
        self._reply = reply
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                received = connection.recv(65536)
                if received:
                    self.requests.append(received)
                    connection.sendall(self._reply)

    def __enter__(self) -> Upstream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake a thread that accepts.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@contextmanager
def nginx_before(tmp_path, *replies: bytes) -> Iterator[tuple[httpx.Client, list[Upstream]]]:
    with ExitStack() as opened:
        upstreams = [opened.enter_context(Upstream(reply)) for reply in replies]
        nginx = opened.enter_context(PrivateNginx(tmp_path, [upstream.port for upstream in upstreams]))
        yield opened.enter_context(httpx.Client(base_url=nginx.url)), upstreams


HANGS_UP = b""


def test_a_visit_is_repeated_and_a_write_never(tmp_path):
    with nginx_before(tmp_path, HANGS_UP, HANGS_UP) as (client, upstreams):

        def seen(method: str) -> int:
            return sum(r.startswith(f"{method} ".encode()) for u in upstreams for r in u.requests)

        answers = {method: client.request(method, "/x") for method in ("GET", "POST", "PATCH")}

        assert {answer.status_code for answer in answers.values()} == {503}
        assert {answer.headers["retry-after"] for answer in answers.values()} == {"1"}
        assert {answer.json()["code"] for answer in answers.values()} == {"unavailable"}
        assert {method: seen(method) for method in answers} == {"GET": 3, "POST": 1, "PATCH": 1}


def test_the_503_of_a_gateway_is_passed_on_and_takes_no_gateway_away(tmp_path):
    reply = (
        b"HTTP/1.1 503 x\r\nRetry-After: 7\r\nServer: secret/1.0\r\n"
        b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    )
    with nginx_before(tmp_path, reply, reply) as (client, upstreams):
        answers = [client.get("/x") for _ in range(20)]

    assert {(a.status_code, a.headers["retry-after"], a.headers["server"], a.text) for a in answers} == {
        (503, "7", "nginx", "{}")
    }
    assert sum(len(upstream.requests) for upstream in upstreams) == 20


def test_a_gateway_is_told_host_client_and_scheme_and_nothing_made_up(tmp_path):
    reply = b"HTTP/1.1 204 x\r\nConnection: close\r\n\r\n"
    forged = {"X-Forwarded-For": "1.1.1.1", "X-Real-IP": "1.1.1.1", "Forwarded": "for=1.1.1.1"}
    more = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Host": "hop.example"}
    with nginx_before(tmp_path, reply, reply) as (client, upstreams):
        client.get("/x", headers={**forged, **more})
        [request] = [request for upstream in upstreams for request in upstream.requests]

    lines = request.decode().lower().split("\r\n")
    assert {"host: hop.example", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"} <= set(lines)
    assert "1.1.1.1" not in request.decode()
    assert "evil" not in request.decode()


@pytest.mark.parametrize("reply", [HANGS_UP, b"HTTP/1.1 204 x\r\nConnection: close\r\n\r\n"])
def test_logs_hold_no_query_strings(tmp_path, reply):
    """Also not while gateways fail, when nginx has more to say."""
    with nginx_before(tmp_path, reply, reply) as (client, _):
        status = client.get("/abc?token=canary", headers={"Referer": "https://x/?canary"}).status_code
        client.get("//abc/%2e/?canary")
        client.post("/abc?canary", content=b"x" * (MAX_BODY_BYTES + 1))
        client.get("/abc?canary=" + 9000 * "x")
        [log] = tmp_path.glob("nginx-*/output.log")
        eventually(lambda: log.read_text().count('"status"') == 4, what="all four are logged")

    text = log.read_text()
    assert "canary" not in text
    first = json.loads(text.splitlines()[0])
    assert (first["client"], first["method"], first["path"], first["status"]) == (
        "127.0.0.1",
        "GET",
        "/abc",
        status,
    )
