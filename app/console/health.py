"""How the service is: the figures of the page of operators (`/status`), in the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.console.gate import Gate
from app.console.rendering import Pages, Viewer
from app.resilience.deadline import ADMIN_S
from app.service.keys import Scope
from app.telemetry.overview import Overview, Percentiles
from app.web.health import Readiness
from app.web.middleware import Call
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services
from app.web.status import STALE_KEY_S, Status, figures

PATH = "/console/health"
_UNKNOWN = "–"
_OK = "ok"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: its name and its cells; `is_bad`: an operator should look at it."""

    name: str
    cells: Sequence[str]
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Figures of one kind; `columns` are the names of the cells, if there are several."""

    title: str
    rows: Sequence[Row]
    columns: Sequence[str] = ()


def register(app: Router, gate: Gate, pages: Pages, services: Services, readiness: Readiness) -> None:
    """Declare the page on *app*."""

    @app.get(PATH)
    # The first figures after a pause take a second, which says nothing of the load.
    @gate.page(Scope.ADMIN, deadline_s=ADMIN_S, asks_others=True, stale_key_s=STALE_KEY_S)
    async def show(call: Call[Any], viewer: Viewer) -> Response:
        del call
        found = await figures(services, readiness)
        shown = Figures(pages)
        return pages.page(
            "health.html",
            viewer,
            alarms=shown.alarms(found),
            tables=shown.tables(found),
            version=found.version,
            seconds=shown.decimal(found.overview.seconds, 1),
        )


class Figures:
    """Writes figures in the language of the pages."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._texts = pages.texts
        self._point = "," if pages.texts["thousands"] == "." else "."

    def alarms(self, found: Status) -> Sequence[str]:
        """Return what is wrong, one line each."""
        away = [f"{self._name(name)}: {state}" for name, state in found.dependencies.items() if state != _OK]
        breakers = [
            f"{self._texts['health_breaker']} {one.name}: {self._state(one.state)}"
            for one in found.overview.breakers
        ]
        return [*away, *breakers]

    def tables(self, found: Status) -> Sequence[Table]:
        """Return all figures."""
        shown, t = found.overview, self._texts
        states = [
            Row(self._name(name), [t["health_ok"] if state == _OK else state], state != _OK)
            for name, state in found.dependencies.items()
        ]
        return [
            Table(t["health_dependencies"], states),
            Table(t["health_breakers"], self._breakers(shown)),
            *self._queues(shown),
            Table(t["health_events"], self._events(shown)),
            Table(t["health_rates"], self._rates(shown)),
            Table(
                t["health_latency"],
                [
                    self._latency(t["health_redirects"], shown.redirect_latency),
                    self._latency(t["health_api"], shown.api_latency),
                ],
                ("p50", "p95", "p99"),
            ),
            Table(t["health_hits"], self._hits(shown.hit_ratios)),
            Table(t["health_process"], self._process(shown)),
        ]

    def decimal(self, value: float, digits: int) -> str:
        """Return *value* with so many *digits* after the point."""
        whole, _, rest = f"{value:.{digits}f}".partition(".")
        return f"{self._pages.number(int(whole))}{self._point}{rest}" if rest else whole

    def _breakers(self, shown: Overview) -> Sequence[Row]:
        rows = [
            Row(one.name, [f"{self._state(one.state)} ({self._pages.number(one.processes)})"], is_bad=True)
            for one in shown.breakers
        ]
        return rows or [Row(self._texts["health_not_closed"], [self._texts["health_none"]])]

    def _queues(self, shown: Overview) -> Sequence[Table]:
        if not shown.queues:
            return []
        t = self._texts
        rows = [
            Row(one.name, [self._count(n) for n in (one.ready, one.unacknowledged, one.dead)], bool(one.dead))
            for one in shown.queues
        ]
        columns = (t["health_ready"], t["health_unacknowledged"], t["health_dead"])
        return [Table(t["health_queues"], rows, columns)]

    def _events(self, shown: Overview) -> Sequence[Row]:
        t, lost = self._texts, shown.clicks_lost
        age = None if shown.outbox_rows is None else round(shown.outbox_oldest_s or 0)
        return [
            Row(t["health_outbox"], [self._count(shown.outbox_rows)]),
            Row(t["health_outbox_oldest"], [_UNKNOWN if age is None else f"{self._pages.number(age)} s"]),
            Row(t["health_clicks_buffered"], [self._count(shown.clicks_buffered)]),
            Row(t["health_clicks_lost"], [self._count(lost)], bool(lost)),
            Row(t["health_leased"], [self._count(shown.leased_tokens)]),
        ]

    def _rates(self, shown: Overview) -> Sequence[Row]:
        t, failed, shed = self._texts, shown.server_errors_per_s, shown.shed_per_s
        return [
            Row(t["health_requests"], [self._rate(shown.requests_per_s)]),
            Row(t["health_redirects"], [self._rate(shown.redirects_per_s)]),
            Row(t["health_failed"], [self._rate(failed)], bool(failed)),
            Row(t["health_shed"], [self._rate(shed)], bool(shed)),
            *(
                Row(f"{t['health_limited']} {policy}", [self._rate(rate)])
                for policy, rate in shown.limited_per_s.items()
            ),
        ]

    def _latency(self, name: str, found: Percentiles) -> Row:
        found_s = (found.p50_s, found.p95_s, found.p99_s)
        return Row(name, [_UNKNOWN if one is None else self.decimal(1000 * one, 2) for one in found_s])

    def _hits(self, ratios: Mapping[str, float | None]) -> Sequence[Row]:
        return [
            Row(layer, [_UNKNOWN if one is None else f"{self.decimal(100 * one, 1)} %"])
            for layer, one in ratios.items()
        ]

    def _process(self, shown: Overview) -> Sequence[Row]:
        t, memory, lag = self._texts, shown.memory_bytes, shown.loop_lag_s
        mib = _UNKNOWN if memory is None else f"{self._pages.number(round(memory / _MIB))} MiB"
        return [
            Row(t["health_processes"], [self._pages.number(shown.processes)]),
            Row(t["health_cpu"], [self.decimal(shown.cpu, 2)]),
            Row(t["health_memory"], [mib]),
            Row(t["health_lag"], [_UNKNOWN if lag is None else f"{self.decimal(1000 * lag, 2)} ms"]),
        ]

    def _count(self, value: int | None) -> str:
        return _UNKNOWN if value is None else self._pages.number(value)

    def _rate(self, value: float) -> str:
        return self.decimal(value, 1) if value else "0"

    def _name(self, dependency: str) -> str:
        return self._texts.get(f"health_of_{dependency}", dependency)

    def _state(self, state: str) -> str:
        return self._texts.get(f"health_{state}", state)
