"""
Static checks of docker-compose.yml and the files that it uses.

Expected values come from the files and the program, never from a copy.
"""

from __future__ import annotations

import inspect
import ipaddress
import os
import re
import shutil
import subprocess

import pytest

from app.resilience.deadline import DRAIN_S
from app.settings import Settings
from tests.integration.compose_file import OURS, ROOT, compose, variables_of
from tests.servers.nginx import CONFIGURATION

# Docker is slow on a busy machine.
pytestmark = pytest.mark.timeout(120)


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


@needs_compose
def test_docker_compose_accepts_the_file(variables):
    done = docker_compose("config", "--quiet", environment=variables)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@needs_compose
def test_docker_compose_names_each_missing_secret(variables):
    for name in variables:
        rest = {key: value for key, value in variables.items() if key != name}
        done = docker_compose("config", "--quiet", environment=rest)

        assert done.returncode != 0
        assert name in done.stderr


def test_secrets_are_required_without_defaults():
    text = (ROOT / "docker-compose.yml").read_text()
    asked = variables_of(text)

    secrets = {name for name in asked if re.search("PASSWORD|SECRET|TOKEN|KEY", name)}
    # Without these there is no key: `hopgate keys create` makes one.
    assert {name: asked[name] for name in sorted(secrets) if "KEY" in name} == {
        "HOPGATE_KEY": ("-", ""),
        "HOPGATE_KEY_FILE": ("-", ""),
    }
    secrets = {name for name in secrets if "KEY" not in name}
    assert secrets == {
        "POSTGRES_PASSWORD",
        "DATABASE_PASSWORD",
        "REDIS_PASSWORD",
        "AMQP_PASSWORD",
        "MONITOR_PASSWORD",
        "GRAFANA_PASSWORD",
    }
    assert all(asked[name][0] == "?" for name in secrets)
    assert not re.search("guest", text)


def test_documented_command_creates_distinct_secrets(variables):
    secrets = [value for name, value in variables.items() if name.endswith("_PASSWORD")]

    assert len(secrets) == 6
    assert len(set(secrets)) == 6
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in secrets)


def test_env_example_has_every_variable_and_default():
    example = (ROOT / ".env.example").read_text()
    shown = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", example, re.MULTILINE))
    asked = variables_of((ROOT / "docker-compose.yml").read_text())

    assert set(shown) == set(asked)
    for name, (rule, default) in asked.items():
        if rule == "-":
            field = Settings.model_fields.get(name.removeprefix("HOPGATE_").lower())
            # An empty value counts as not set. The SDKs of others have defaults of their own.
            assert shown[name] == (default or str((field and field.default) or ""))


def test_hopgate_variables_are_valid_settings(services, monkeypatch):
    known = {f"HOPGATE_{name}".upper() for name in Settings.model_fields}
    for name in [name for name in os.environ if name.startswith("HOPGATE_")]:
        monkeypatch.delenv(name)

    for name in OURS:
        given = services[name]["environment"]
        assert {key for key in given if not key.startswith(("OTEL_", "SENTRY_"))} <= known
        with monkeypatch.context() as patch:
            for key, value in given.items():
                patch.setenv(key, value)
            settings = Settings()
        assert not settings.embedded
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"HOPGATE_\w+", dockerfile)) <= known


def test_builder_gets_all_that_the_image_copies():
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = {
        name
        for line in re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE)
        for name in line.split()
    }

    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)

    assert "requirements/run.txt" in copied
    assert copied <= set(let_through)


def test_gateways_get_every_setting(services):
    """
    The data folder and the address are the image's; only workers have an address for metrics.

    Certificates are nginx's, which speaks HTTP to the gateways. `HOPGATE_URL` is for commands elsewhere.
    `hopgate serve` sets the last three itself.
    """
    given = set(services["gateway-1"]["environment"])
    fields = {f"HOPGATE_{name}".upper() for name in Settings.model_fields}

    assert fields - given == {
        *("HOPGATE_DATA_DIR", "HOPGATE_METRICS_BIND", "HOPGATE_URL"),
        *("HOPGATE_TLS_CERT", "HOPGATE_TLS_KEY", "HOPGATE_PROXY_PROTOCOL"),
        *("HOPGATE_METRICS_DIR", "HOPGATE_FRONT_LISTENERS", "HOPGATE_FRONT_SOCKET"),
    }
    assert given == set(services["gateway-2"]["environment"])


def test_processes_get_the_variables_of_sentry(services):
    for name in OURS:
        given = {key for key in services[name]["environment"] if key.startswith("SENTRY_")}
        assert given == {"SENTRY_DSN", "SENTRY_ENVIRONMENT", "SENTRY_RELEASE"}


def test_processes_get_the_variables_of_opentelemetry(services):
    for name in OURS:
        given = {key for key in services[name]["environment"] if key.startswith("OTEL_")}
        assert {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"} <= given


def test_public_clients_choose_no_trace():
    """Gateways believe nginx, which therefore passes no context on."""
    configured = (CONFIGURATION / "nginx.conf").read_text()
    for name in ("traceparent", "tracestate", "baggage"):
        assert re.search(rf'proxy_set_header {name} +"";', configured)


def test_services_are_pinned_limited_and_monitored(services):
    for name, service in services.items():
        assert re.search(r":(?!latest)[\w.-]+$", service["image"]), name
        assert service["logging"] == {"driver": "local"}
        assert service["cap_drop"] == ["ALL"]
        assert service["deploy"]["resources"]["limits"]["memory"]
        if name != "migrate":
            assert service["restart"] == "unless-stopped"
            # The collector's image holds no program that could ask it; Prometheus does.
            assert name == "otel-collector" or service["healthcheck"]["test"]
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert all(re.search(r":\d+\.\d+-slim-bookworm$", base) for base in bases)


def test_only_nginx_is_reachable_from_outside(services):
    """Grafana is, from this machine, if an operator starts it."""
    networks = compose()["networks"]

    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published.keys() == {"nginx", "grafana"}
    assert published["grafana"] == ["127.0.0.1:3000:3000"]
    assert not any("network_mode" in service for service in services.values())
    open_networks = {name for name, network in networks.items() if not (network or {}).get("internal")}
    assert open_networks == {"public", "operators"}
    members = {
        name: {one for one, service in services.items() if name in service["networks"]} for name in networks
    }
    assert members["public"] == {"nginx"}
    assert members["operators"] == {"grafana", "otel-collector"}
    # It reaches no database and no gateway.
    assert members["metrics"] == {"grafana", "prometheus"}
    assert "grafana" not in members["backend"] | members["edge"]


def test_observers_start_on_demand_and_write_nothing_but_their_data(services):
    observers = {name for name, service in services.items() if service.get("profiles")}

    assert observers == {"prometheus", "grafana", "otel-collector", "postgres-exporter", "redis-exporter"}
    for name in observers:
        assert services[name]["profiles"] == ["observe"]
        assert services[name]["read_only"] is True
        written = [volume for volume in services[name].get("volumes", ()) if not volume.endswith(":ro")]
        assert {volume.partition(":")[0] for volume in written} <= set(compose()["volumes"])
        assert services[name]["user"] != "root"
    # None of them has a password that changes links.
    for name in observers:
        values = " ".join(services[name].get("environment", {}).values())
        for service, secret in (
            ("postgres", "DATABASE_PASSWORD"),
            ("postgres", "POSTGRES_PASSWORD"),
            ("redis", "REDIS_PASSWORD"),
            ("rabbitmq", "AMQP_PASSWORD"),
        ):
            assert services[service]["environment"][secret] not in values


def test_gateways_trust_nginx_only(services):
    address = services["nginx"]["networks"]["edge"]["ipv4_address"]
    names = services["nginx"]["extra_hosts"]

    for name in ("gateway-1", "gateway-2"):
        trusted = services[name]["environment"]["HOPGATE_TRUSTED_PROXIES"]
        assert ipaddress.ip_network(trusted) == ipaddress.ip_network(address)
        assert services[name]["networks"]["edge"]["ipv4_address"] == names[name]
        assert f"server {name}:8000 " in (CONFIGURATION / "gateways.conf").read_text()


def test_stop_grace_period_exceeds_the_drain(services):
    for name in ("gateway-1", "gateway-2", "worker"):
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > DRAIN_S


def test_connection_pools_leave_database_connections_free(services):
    """At most 80 % of the limit of PostgreSQL; `hopgate doctor` and operators need the rest."""
    from app.adapters.postgres.store import PostgresStore

    pool = inspect.signature(PostgresStore.open).parameters["max_connections"].default
    processes = 1 + sum(
        int(services[name]["environment"]["HOPGATE_WORKERS"]) for name in ("gateway-1", "gateway-2")
    )
    [accepted] = [part for part in services["postgres"]["command"] if part.startswith("max_connections=")]

    assert processes * pool <= 0.8 * int(accepted.partition("=")[2])


def test_manual_lists_every_setting_and_default():
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = dict(re.findall(r"^\| `(HOPGATE_\w+)` \|(.*?)\|", text, re.MULTILINE))

    assert set(rows) == {f"HOPGATE_{name}".upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        assert rows[f"HOPGATE_{name}".upper()].strip(" `") == str(field.default or "")
