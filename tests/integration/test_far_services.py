"""Commands of an operator who is far from the services: 0.3 s for each round trip, 1.5 s to connect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.servers.hopgate import hopgate
from tests.servers.proxy import FaultProxy, Network
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]

_FAR = Network(latency_s=0.15)
_SERVICES = ("HOPGATE_DATABASE_URL", "HOPGATE_REDIS_URL", "HOPGATE_AMQP_URL")


@pytest.fixture(scope="module")
def far(postgres, redis_server, rabbitmq) -> Iterator[dict[str, str]]:
    """Settings with a link `held`, and a way to each service that takes long."""
    settings = stack_settings(postgres, redis_server, rabbitmq)
    assert hopgate(settings, "links", "create", "https://example.com/", "--slug", "held").returncode == 0
    with ExitStack() as stack:
        for name in _SERVICES:
            port = urlsplit(settings[name]).port
            assert port is not None
            proxy = stack.enter_context(FaultProxy(port))
            proxy.become(_FAR)
            settings[name] = settings[name].replace(f":{port}", f":{proxy.port}")
        yield settings


@pytest.mark.parametrize(
    "command",
    [
        ("blocks", "list"),
        ("check",),
        ("domains", "list"),
        ("keys", "create", "far", "--scope", "admin"),
        ("keys", "list"),
        ("links", "create", "https://example.com/far"),
        ("links", "edit", "held", "--title", "far"),
        ("links", "export"),
        ("links", "get", "held"),
        ("links", "history", "held"),
        ("links", "list"),
        ("links", "stats", "held"),
        ("stats",),
        ("webhooks", "list"),
    ],
    ids=" ".join,
)
def test_command_waits_for_far_services(far, command):
    done = hopgate(far, *command)

    assert done.returncode == 0, done.stderr


def test_doctor_tells_that_services_are_far(far):
    """They answer; a redirect of a gateway here would not wait as long."""
    done = hopgate(far, "doctor")

    store, cache = (
        next(line for line in done.stdout.splitlines() if f" {name} " in f" {line} ")
        for name in ("store", "cache")
    )
    assert store.startswith("warn"), done.stdout
    assert cache.startswith("warn"), done.stdout
    assert float(cache.split("answers in ")[1].split()[0]) >= 300
    assert "a redirect waits 60 ms for it" in done.stdout
