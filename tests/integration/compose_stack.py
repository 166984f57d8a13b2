"""Starts the services of docker-compose.yml without containers, from the shipped files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psycopg
import redis

from tests.integration.compose_file import OURS, ROOT
from tests.servers.hopgate import Gateway, Process, command, eventually
from tests.servers.nginx import PrivateNginx
from tests.servers.ports import free_ports
from tests.servers.rabbitmq import PrivateRabbit


class Stack:
    """The services of docker-compose.yml: nginx, two gateways, a worker and their upstreams."""

    def __init__(self, services, environments, directory) -> None:
        self.services = services
        self.environments = environments
        self.directory = directory
        self.gateways: list[Gateway] = []
        self.nginx: PrivateNginx
        self.rabbitmq: PrivateRabbit
        self.worker: Process

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.nginx.url, **options)


def command_of(service: dict[str, Any]) -> list[str]:
    """Return the command line of the container of *service*."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    [entrypoint] = re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)
    parts: list[str] = [*json.loads(entrypoint), *service["command"]]
    program, *arguments = parts
    assert program == "hopgate"
    return command(*arguments)


def health_checks(stack: Stack) -> Iterator[tuple[str, list[str]]]:
    """Yield the health check of each container and of the image, with the ports of *stack*."""
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
    """A broker configured by start.sh and rabbitmq.conf, with its definitions in a private folder."""
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
    server.metrics_port = free_ports(1)[0]
    kept.append(f"prometheus.tcp.port = {server.metrics_port}")
    with (server.directory / "rabbitmq.conf").open("a") as configuration:
        configuration.write("\n".join(kept))
    shutil.copy(ROOT / "deploy/rabbitmq/enabled_plugins", server.directory)
    with server:
        yield server


def create_database(postgres, service) -> str:
    """Create a database as the image does, run its init script, and return the name."""
    url = postgres.create_database(migrated=False)
    name = url.rpartition("/")[2]
    place = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "POSTGRES_DB": name}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS hopgate, hopgate_monitor")
    subprocess.run(
        ["sh", ROOT / "deploy/postgres/roles.sh"],
        env={**os.environ, **service["environment"], **place},
        check=True,
    )
    return name


@contextmanager
def composed(services, postgres, directory) -> Iterator[Stack]:
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
        stack.rabbitmq = rabbitmq

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
