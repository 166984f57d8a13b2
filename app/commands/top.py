"""`hopgate top`: the figures of a gateway or worker on a terminal, read from its /metrics and /readyz."""

from __future__ import annotations

import http.client
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.domain.errors import HopgateError
from app.interchange.inert import terminal_safe
from app.telemetry import prometheus
from app.telemetry.overview import Overview, Percentiles, overview
from app.telemetry.samples import Samples

INTERVAL_S = 1.0
# For one page of the gateway; the metrics of eight processes have 400 kB.
_TIMEOUT_S = 5.0
_MAX_BYTES = 16 << 20
# The most of a text from the network that stands on the page.
_MAX_SHOWN = 60
_UNKNOWN = "-"


class NoAnswer(HopgateError):
    """The gateway does not answer, or something else answers in its place."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What both forms of the page show; `dependencies` is None for a worker, which has no /readyz."""

    url: str
    dependencies: Mapping[str, str] | None
    overview: Overview


class Source:
    """
    Reads a gateway or a worker.

    Args:
        url: where it answers, without a path.
        monotonic: seconds that never go back.

    Raises:
        NoAnswer: *url* is no such URL.
    """

    def __init__(
        self,
        url: str,
        *,
        connect: Callable[[float], http.client.HTTPConnection] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self._monotonic = monotonic
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        # User and password would stand on the page.
        extra = "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment
        if parts.scheme not in ("http", "https") or not host or extra:
            raise NoAnswer("the URL must be like http://127.0.0.1:8000, without a path or a user")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connect = connect or (lambda timeout_s: kind(host, port, timeout=timeout_s))

    def samples(self) -> tuple[float, Samples]:
        """
        Return the present samples, and when they were asked for.

        Raises:
            NoAnswer: there is none, or it is not in the format of Prometheus.
        """
        at = self._monotonic()
        status, body = self._get("/metrics")
        try:
            samples = prometheus.read(body.decode()) if status == 200 else {}
        # The parser raises several kinds for text that is not in its format.
        except (ValueError, LookupError, TypeError, AttributeError):
            samples = {}
        if not samples:
            raise NoAnswer(f"{self.url}/metrics has no metrics of Hopgate (status {status})")
        return at, samples

    def dependencies(self) -> Mapping[str, str] | None:
        """Return the state of each dependency in words; None if the other side says nothing of them."""
        try:
            _, body = self._get("/readyz")
            found = json.loads(body)["dependencies"]
            return {str(name): str(state) for name, state in found.items()}
        except (NoAnswer, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None

    def _get(self, path: str) -> tuple[int, bytes]:
        until = self._monotonic() + _TIMEOUT_S
        connection = self._connect(_TIMEOUT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = b""
            while chunk := response.read1(1 << 20):
                body += chunk
                if len(body) > _MAX_BYTES or self._monotonic() > until:
                    raise NoAnswer(f"{self.url}{path} sends too much, or too slowly")
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            raise NoAnswer(f"no gateway answers on {self.url}: {reason}") from None
        finally:
            connection.close()
        return response.status, body


def show(source: Source, *, once: bool, as_json: bool, say: Callable[[Any], None]) -> None:
    """
    Show the figures until interrupted; *once*, as JSON or without a terminal, a single time.

    Raises:
        NoAnswer: there is none at the beginning. Later on the page says so, and goes on.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    with suppress(KeyboardInterrupt):
        first = source.samples()
        if not (as_json or once) and console.is_terminal:
            # Without this, the alternate screen would be left on.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
            _watch(source, first, console)
        figures, _ = _next(source, first)
        if as_json:
            say(figures)
        else:
            console.print(page(figures))


def _watch(source: Source, last: tuple[float, Samples], console: Console) -> NoReturn:
    waiting = Text(f"reading {terminal_safe(source.url)} ...")
    with Live(waiting, console=console, screen=True, auto_refresh=False) as live:
        shown: RenderableType = waiting
        while True:
            try:
                figures, last = _next(source, last)
            except NoAnswer as error:
                live.update(Group(shown, Text(f"\n{terminal_safe(str(error))}", style="bold red")))
            else:
                shown = page(figures)
                live.update(shown)
            live.refresh()


def _next(source: Source, last: tuple[float, Samples]) -> tuple[Figures, tuple[float, Samples]]:
    before_at, before = last
    time.sleep(INTERVAL_S)
    after_at, after = source.samples()
    figures = Figures(source.url, source.dependencies(), overview(before, after, after_at - before_at))
    return figures, (after_at, after)


# --- the page --------------------------------------------------------------------------


def page(figures: Figures) -> RenderableType:
    """Return the page; what the gateway sent is inert on a terminal."""
    seen = figures.overview
    limited = {name: rate for name, rate in seen.limited_per_s.items() if rate}
    traffic = [
        ("requests/s", _rate(seen.requests_per_s), ""),
        ("redirects/s", _rate(seen.redirects_per_s), ""),
        ("5xx/s", _rate(seen.server_errors_per_s), _bad(seen.server_errors_per_s)),
        ("shed/s", _rate(seen.shed_per_s), _bad(seen.shed_per_s)),
        (
            "limited/s",
            ", ".join(f"{name} {_rate(rate)}" for name, rate in limited.items()) or "0",
            "yellow" if limited else "",
        ),
    ]
    breakers = ", ".join(f"{one.name} {one.state} ({one.processes})" for one in seen.breakers)
    state = [
        ("circuit breakers", breakers or "none open", _bad(len(breakers))),
        ("outbox", _outbox(seen), ""),
        ("clicks", f"{_count(seen.clicks_buffered)} buffered, {_count(seen.clicks_lost)} lost", ""),
        ("tokens on lease", _count(seen.leased_tokens), ""),
        ("loop lag", _milliseconds(seen.loop_lag_s), ""),
        ("memory", _memory(seen.memory_bytes), ""),
        ("processors in use", f"{seen.cpu:.2f}", ""),
        ("processes", str(seen.processes), ""),
    ]
    dependencies = [
        (name, state, "" if state == "ok" else "bold red")
        for name, state in (figures.dependencies or {}).items()
    ]
    hits = [
        (f"hits of {name}", _UNKNOWN if ratio is None else f"{ratio:.1%}", "")
        for name, ratio in seen.hit_ratios.items()
    ]
    heading = f"{figures.url}, the last {seen.seconds:.1f} s"
    parts: list[RenderableType] = [
        Text(terminal_safe(heading), style="bold"),
        _rows([*dependencies, *traffic, *hits]),
    ]
    parts += [_latency(seen), _rows(state)]
    if seen.queues:
        parts.append(_queues(seen))
    return Group(*parts)


def _rows(rows: list[tuple[str, str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=18, no_wrap=True)
    for name, value, style in rows:
        table.add_row(_text(name), _text(value, limit=200, style=style))
    return table


def _latency(seen: Overview) -> Table:
    table = _numbers("latency", "p50", "p95", "p99")
    for name, found in (("redirects", seen.redirect_latency), ("API", seen.api_latency)):
        table.add_row(_text(name), *map(_text, _percentiles(found)))
    return table


def _queues(seen: Overview) -> Table:
    table = _numbers("queue", "ready", "unacknowledged", "dead")
    for one in seen.queues:
        counts = (one.ready, one.unacknowledged, one.dead)
        table.add_row(_text(one.name), *(_text(_count(count)) for count in counts))
    return table


def _numbers(first: str, *names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(first, min_width=18)
    for name in names:
        table.add_column(name, justify="right", min_width=10)
    return table


def _text(text: str, *, limit: int = _MAX_SHOWN, style: str = "") -> Text:
    return Text(terminal_safe(text, limit), style=style)


def _percentiles(found: Percentiles) -> tuple[str, ...]:
    return tuple(map(_milliseconds, (found.p50_s, found.p95_s, found.p99_s)))


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value else "0"


def _count(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"


def _milliseconds(seconds: float | None) -> str:
    return _UNKNOWN if seconds is None else f"{seconds * 1000:,.2f} ms"


def _memory(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value / (1 << 20):,.0f} MiB"


def _outbox(seen: Overview) -> str:
    if seen.outbox_rows is None:
        return _UNKNOWN
    return f"{seen.outbox_rows:,} rows, the oldest for {seen.outbox_oldest_s or 0:.0f} s"


def _bad(value: float) -> str:
    return "bold red" if value else ""
