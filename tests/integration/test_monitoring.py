"""
Static checks of what operators install to see Hopgate: the collector of traces and what is scraped.
"""

from __future__ import annotations

import re
import subprocess

import yaml

from tests.integration.compose_file import ROOT
from tests.integration.monitoring import (
    ALERTS,
)

DEPLOY = ROOT / "deploy"


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
