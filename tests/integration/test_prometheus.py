"""
A real Prometheus with the shipped rules scrapes a real gateway and worker.

Every query of every dashboard and every expression of an alert is evaluated by it, and the figures that
answer the first questions of docs/operations.md are compared with what was done. The servers that a test
breaks are this module's own.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import httpx
import pytest

from tests.integration.monitoring import EXPORTED, Query, alerts, queries, selectors_of
from tests.servers.hopgate import Gateway, Worker, becomes, eventually, hopgate, make_key
from tests.servers.otlp import Collector
from tests.servers.ports import free_ports
from tests.servers.prometheus import PrivatePrometheus
from tests.servers.proxy import GOOD, FaultProxy, Network
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]
LINKS = "/api/v1/links"
REDIRECT = "/{slug}"
# Longer than a run, so that nothing leaves the window on a busy machine.
_WINDOW = "10m"
_LONG_S = 90.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until *condition* holds, without taking the processor that the servers need."""
    eventually(condition, timeout=_LONG_S, what=what, every=0.5)


@dataclass(frozen=True)
class Observed:
    """
    A gateway, a worker and the Prometheus that scrapes them, after a little traffic.

    `answered`: the answers of the gateway to that traffic, by status. `network` lies between the gateway and
    PostgreSQL.
    """

    gateway: Gateway
    prometheus: PrivatePrometheus
    redis: PrivateRedis
    network: FaultProxy
    slugs: list[str]
    answered: Counter[int]

    def value(self, expression: str) -> float:
        """Return the one value of *expression* now; 0 if there is none."""
        found = self.prometheus.query(expression)
        assert len(found) <= 1, expression
        return found[0][1] if found else 0.0

    def logged(self) -> list[float]:
        """Return the durations of redirect requests that the gateway has logged, in seconds."""
        lines = [line for line in self.gateway.output.splitlines() if '"hopgate.access"' in line]
        parsed = map(json.loads, lines)
        return [line["duration_s"] for line in parsed if line["route"] == REDIRECT]

    def visits_since(self, known: int, visits: int) -> list[float]:
        """Return the durations of *visits* beyond those *known*, sorted, once all of them are logged."""
        eventually(lambda: len(self.logged()) - known >= visits, what="every visit is logged")
        durations = self.logged()[known:]
        assert len(durations) == visits
        return sorted(durations)

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
        network = running.enter_context(FaultProxy(postgres.port))
        url = settings["HOPGATE_DATABASE_URL"]
        assert f":{postgres.port}/" in url
        # Tracing on, as its counters have a panel.
        traced = {**settings, **collector.settings}
        own = {
            "HOPGATE_DATABASE_URL": url.replace(f":{postgres.port}/", f":{network.port}/"),
            "HOPGATE_ACCESS_LOG": "on",
        }
        gateway = running.enter_context(Gateway({**traced, **own}, directory))
        running.enter_context(Worker({**traced, "HOPGATE_METRICS_BIND": metrics}, directory))
        targets = {"hopgate-gateway": f"127.0.0.1:{gateway.port}", "hopgate-worker": metrics}
        prometheus = running.enter_context(PrivatePrometheus(directory, targets))
        wait_for(
            lambda: [value for _, value in prometheus.query("up")] == [1, 1],
            what="both are scraped",
        )
        slugs, answered = _traffic(gateway, settings)
        yield Observed(gateway, prometheus, redis, network, slugs, answered)


def _traffic(gateway: Gateway, settings: dict[str, str]) -> tuple[list[str], Counter[int]]:
    """
    Make links until the limit refuses, visit them and one that does not exist, and change one.

    Return the slugs, and the answers by status.
    """
    made = []
    answered: Counter[int] = Counter()
    key = make_key(settings)
    hooks = {"response": [lambda answer: answered.update([answer.status_code])]}
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=gateway.url, headers=headers, event_hooks=hooks) as api:
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
        assert api.post(LINKS, json={"long_url": "no URL"}).status_code in (422, 429)
        assert api.get(LINKS, params={"unknown": "1"}).status_code == 422
    # By another process: what the gateway is notified of.
    changed = hopgate(settings, "links", "edit", made[0], "--title", "changed")
    assert changed.returncode == 0, changed.stderr
    return made, answered


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


def test_figures_are_those_of_the_traffic(observed):
    """Hits and misses are all redirects, histograms have all requests, each rejection counts once."""
    links, statuses = len(observed.slugs), observed.answered
    visits = statuses[302] + statuses[404]
    becomes(
        lambda: observed.value('sum(hopgate_layer_requests_total{layer="l1"})'),
        visits,
        timeout=_LONG_S,
        what=f"visits scraped of {statuses}",
        every=0.5,
    )

    assert observed.value("sum(hopgate_redirects_total)") == visits
    assert observed.value('sum(http_server_requests_total{route="/{slug}"})') == visits
    by_status = {
        labels["status"]: value
        for labels, value in observed.prometheus.query(
            'sum by (status) (http_server_requests_total{route=~"/{slug}|/api/v1/links"}) > 0'
        )
    }
    assert by_status == {str(status): count for status, count in statuses.items()}
    # Of one scrape each: both are counted at the same moment.
    assert observed.prometheus.query(
        "sum by (instance) (http_server_request_duration_seconds_count)"
        " == sum by (instance) (http_server_requests_total)"
    )
    refused = statuses[429]
    assert observed.value('sum(hopgate_limited_total{policy="create"})') == refused >= 1
    assert observed.value('sum(hopgate_errors_total{kind="InvalidInput"})') == statuses[422] >= 1
    assert observed.value('sum(hopgate_errors_total{kind!="InvalidInput"})') == 0
    # A create is an event, and so is the edit; misses and clicks are others.
    changes = 'hopgate_events_total{queue="hopgate.cache", outcome=~"applied|stale"}'
    wait_for(lambda: observed.value(f"sum({changes})") >= links + 1, what="the changes are applied")
    wait_for(
        lambda: observed.value("sum(hopgate_clicks_added_total)") == statuses[302], what="clicks are added"
    )
    assert observed.prometheus.query(
        "sum by (queue) (hopgate_event_processing_seconds_count)"
        ' == sum by (queue) (hopgate_events_total{outcome=~"applied|stale"})'
    )
    wait_for(
        lambda: observed.value('max(hopgate_queue_messages{state="ready"})') == 0, what="the queues are empty"
    )


def test_percentiles_of_delayed_look_ups_are_within_a_tenth_of_the_truth(observed):
    """
    PostgreSQL answers half of the visits after 5 ms, others after 50 and 200 ms.

    The truth is what the gateway has logged of each request. Unknown slugs are answered by the store alone.
    """
    total = f'sum(http_server_request_duration_seconds_count{{route="{REDIRECT}"}})'

    def scraped() -> float:
        """Wait until Prometheus has all requests that are logged, and return the time."""
        wait_for(lambda: observed.value(total) == len(observed.logged()), what="all visits are scraped")
        return time.time()

    before = scraped()
    known = len(observed.logged())
    with httpx.Client(base_url=observed.gateway.url, timeout=10) as visitor:
        for block in range(8):
            for delay_s, visits in ((0.005, 5), (0.05, 3), (0.2, 2)):
                half = delay_s / 2
                observed.network.become(Network(latency_s=half, jitter_s=half / 5))
                for visit in range(visits):
                    visitor.get(f"/absent-{block}-{delay_s * 1000:g}-{visit}")
        observed.network.become(GOOD)
        truth = observed.visits_since(known, 80)
        after = scraped()
        known = len(observed.logged())
        for _ in range(200):
            visitor.get(f"/{observed.slugs[0]}")
        hot = observed.visits_since(known, 200)
        finally_ = scraped()

    def estimate(quantile: float, since: float, until: float) -> float:
        bucket = f'http_server_request_duration_seconds_bucket{{route="{REDIRECT}"}}'
        return observed.value(
            f"histogram_quantile({quantile}, sum by (le) ({bucket} @ {until:.3f} - {bucket} @ {since:.3f}))"
        )

    for quantile in (0.25, 0.5, 0.65, 0.9, 0.95, 0.99):
        for name, values, since, until in (("delayed", truth, before, after), ("hot", hot, after, finally_)):
            true, found = _quantile(values, quantile), estimate(quantile, since, until)
            print(f"{name} p{quantile * 100:g}: {true * 1000:.3f} ms, estimated {found * 1000:.3f} ms")
            if name == "delayed" and quantile in (0.25, 0.65, 0.9):
                assert found == pytest.approx(true, rel=0.1)


def _quantile(values: list[float], quantile: float) -> float:
    return values[math.ceil(quantile * len(values)) - 1]


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
    wait_for(
        lambda: observed.value('sum(hopgate_breaker_transitions_total{guard="redis.read", to="open"})') >= 1,
        what="the change of the circuit breaker is counted",
    )
    for panel in ("Calls refused by circuit breakers", "Circuit breaker changes by direction"):
        wait_for(partial(observed.shows, panel), what=panel)

    observed.redis.start()

    def is_over() -> bool:
        observed.visit_all()
        return ("BreakerOpen", "redis.read") not in observed.firing()

    wait_for(is_over, what="the alert ends")
