"""
Static checks of what operators install to see Hopgate: dashboards, alerts, their chapter in the manual.

Metrics are compared with the declarations, anchors with headings, names with names.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

from tests.integration.compose_file import ROOT
from tests.integration.monitoring import (
    ALERTS,
    DASHBOARDS,
    EXPORTED,
    MANUAL,
    alerts,
    anchor,
    dashboards,
    metrics_of,
    queries,
    reported,
    sections,
)
from tests.servers.prometheus import promtool

_UNITS = {"none", "s", "bytes", "percentunit", "reqps", "cps"}
_KNOWN = reported() | set().union(*EXPORTED.values()) | {"up"}
DEPLOY = ROOT / "deploy"


# --- dashboards --------------------------------------------------------------------------


def test_panels_are_regular():
    for name, dashboard in dashboards().items():
        assert dashboard["uid"] == f"hopgate-{name}"
        assert dashboard["title"] == f"Hopgate: {name}"
        panels = dashboard["panels"]
        assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
        assert len({panel["title"] for panel in panels}) == len(panels)
        for number, panel in enumerate(panels):
            case = f"{name}: {panel['title']}"
            assert panel["type"] in {"timeseries", "stat"}, case
            assert panel["gridPos"] == {"x": number % 3 * 8, "y": number // 3 * 8, "w": 8, "h": 8}, case
            assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS, case
            assert panel["description"].endswith("."), case
            assert [target["refId"] for target in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])
            assert all(target["legendFormat"] for target in panel["targets"]), case


def test_legends_name_labels_that_the_query_keeps():
    for query in queries():
        kept = " ".join(re.findall(r"\b(?:by|group_left) ?\(([^)]*)\)", query.expression)) or "job instance"
        for label in re.findall(r"\{\{(\w+)\}\}", query.legend):
            assert label in re.findall(r"\w+", kept), query


def test_dashboards_use_the_provisioned_data_source():
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    [source] = provisioned["datasources"]
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]

    used = {
        (panel["datasource"]["type"], panel["datasource"]["uid"])
        for dashboard in dashboards().values()
        for panel in dashboard["panels"]
    }
    assert used == {(source["type"], source["uid"])}
    assert source["jsonData"]["timeInterval"] == scraped


def test_grafana_finds_what_is_mounted(services):
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    mounted = mounts["./deploy/grafana"]
    provided = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/hopgate.yml").read_text())
    [provider] = provided["providers"]

    provisioning = services["grafana"]["environment"]["GF_PATHS_PROVISIONING"]
    assert DEPLOY / "grafana" / Path(provisioning).relative_to(mounted) == DASHBOARDS.parent / "provisioning"
    assert DEPLOY / "grafana" / Path(provider["options"]["path"]).relative_to(mounted) == DASHBOARDS


def test_queries_name_reported_metrics():
    for query in queries():
        named = metrics_of(query.expression)
        assert named, query
        assert named <= _KNOWN, query


def test_metrics_of_expressions():
    """The check above sees every metric and nothing else."""
    assert metrics_of(
        'min by (instance) (a_b{c=~"d.e"}) < on (i) group_left f or absent(g == 1) and rate(h_total[5m])'
    ) == {"a_b", "f", "g", "h_total"}
    assert metrics_of('a{route="/{slug}", status="3xx"} - b{c="d"}') == {"a", "b"}


def test_every_reported_metric_has_a_panel_or_a_reason():
    without = {
        # The totals of the state and transition metrics beside them.
        "hopgate_breaker_closed",
        "hopgate_breaker_opened_total",
    }
    shown = set().union(*(metrics_of(query.expression) for query in queries()))

    # Of a histogram, panels need the buckets.
    parts = {name for name in reported() if name.replace("_count", "_bucket") in shown}
    parts |= {name for name in reported() if name.replace("_sum", "_bucket") in shown}
    assert reported() - shown - parts == without


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


def test_table_of_questions_names_panels_and_alerts_that_exist():
    table = sections("##", MANUAL.read_text())["Looking at it"]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in table.splitlines()
        if line.startswith("| ") and "question" not in line
    ]
    panels: dict[tuple[str, str], set[str]] = {}
    for query in queries():
        panels.setdefault((query.dashboard, query.panel), set()).update(metrics_of(query.expression))
    expressions = {alert["alert"]: metrics_of(alert["expr"]) for alert in alerts()}

    listed = set()
    for question, metric, panel, alert in rows:
        assert question.endswith("?")
        names = set(re.findall(r"`(\w+)`", metric))
        assert names
        for name, dashboard in re.findall(r"([^;:]+?): ([^;]+)", panel):
            for title in dashboard.split(", "):
                key = (name.strip(), title.strip())
                assert key in panels, question
                listed.add(key)
                assert any(used.startswith(one) for used in panels[key] for one in names), (
                    f"{question} {key} shows none of {names}"
                )
        for name in re.findall(r"\[(\w+)\]\(#(\w+)\)", alert):
            assert anchor(name[0]) == name[1]
            assert name[0] in expressions, question
    assert set(panels) == listed
    assert {name for *_, alert in rows for name in re.findall(r"\[(\w+)\]", alert)} == set(expressions)


def test_first_questions_have_a_metric_a_panel_and_an_alert():
    """Latency, hits and misses, rejections, circuit breakers, queues, events, errors."""
    text = sections("##", MANUAL.read_text())["Looking at it"]
    table = text.partition("| first questions |")[2].partition("\n\n")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")]

    assert len(rows) == 7
    for question, metric, panel, alert in rows:
        assert metric.strip(), question
        assert panel.strip(), question
        assert re.search(r"\[\w+\]\(#\w+\)", alert), question


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
