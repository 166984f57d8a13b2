"""Tracing of an embedded gateway: collectors that fail, late spans, commands, and a missing extra."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.test_metrics import scrape
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_key, make_store
from tests.servers.otlp import Collector
from tests.servers.ports import free_ports

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_BASE_URL": "http://hop.example", **UNLIMITED}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def dropped(gateway: Gateway) -> float:
    return scrape(gateway.url)["hopgate_spans_dropped_total"]


class Load:
    """
    Redirects from the L1 cache, so many a second, each recorded, on one connection.

    `taken_s`: how long each took, in order; `memory`: of the gateway in bytes, before and afterwards.
    """

    def __init__(self, gateway: Gateway, key: str, *, seconds: float, per_s: int) -> None:
        self.taken_s: list[float] = []
        with httpx.Client(base_url=gateway.url, timeout=30) as client:
            headers = {"Authorization": f"Bearer {key}"}
            made = client.post("/api/v1/links", json={"long_url": "https://example.com/"}, headers=headers)
            slug = made.json()["slug"]
            for _ in range(300):  # what a process allocates once
                client.get(f"/{slug}")
            before = scrape(gateway.url)
            began = time.monotonic()
            for number in range(round(seconds * per_s)):
                time.sleep(max(0.0, began + number / per_s - time.monotonic()))
                started = time.perf_counter()
                assert client.get(f"/{slug}").status_code == 302
                self.taken_s.append(time.perf_counter() - started)
        after = scrape(gateway.url)
        self.taken_s.sort()
        self.memory = [one["process_resident_memory_bytes"] for one in (before, after)]
        self.ended = after["hopgate_spans_dropped_total"] + after["hopgate_spans_exported_total"]
        self.dropped = after["hopgate_spans_dropped_total"]

    def __str__(self) -> str:
        p50, p99 = (self.taken_s[int(len(self.taken_s) * q)] * 1000 for q in (0.5, 0.99))
        first, last = (size / 2**20 for size in self.memory)
        return (
            f"{len(self.taken_s)} redirects, p50 {p50:.2f} ms, p99 {p99:.2f} ms,"
            f" memory {first:.1f} -> {last:.1f} MiB, {self.dropped:.0f} of {self.ended:.0f} spans dropped"
        )


def loaded(settings, directory, collector: Collector, fault: str, *, seconds: float, per_s: int) -> Load:
    """Load a gateway whose collector has *fault*."""
    collector.answers = {"is_silent": None, "refuses": 400}.get(fault, 200)
    collector.delay_s = 2.0 if fault == "is_slow" else 0.0
    given = {
        **settings,
        **collector.settings,
        "HOPGATE_DATA_DIR": str(directory / f"data-{fault}"),
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
        # A slow collector takes 32 spans a second of it.
        "OTEL_BSP_MAX_QUEUE_SIZE": "2048" if fault == "is_well" else "64",
    }
    if fault == "is_closed":
        given["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_ports(1)[0]}"
    key = make_key({name: value for name, value in given.items() if name.startswith("HOPGATE_")})
    with Gateway(given, directory) as gateway:
        load = Load(gateway, key, seconds=seconds, per_s=per_s)
        print(f"{fault}: {load}")
        return load


def test_spans_that_a_slow_collector_does_not_take_in_time_are_dropped(settings, tmp_path, collector):
    """More than the queue holds, at once: every request is answered, and no span is counted twice."""
    load = loaded(settings, tmp_path, collector, "is_slow", seconds=1, per_s=600)

    assert load.dropped > 100
    assert load.ended <= 600 + 300 + 20


@pytest.mark.long
@pytest.mark.timeout(900)
def test_collector_that_fails_for_a_minute(settings, tmp_path, collector):
    """Memory stays bounded, whatever the fault. Figures are printed beside those of a healthy collector."""
    for fault in ("is_well", "refuses", "is_closed", "is_silent", "is_slow"):
        load = loaded(settings, tmp_path, collector, fault, seconds=60, per_s=150)

        # Unbounded, 9,000 spans would take 30 MiB and more.
        assert load.memory[1] - load.memory[0] < 16 * 2**20, str(load)
        assert (load.dropped > 0) is (fault != "is_well"), str(load)


@pytest.mark.parametrize("fault", ["refuses", "is_closed", "is_silent"])
def test_collector_that_fails_costs_no_request_anything(settings, tmp_path, collector, fault):
    collector.answers = None if fault == "is_silent" else 400
    settings |= {**collector.settings, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    if fault == "is_closed":
        settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_ports(1)[0]}"

    with Gateway(settings, tmp_path) as gateway, httpx.Client(base_url=gateway.url, timeout=10) as client:
        for n in range(30):
            assert client.get(f"/absent-{n}").status_code == 404
        eventually(lambda: dropped(gateway) > 0, 30, "drops are counted")
        for _ in range(30):
            assert client.get("/healthz").status_code == 200
        before = dropped(gateway)
        eventually(lambda: dropped(gateway) > before, 30, "more drops are counted")
        assert gateway.stop(timeout=30) == 0

    lines = [line for line in gateway.output.splitlines() if '"warning"' in line or '"error"' in line]
    assert len([line for line in lines if "traces are not exported" in line]) == 1
    assert not [line for line in lines if "opentelemetry" in line or "urllib3" in line]
    assert len([line for line in lines if "traces" in line]) <= 2


def test_queued_spans_are_exported_at_the_stop(settings, tmp_path, collector):
    settings |= {**collector.settings, "OTEL_BSP_SCHEDULE_DELAY": "600000"}

    with Gateway(settings, tmp_path) as gateway:
        assert httpx.get(f"{gateway.url}/absent").status_code == 404
        assert collector.spans() == []
        assert gateway.stop(timeout=30) == 0

    assert "GET /{slug}" in {span.name for span in collector.spans()}


def test_unrecorded_request_that_is_slow_has_a_root_span(settings, tmp_path, collector):
    settings |= {**collector.settings, "OTEL_TRACES_SAMPLER": "always_off", "HOPGATE_TRACE_SLOW_MS": "300"}

    with Gateway(settings, tmp_path) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=1) as connection:
            head = b"POST /api/v1/links HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
            connection.sendall(head + b"{")
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.sendall(b"}")
            connection.settimeout(10)
            assert connection.recv(12) == b"HTTP/1.1 401"
        eventually(
            lambda: [span for span in collector.spans() if span.name == "POST /api/v1/links"], 30, "the span"
        )

    [span] = [span for span in collector.spans() if span.name == "POST /api/v1/links"]
    assert span.parent == ""
    assert span.ended_ns - span.started_ns > 300_000_000
    assert {one.trace for one in collector.spans() if one.name != span.name}.isdisjoint({span.trace})


def test_command_is_traced_to_its_outbox_row(settings, collector):
    make_store(settings)

    made = hopgate({**settings, **collector.settings}, "links", "create", "https://example.com/canary")

    assert made.returncode == 0, made.stderr
    command, insert = sorted(collector.spans(), key=lambda span: span.started_ns)
    assert (command.name, command.service, command.parent) == ("hopgate links create", "hopgate-cli", "")
    assert (insert.name, insert.parent) == ("INSERT links", command.span)
    assert insert.attributes["db.system.name"] == "sqlite"
    assert b"canary" not in collector.text


def test_missing_extra_is_one_line_and_no_end(settings, tmp_path):
    package = tmp_path / "without" / "opentelemetry"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not installed', name='opentelemetry')")
    settings |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:geheim@127.0.0.1:1",
        "PYTHONPATH": str(package.parent),
    }

    with Gateway(settings, tmp_path) as gateway:
        assert httpx.get(f"{gateway.url}/absent").status_code == 404

    [line] = [line for line in gateway.output.splitlines() if "opentelemetry" in line]
    assert "run `make otel`, or pip install 'hopgate[otel]'" in line
    assert "geheim" not in gateway.output


def test_unreadable_variable_ends_the_start(settings):
    settings |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_SAMPLER": "jaeger_remote"}

    done = hopgate(settings, "serve")

    assert done.returncode == 1
    assert done.stderr.startswith("hopgate: OTEL_TRACES_SAMPLER: always_on, always_off or traceidratio")
    assert len(done.stderr.splitlines()) == 1
