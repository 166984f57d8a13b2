"""
Static checks of what operators install to see Hopgate: alerts, their chapter in the manual.

Metrics are compared with the declarations, anchors with headings, names with names.
"""

from __future__ import annotations

import re
import subprocess

import yaml

from tests.integration.compose_file import ROOT
from tests.integration.monitoring import (
    ALERTS,
    EXPORTED,
    MANUAL,
    alerts,
    anchor,
    metrics_of,
    reported,
    sections,
)
from tests.servers.prometheus import promtool

_KNOWN = reported() | set().union(*EXPORTED.values()) | {"up"}
DEPLOY = ROOT / "deploy"


# --- expressions -------------------------------------------------------------------------


def test_metrics_of_expressions():
    """The check above sees every metric and nothing else."""
    assert metrics_of(
        'min by (instance) (a_b{c=~"d.e"}) < on (i) group_left f or absent(g == 1) and rate(h_total[5m])'
    ) == {"a_b", "f", "g", "h_total"}


# --- alerts ------------------------------------------------------------------------------


def test_promtool_accepts_configuration_and_rules():
    done = promtool("check", "config", str(DEPLOY / "prometheus/prometheus.yml"))

    assert done.returncode == 0, done.stderr + done.stdout


def test_alerts_fire_and_resolve_as_told():
    done = promtool("test", "rules", str(ROOT / "tests/data/alerts_test.yml"))

    assert done.returncode == 0, done.stderr + done.stdout


def test_alerts_name_reported_metrics():
    for alert in alerts():
        named = metrics_of(alert["expr"])
        assert named, alert
        assert named <= _KNOWN, alert


def test_alerts_say_what_and_how_bad_it_is():
    names = [alert["alert"] for alert in alerts()]

    assert len(set(names)) == len(names)
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"].keys() == {"summary", "description", "runbook"}
        assert all(text.strip() for text in alert["annotations"].values())
        assert alert["annotations"]["summary"].endswith(".")


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    text = MANUAL.read_text()
    runbooks = sections("###", sections("##", text)["When an alert fires"])

    assert [alert["annotations"]["runbook"] for alert in alerts()] == [
        f"{MANUAL.relative_to(ROOT)}#{anchor(heading)}" for heading in runbooks
    ]
    # The anchor of a heading that stands twice has a number.
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert len({anchor(heading) for heading in headings}) == len(headings)
    for alert, (heading, advice) in zip(alerts(), runbooks.items(), strict=True):
        assert alert["alert"] == heading
        assert len(advice.split()) > 15, heading


# --- the manual --------------------------------------------------------------------------


def test_everything_to_watch_has_an_alert():
    lines = re.split(r"^- ", sections("##", MANUAL.read_text())["What to watch"], flags=re.MULTILINE)[1:]
    linked = [set(re.findall(r"\[(\w+)\]\(#\w+\)", line)) for line in lines]
    names = {alert["alert"] for alert in alerts()}

    assert all(linked), [line for line, found in zip(lines, linked, strict=True) if not found]
    assert set().union(*linked) == names


# --- the collector -----------------------------------------------------------------------


def test_collector_pipelines_name_components_that_are_configured():
    collector = yaml.safe_load((DEPLOY / "otel/collector.yml").read_text())

    pipelines = collector["service"]["pipelines"]
    assert set(pipelines) == {"traces"}
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines.values() for name in pipeline[kind]}
        assert used == set(collector[kind])
    assert collector["receivers"]["otlp"]["protocols"].keys() == {"http"}
    assert pipelines["traces"]["processors"][0] == "memory_limiter"


def test_prometheus_scrapes_every_service_that_reports(services):
    """The port of the collector's own metrics is in its file; those of exporters are in health checks."""
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = {
        target for job in scraped for config in job.get("static_configs", ()) for target in config["targets"]
    }
    [worker] = [config for job in scraped for config in job.get("dns_sd_configs", ())]
    collector = yaml.safe_load((DEPLOY / "otel/collector.yml").read_text())["service"]["telemetry"]
    own = collector["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]["port"]

    assert {f"{name}:{worker['port']}" for name in worker["names"]} == {
        "worker:" + services["worker"]["environment"]["HOPGATE_METRICS_BIND"].partition(":")[2]
    }
    assert f"otel-collector:{own}" in targets
    for name in ("postgres-exporter", "redis-exporter"):
        [port] = re.findall(r"127\.0\.0\.1:(\d+)/", services[name]["healthcheck"]["test"][-1])
        assert f"{name}:{port}" in targets
    for target in targets:
        assert target.partition(":")[0] in services


def test_rules_are_mounted_beside_the_configuration():
    assert ALERTS.parent == DEPLOY / "prometheus"
    config = yaml.safe_load((ALERTS.parent / "prometheus.yml").read_text())
    assert config["rule_files"] == [ALERTS.name]
    assert subprocess.run(["git", "check-ignore", "-q", str(ALERTS)], cwd=ROOT).returncode == 1
