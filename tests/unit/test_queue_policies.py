"""Every queue that Hopgate declares is bounded by what deploy/ sets up, and watched."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from app.adapters.rabbitmq.topology import queue_names
from app.domain.events import WorkQueue
from app.wire import RETRY_DELAYS_S

DEPLOY = Path(__file__).parents[2] / "deploy"
POLICIES = json.loads((DEPLOY / "rabbitmq" / "definitions.json").read_text())["policies"]


@pytest.mark.parametrize("queue", queue_names(RETRY_DELAYS_S))
def test_queue_is_bounded(queue):
    [policy] = [policy["definition"] for policy in POLICIES if re.search(policy["pattern"], queue)]

    assert policy["max-length-bytes"] > 0
    assert policy["overflow"] == "reject-publish"
    assert ("delivery-limit" in policy) == (queue in list(WorkQueue))


@pytest.mark.parametrize("queue", WorkQueue)
@pytest.mark.parametrize("path", ["prometheus/alerts.yml", "grafana/dashboards/queue.json"])
def test_work_queue_is_watched(queue, path):
    text = (DEPLOY / path).read_text().replace("\\\\", "\\")
    patterns = re.findall(r'hopgate_queue_messages\{queue=~\\?"([^"\\]+)\\?", state=\\?"ready', text)

    assert any(re.fullmatch(pattern, queue) for pattern in patterns)
