"""Results as Markdown: both sides of every ratio, and its verdict against the bar."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

from bench.results import Bar, Check, Result, Run, Side

REPORT = Path(__file__).parent / "RESULTS.md"
_HEAD = """# Redirects, measured

Written by `make bench` from `bench/results.json`. A ratio is ours ÷ theirs within one round, in which
all servers are visited in turn; the tables show the median and the range. Other figures are medians
over the rounds. Absolute figures depend on the machine named here; ratios less so.

- Each server has one worker on one processor, unless stated otherwise; the load and the upstream
  services share the others.
- Rate limits are on and not reached. Hopgate runs as `hopgate serve`.
- **CPU µs**: processor time of the server per request, as the kernel counts it; it varies less than
  requests a second on a shared machine.
- **errors**: responses with an unexpected status, and broken connections.
"""
_WORDS = {
    "per_second": "requests/s",
    "p99_ms": "p99",
    "us_each": "time per request",
    "rss_mb": "resident memory",
}


def render(results: Iterable[Result]) -> str:
    """Return the whole report."""
    results = list(results)
    if not results:
        return _HEAD
    newest = max(results, key=lambda result: result.run.date).run
    lines = [_HEAD, f"{newest.machine}, {newest.processors} processors.", f"{newest.versions}.", ""]
    lines += ["## Bars", "", *_bars(results), ""]
    for result in results:
        lines += _section(result)
    return "\n".join(lines)


def _bars(results: Iterable[Result]) -> list[str]:
    rows = ["| scenario | against | bar | measured | |", "|---|---|---|---:|---|"]
    for result in results:
        for side in result.sides[1:]:
            if bar := result.bars.get(side.name):
                verdict = "pass" if result.verdict(side) else "**FAIL**"
                rows.append(
                    f"| {result.title} | {side.title} | {_WORDS[result.measure]} {_bar(bar)} "
                    f"| {_spread(result.ratios(side))} | {verdict}{_moonshot(bar, result, side)} |"
                )
        rows += [_check(result, check) for check in result.checks]
    return rows


def _check(result: Result, check: Check) -> str:
    verdict = "pass" if check.passed else "**FAIL**"
    bar = f"{_bar(check.bar)}{check.unit}"
    return f"| {result.title} | | {check.what} {bar} | {check.measured:,.4g}{check.unit} | {verdict} |"


def _moonshot(bar: Bar, result: Result, side: Side) -> str:
    if bar.moonshot is None:
        return ""
    ratio = statistics.median(result.ratios(side))
    reached = ratio >= bar.moonshot if bar.at_least is not None else ratio <= bar.moonshot
    return ", moonshot too" if reached else ""


def _bar(bar: Bar) -> str:
    text = f"≥ {bar.at_least:g}" if bar.at_least is not None else f"≤ {bar.at_most:g}"
    return text if bar.moonshot is None else f"{text} (moonshot {bar.moonshot:g})"


def _section(result: Result) -> list[str]:
    lines = [f"## {result.title} (`{result.name}`)", "", result.method, "", _ran(result.run), ""]
    figures = ["", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs", "errors", "this CPU ÷ ours"]
    lines.append(f"| {' | '.join(figures)} | {_WORDS[result.measure]}, ours ÷ this |")
    lines.append("|---" + "|---:" * len(figures) + "|")
    for number, side in enumerate(result.sides):
        lines.append(_row(result, side, ours=number == 0))
    return [*lines, "", *[f"{remark}\n" for remark in result.remarks]]


def _row(result: Result, side: Side, *, ours: bool) -> str:
    def median(name: str) -> float:
        return statistics.median(getattr(load, name) for load in side.loads)

    bad = sum(load.bad for load in side.loads)
    total = sum(load.requests for load in side.loads)
    errors = f"{bad} of {total:,}" if bad else "0"
    ratio = "" if ours else _spread(result.ratios(side))
    cpu = "" if ours else f"{median('cpu_us') / _cpu_us(result.sides[0]):.2f}"
    verdict = {None: "", True: " ✓", False: " ✗"}[None if ours else result.verdict(side)]
    memory = f" ({side.rss_mb:.0f} MB)" if side.rss_mb is not None else ""
    return (
        f"| {side.title}{memory} | {median('per_second'):,.0f} "
        f"| {median('p50_ms'):.2f} | {median('p99_ms'):.2f} | {median('p999_ms'):.2f} "
        f"| {median('cpu_us'):.0f} | {errors} | {cpu} | {ratio}{verdict} |"
    )


def _cpu_us(side: Side) -> float:
    """Return the median, at least 0.1 µs: a short round can have no measurable processor time."""
    return max(0.1, statistics.median(load.cpu_us for load in side.loads))


def _spread(ratios: list[float]) -> str:
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _ran(run: Run) -> str:
    rounds = f"{run.rounds} round{'s' if run.rounds > 1 else ''} of {run.seconds} s"
    return f"*{run.date}, commit {run.sha}, {rounds}, load average {run.load_average:.1f} before.*"
