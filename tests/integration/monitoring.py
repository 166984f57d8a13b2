"""The dashboards and alerts of deploy/, and the metrics that their expressions name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from app.telemetry import families
from app.telemetry.families import Counter, Gauge, Histogram
from tests.integration.compose_file import ROOT

DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
MANUAL = ROOT / "docs" / "operations.md"

# What the exporters of docker-compose.yml report and an expression uses, by the job that scrapes them.
EXPORTED = {
    "postgres": {"pg_settings_max_connections", "pg_stat_database_numbackends"},
    "redis": {"redis_evicted_keys_total", "redis_memory_max_bytes", "redis_memory_used_bytes"},
    "rabbitmq": {
        "rabbitmq_alarms_free_disk_space_watermark",
        "rabbitmq_alarms_memory_used_watermark",
        "rabbitmq_connections",
    },
}
# The values of labels may hold braces, as templates of routes do.
_SELECTOR = r"\{(?:[^}\"]|\"[^\"]*\")*\}"
_GROUPING = r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)"
_WORDS = {"and", "or", "unless", "on", "by", "bool", "offset", "group_left", "group_right", "ignoring"}


@dataclass(frozen=True)
class Query:
    """One target of a panel."""

    dashboard: str
    panel: str
    expression: str
    legend: str

    def over(self, interval: str) -> str:
        """Return the expression with rates over *interval*, such as `1m`."""
        return self.expression.replace("$__rate_interval", interval)

    @property
    def exporters(self) -> set[str]:
        """The jobs of exporters whose metrics it needs."""
        return {job for job, names in EXPORTED.items() if names & metrics_of(self.expression)}


def dashboards() -> dict[str, dict[str, Any]]:
    """Return each dashboard by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def queries() -> Iterator[Query]:
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield Query(name, panel["title"], target["expr"], target["legendFormat"])


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def metrics_of(expression: str) -> set[str]:
    """Return the metrics that a PromQL *expression* names."""
    plain = re.sub(_SELECTOR + r"|\[[^]]*\]|\"[^\"]*\"", " ", expression)
    plain = re.sub(_GROUPING, " ", plain)
    return set(re.findall(r"\b[a-z][a-z0-9_]*\b(?!\s*\()", plain)) - _WORDS


def selectors_of(expression: str) -> set[str]:
    """Return the metrics that *expression* names, each with the labels that it asks for."""
    names = "|".join(sorted(metrics_of(expression), key=len, reverse=True))
    return {"".join(found) for found in re.findall(rf"\b({names})\b({_SELECTOR})?", expression)}


def reported() -> set[str]:
    """Return the names under which gateways and workers report, suffixes included."""
    names: set[str] = set()
    for family in vars(families).values():
        match family:
            case Counter():
                names.add(f"{family.name}_total")
            case Gauge():
                names.add(family.name)
            case Histogram():
                names |= {f"{family.name}_{suffix}" for suffix in ("bucket", "count", "sum")}
    return names


def sections(level: str, text: str) -> dict[str, str]:
    """Return the text below each heading of *level*, such as `##`, up to the next one of it."""
    parts = re.split(rf"^{level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives to *heading*."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
