"""Metrics of real processes: several, killed, and of a worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.hopgate import Gateway, Worker, eventually, hopgate
from tests.servers.ports import free_ports
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]


@pytest.fixture
def settings(postgres, redis_server, rabbitmq):
    return stack_settings(postgres, redis_server, rabbitmq)


def scrape(url: str) -> dict[str, float]:
    """The sum of all series of each metric."""
    sums: dict[str, float] = {}
    text = httpx.get(f"{url}/metrics").raise_for_status().text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


def redirects_answered(url: str) -> float:
    """How many redirects are in the histogram of durations."""
    text = httpx.get(f"{url}/metrics").raise_for_status().text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count" and sample.labels["route"] == "/{slug}"
    )


def workers_of(gateway: Gateway) -> list[int]:
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return [int(pid) for pid in children]


def test_each_process_reports_for_all(settings, tmp_path):
    made = hopgate(settings, "links", "create", "https://example.com/", "--slug", "counted")
    assert made.returncode == 0, made.stderr
    with Gateway({**settings, "HOPGATE_WORKERS": "2"}, tmp_path) as gateway:
        eventually(lambda: scrape(gateway.url).get("hopgate_processes") == 2, timeout=40, what="both report")
        for _ in range(100):  # each on a connection of its own: both processes get some
            assert httpx.get(f"{gateway.url}/counted").status_code == 302
        eventually(
            lambda: scrape(gateway.url)["hopgate_redirects_total"] == 100, what="all visits are counted"
        )
        for _ in range(20):  # from any of the processes
            assert scrape(gateway.url)["hopgate_redirects_total"] == 100
        assert redirects_answered(gateway.url) == 100

        os.kill(workers_of(gateway)[0], signal.SIGKILL)
        eventually(
            lambda: _answers(gateway) and scrape(gateway.url)["hopgate_processes"] == 2,
            timeout=30,
            what="a successor reports",
        )

        assert scrape(gateway.url)["hopgate_redirects_total"] == 100
        assert redirects_answered(gateway.url) == 100
        series = scrape(gateway.url)
        assert series["hopgate_breaker_closed"] == 2 * 7
        assert series["hopgate_dependency_seconds_count"] > 0
        assert series["hopgate_clicks_dropped_total"] == 0


def _answers(gateway: Gateway) -> bool:
    try:
        return httpx.get(f"{gateway.url}/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def test_worker_serves_its_own_metrics(settings, tmp_path):
    bind = f"127.0.0.1:{free_ports(1)[0]}"
    made = hopgate(settings, "links", "create", "https://example.com/")
    assert made.returncode == 0, made.stderr

    with Worker({**settings, "HOPGATE_METRICS_BIND": bind}, tmp_path):

        def reported() -> bool:
            try:
                return "hopgate_outbox_rows" in scrape(f"http://{bind}")
            except httpx.HTTPError:
                return False

        eventually(reported, timeout=30, what="the worker answers")
        assert "hopgate_outbox_stalled_seconds" in scrape(f"http://{bind}")
        assert scrape(f"http://{bind}")["hopgate_processes"] == 1
        # The link's event is applied, and a second later its cached copy is checked.
        eventually(
            lambda: scrape(f"http://{bind}")["hopgate_cache_checked_total"] >= 1,
            timeout=30,
            what="the cache is sampled",
        )
        assert scrape(f"http://{bind}")["hopgate_cache_inconsistent_total"] == 0
