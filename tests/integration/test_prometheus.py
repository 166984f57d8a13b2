"""
A real Prometheus with the shipped rules scrapes a real gateway and worker.

Every query of every dashboard and every expression of an alert is evaluated by it. The servers that a test
breaks are this module's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import httpx
import pytest

from tests.integration.monitoring import EXPORTED, Query, alerts, queries, selectors_of
from tests.servers.hopgate import Gateway, Worker, eventually, hopgate, make_key
from tests.servers.otlp import Collector
from tests.servers.ports import free_ports
from tests.servers.prometheus import PrivatePrometheus
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]
LINKS = "/api/v1/links"
# Longer than a run, so that nothing leaves the window on a busy machine.
_WINDOW = "10m"
_LONG_S = 90.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until *condition* holds, without taking the processor that the servers need."""
    eventually(condition, timeout=_LONG_S, what=what, every=0.5)


@dataclass(frozen=True)
class Observed:
    """A gateway, a worker and the Prometheus that scrapes them, after a little traffic."""

    gateway: Gateway
    prometheus: PrivatePrometheus
    redis: PrivateRedis
    slugs: list[str]

    def visit_all(self) -> None:
        """Visit every link: those that the L1 cache has had for 2 s are looked up."""
        with httpx.Client(base_url=self.gateway.url) as visitor:
            for slug in self.slugs:
                visitor.get(f"/{slug}")

    def shown(self, query: Query) -> list[float]:
        """Return the values of *query* now, without those that are no number."""
        found = self.prometheus.query(query.over(_WINDOW))
        return [value for _, value in found if not math.isnan(value)]

    def shows(self, panel: str) -> bool:
        """Tell whether anything in *panel* is above zero."""
        return any(value > 0 for query in queries() if query.panel == panel for value in self.shown(query))

    def firing(self) -> set[tuple[str, str]]:
        """Return the alerts that fire, each with the circuit breaker that it names or nothing."""
        return {
            (one["labels"]["alertname"], one["labels"].get("guard", ""))
            for one in self.prometheus.alerts()
            if one["state"] == "firing"
        }


@pytest.fixture(scope="module")
def observed(postgres, rabbitmq, tmp_path_factory) -> Iterator[Observed]:
    directory = tmp_path_factory.mktemp("observed")
    metrics = f"127.0.0.1:{free_ports(1)[0]}"
    with ExitStack() as running:
        redis = running.enter_context(PrivateRedis())
        collector = running.enter_context(Collector())
        settings = stack_settings(postgres, redis, rabbitmq)
        settings["HOPGATE_LIMIT_CREATE"] = "40/h burst 40"
        # Tracing on, as its counters have a panel.
        traced = {**settings, **collector.settings}
        gateway = running.enter_context(Gateway(traced, directory))
        running.enter_context(Worker({**traced, "HOPGATE_METRICS_BIND": metrics}, directory))
        targets = {"hopgate-gateway": f"127.0.0.1:{gateway.port}", "hopgate-worker": metrics}
        prometheus = running.enter_context(PrivatePrometheus(directory, targets))
        wait_for(
            lambda: [value for _, value in prometheus.query("up")] == [1, 1],
            what="both are scraped",
        )
        slugs = _traffic(gateway, settings)
        yield Observed(gateway, prometheus, redis, slugs)


def _traffic(gateway: Gateway, settings: dict[str, str]) -> list[str]:
    """Make links until the limit refuses, visit them and one that does not exist, and change one."""
    made = []
    key = make_key(settings)
    with httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}) as api:
        while True:
            answer = api.post(LINKS, json={"long_url": "https://example.com/"})
            if answer.status_code == 429:
                break
            assert answer.status_code == 201, answer.text
            made.append(answer.json()["slug"])
        assert len(made) > 10
        for slug in made * 2:
            assert api.get(f"/{slug}").status_code == 302
        assert api.get("/unknown").status_code == 404
    # By another process: what the gateway is notified of.
    changed = hopgate(settings, "links", "edit", made[0], "--title", "changed")
    assert changed.returncode == 0, changed.stderr
    return made


def test_no_panel_is_empty(observed):
    """Panels of exporters excepted, which do not run here. A query that cannot be evaluated fails at once."""
    for query in queries():
        if query.exporters:
            assert observed.prometheus.query(query.over(_WINDOW)) == []
        else:
            observed.shown(query)
    empty: list[Query] = []

    def are_filled() -> bool:
        empty[:] = [query for query in queries() if not query.exporters and not observed.shown(query)]
        return not empty

    try:
        wait_for(are_filled, what="every panel shows something")
    except AssertionError:
        pytest.fail("\n".join(f"{query.dashboard}: {query.panel}: {query.expression}" for query in empty))


def test_traffic_shows(observed):
    for panel in (
        "Rejections by policy",
        "Answers 429 by route",
        "Misses by layer",
        "Hit ratio by layer",
        "Delay from edit to visible",
        "Event processing time",
        "Clicks on their way",
    ):
        wait_for(partial(observed.shows, panel), what=panel)


def test_alerts_are_evaluated_and_a_healthy_stack_raises_none(observed):
    exported = set().union(*EXPORTED.values())

    for alert in alerts():
        observed.prometheus.query(alert["expr"])
        for selector in selectors_of(alert["expr"]) - exported:
            found = observed.prometheus.query(selector)
            assert found, f"{alert['alert']} watches {selector}, which has no series"
    wait_for(lambda: not observed.firing(), what="no alert fires")


def test_an_outage_of_redis_fires_the_breaker_alert_and_ends_it(observed):
    observed.redis.kill()

    def fires() -> bool:
        observed.visit_all()
        return ("BreakerOpen", "redis.read") in observed.firing()

    wait_for(fires, what="the alert fires")
    for panel in ("Calls refused by circuit breakers", "Circuit breaker changes by direction"):
        wait_for(partial(observed.shows, panel), what=panel)

    observed.redis.start()

    def is_over() -> bool:
        observed.visit_all()
        return ("BreakerOpen", "redis.read") not in observed.firing()

    wait_for(is_over, what="the alert ends")
