"""Figures as the view of health writes them."""

from __future__ import annotations

from dataclasses import asdict

import msgspec
import pytest

from app.console.health import Figures
from app.console.rendering import Pages
from app.telemetry.overview import Breaker, Overview, Percentiles, Queue
from app.web.status import Status

QUIET = Overview(
    seconds=1.0,
    requests_per_s=0.0,
    redirects_per_s=0.0,
    server_errors_per_s=0.0,
    shed_per_s=0.0,
    limited_per_s={},
    redirect_latency=Percentiles(None, None, None),
    api_latency=Percentiles(None, None, None),
    hit_ratios={"l1": None},
    breakers=(),
    queues=(),
    outbox_rows=None,
    outbox_oldest_s=None,
    leased_tokens=None,
    clicks_buffered=None,
    clicks_lost=None,
    loop_lag_s=None,
    memory_bytes=None,
    cpu=0.0,
    processes=1,
)
BUSY = msgspec.structs.replace(
    QUIET,
    requests_per_s=12_345.67,
    server_errors_per_s=0.5,
    limited_per_s={"api": 2.0},
    redirect_latency=Percentiles(0.00123, 0.0456, 1.5),
    hit_ratios={"l1": 0.987},
    breakers=(Breaker("redis.read", "half_open", 2),),
    queues=(Queue("clicks", ready=1, unacknowledged=None, dead=3),),
    outbox_rows=7,
    outbox_oldest_s=61.7,
    clicks_lost=1,
    loop_lag_s=0.0012,
    memory_bytes=3 << 30,
)


def written(overview: Overview, language: str = "en", **dependencies: str) -> dict[str, list[str]]:
    """Return the cells of each row by its name, the last of a name; names of bad rows end with `!`."""
    tables = Figures(Pages(language, "")).tables(Status("1", dependencies, overview))
    rows = [asdict(row) for table in tables for row in table.rows]
    return {row["name"] + "!" * row["is_bad"]: row["cells"] for row in rows}


def test_unknown_figures_are_dashes():
    found = written(QUIET, store="ok")

    for name in ("outbox", "oldest in the outbox", "clicks lost", "memory", "loop lag", "l1"):
        assert found[name] == ["–"], name
    assert found["API"] == ["–"] * 3
    assert (found["requests"], found["not closed"], found["store"]) == (["0"], ["none"], ["answers"])
    assert [name for name in found if name.endswith("!")] == []


def test_what_to_look_at_is_marked():
    found = written(BUSY, cache="refused")

    assert {name: cells for name, cells in found.items() if name.endswith("!")} == {
        "cache!": ["refused"],
        "clicks!": ["1", "–", "3"],
        "redis.read!": ["half-open (2)"],
        "answers 5xx!": ["0.5"],
        "clicks lost!": ["1"],
    }


@pytest.mark.parametrize(
    ("language", "name", "cells"),
    [
        ("en", "requests", ["12,345.7"]),
        ("de", "Anfragen", ["12.345,7"]),
        ("en", "redirects", ["1.23", "45.60", "1,500.00"]),
        ("de", "l1", ["98,7 %"]),
        ("en", "limited: api", ["2.0"]),
        ("en", "oldest in the outbox", ["62 s"]),
        ("en", "loop lag", ["1.20 ms"]),
        ("en", "memory", ["3,072 MiB"]),
    ],
)
def test_figures_are_written_as_the_language_does(language, name, cells):
    assert written(BUSY, language)[name] == cells


def test_alarms_name_what_is_wrong():
    figures = Figures(Pages("en", ""))

    assert figures.alarms(Status("1", {"store": "ok"}, QUIET)) == []
    assert figures.alarms(Status("1", {"store": "ok", "bus": "refused"}, BUSY)) == [
        "broker: refused",
        "Circuit breaker redis.read: half-open",
    ]
