"""Metrics of real processes: several, killed, and of a worker."""

from __future__ import annotations

import os
import signal
import socket
from collections import defaultdict
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.servers.hopgate import UNLIMITED, Gateway, Worker, eventually, hopgate, make_key
from tests.servers.ports import free_ports
from tests.servers.stack import stack_settings
from tests.unit.exposition import samples

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
# A page of metrics takes a gateway as long as a hundred redirects.
until = partial(eventually, every=0.2)


@pytest.fixture
def settings(postgres, redis_server, rabbitmq):
    return stack_settings(postgres, redis_server, rabbitmq)


def scrape(url: str) -> dict[str, float]:
    """The sum of all series of each metric."""
    sums: dict[str, float] = defaultdict(float)
    for name, _, value in samples(httpx.get(f"{url}/metrics").raise_for_status().text):
        sums[name] += value
    return dict(sums)


def redirects_answered(url: str) -> float:
    """How many redirects are in the histogram of durations."""
    text = httpx.get(f"{url}/metrics").raise_for_status().text
    counts = samples(text, "http_server_request_duration_seconds_count")
    return sum(one.value for one in counts if one.labels["route"] == "/{slug}")


def workers_of(gateway: Gateway) -> list[int]:
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return [int(pid) for pid in children]


@pytest.mark.parametrize("front", ["off", "on"])
def test_each_process_reports_for_all(settings, tmp_path, front):
    made = hopgate(settings, "links", "create", "https://example.com/", "--slug", "counted")
    assert made.returncode == 0, made.stderr
    with Gateway({**settings, "HOPGATE_WORKERS": "2", "HOPGATE_FRONT": front}, tmp_path) as gateway:
        until(lambda: scrape(gateway.url).get("hopgate_processes") == 2, timeout=40, what="both report")
        for _ in range(100):  # each on a connection of its own: both processes get some
            assert httpx.get(f"{gateway.url}/counted").status_code == 302
        until(lambda: scrape(gateway.url)["hopgate_redirects_total"] == 100, what="all visits are counted")
        for _ in range(20):  # from any of the processes
            assert scrape(gateway.url)["hopgate_redirects_total"] == 100
        assert redirects_answered(gateway.url) == 100

        cpu_s = scrape(gateway.url)["process_cpu_seconds_total"]
        os.kill(workers_of(gateway)[0], signal.SIGKILL)
        until(
            lambda: _answers(gateway) and scrape(gateway.url)["hopgate_processes"] == 2,
            timeout=30,
            what="a successor reports",
        )

        assert scrape(gateway.url)["hopgate_redirects_total"] == 100
        assert redirects_answered(gateway.url) == 100

        def all_are_closed() -> bool:
            """A busy machine opens one at the start of a process; calls that go through it close it."""
            for path in ("/counted", "/unknown"):
                httpx.get(f"{gateway.url}{path}")
            return scrape(gateway.url)["hopgate_breaker_closed"] == 2 * 8

        until(all_are_closed, timeout=30, what="every circuit breaker of both processes is closed")
        series = scrape(gateway.url)
        assert series["hopgate_dependency_seconds_count"] > 0
        assert series["hopgate_clicks_dropped_total"] == 0
        # Two processes, of one version, with a pool for look-ups and one for writes each.
        assert series["hopgate_build_info"] == 1
        assert series["db_client_connection_max"] == 2 * (4 + 4)
        assert series["process_open_fds"] > 2 * 10
        assert series["process_resident_memory_bytes"] > 2 * (16 << 20)
        # That of the killed process included.
        assert series["process_cpu_seconds_total"] > cpu_s


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

        until(reported, timeout=30, what="the worker answers")
        assert "hopgate_outbox_stalled_seconds" in scrape(f"http://{bind}")
        assert scrape(f"http://{bind}")["hopgate_errors_total"] == 0
        assert scrape(f"http://{bind}")["hopgate_processes"] == 1
        # The link's event is applied, and a second later its cached copy is checked.
        until(
            lambda: scrape(f"http://{bind}")["hopgate_cache_checked_total"] >= 1,
            timeout=30,
            what="the cache is sampled",
        )
        assert scrape(f"http://{bind}")["hopgate_cache_inconsistent_total"] == 0


def test_a_change_is_followed_from_gateway_to_gateway(settings, tmp_path):
    """Its event is applied and timed by the worker; the gateway that did not make it reports its age."""
    bind = f"127.0.0.1:{free_ports(1)[0]}"
    key = make_key(settings)
    folders = [tmp_path / name for name in ("one", "other", "worker")]
    for folder in folders:
        folder.mkdir()
    with (
        Gateway(settings, folders[0]) as one,
        Gateway(settings, folders[1]) as other,
        Worker({**settings, "HOPGATE_METRICS_BIND": bind}, folders[2]),
    ):
        with httpx.Client(base_url=one.url, headers={"Authorization": f"Bearer {key}"}) as api:
            for number in range(10):
                made = api.post(
                    "/api/v1/links", json={"long_url": "https://example.com/", "slug": f"s{number}"}
                )
                assert made.status_code == 201, made.text

        # A gateway that has read a change already does not count its delivery: no visit before.
        seen = "hopgate_change_visible_seconds_count"
        until(lambda: scrape(other.url)[seen] == 10, timeout=30, what="the other gateway has all")
        for _ in range(7):
            assert httpx.get(f"{other.url}/s1").status_code == 302
        assert scrape(one.url)[seen] == 0
        assert 0 <= scrape(other.url)["hopgate_change_visible_seconds_sum"] < 100

        worker = f"http://{bind}"

        def is_applied() -> bool:
            try:
                return scrape(worker).get("hopgate_clicks_added_total") == 7
            except httpx.HTTPError:
                return False

        until(is_applied, timeout=60, what="clicks and changes are applied")
        until(
            lambda: scrape(worker).get("hopgate_queue_messages") == 0, timeout=60, what="the queues are empty"
        )
        series = scrape(worker)
        events = series["hopgate_events_total"]
        assert events >= 10 + 1
        assert series["hopgate_event_processing_seconds_count"] == events
        assert series["hopgate_event_age_seconds_count"] >= events


def test_clients_that_hang_up_are_counted(tmp_path):
    """Before their answer, or in the middle of a body: each request that is handed over has an outcome."""
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), **UNLIMITED}
    with Gateway(settings, tmp_path) as gateway:

        def hang_up(request: bytes) -> None:
            with socket.create_connection(("127.0.0.1", gateway.port)) as client:
                client.sendall(request)

        def counted(method: str, route: str) -> dict[str, float]:
            text = httpx.get(f"{gateway.url}/metrics").raise_for_status().text
            return {
                labels["status"]: value
                for _, labels, value in samples(text, "http_server_requests_total")
                if (labels["method"], labels["route"]) == (method, route) and value
            }

        for number in range(50):
            hang_up(b"GET /unknown-%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            hang_up(b"POST /api/v1/links HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")

        until(lambda: counted("POST", "/api/v1/links") == {"400": 50}, timeout=30, what="bodies")
        # granian may drop a request whose connection ends with it; no other is left without an outcome.
        until(
            lambda: scrape(gateway.url)["http_server_active_requests"] == 1,
            timeout=30,
            what="only the scrape itself is active",
        )
        visits = counted("GET", "/{slug}")
        assert visits.keys() == {"404"}
        assert 1 <= visits["404"] <= 50
