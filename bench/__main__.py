"""
Compare redirects with other servers, and measure the promises under stress.

Writes bench/results.json and bench/RESULTS.md.

    python -m bench                     # everything, about an hour
    python -m bench --only redis-hit    # one scenario or several; the others keep their results
    python -m bench --quick             # everything in a few minutes; print only, write nothing
    python -m bench --report            # render the report from earlier results

Compared servers all run at once and are visited in turn, so a slow moment of the machine affects
all of them. Every server is private and stopped at the end, also on Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import clicks, edits, growth, matrix, memory, overload, scan
from bench.contenders import CONTENDERS
from bench.load import check_tools
from bench.matrix import SCENARIOS, Data, Scenario
from bench.processes import BACK_CPUS
from bench.report import REPORT, render
from bench.results import Result, Run, describe_run, keep, read
from bench.site import Site, Stack, embedded, import_urls

_URLS = Path(__file__).parents[1] / "tests" / "data" / "urls.txt"
_GROWTH, _MEMORY = "growth", "memory"
# Promises under stress. Each has its own stack, which it may break.
_STRESSES = {"scan": scan, "overload": overload, "clicks": clicks, "edits": edits}
NAMES = (*(scenario.name for scenario in SCENARIOS), _GROWTH, _MEMORY, *_STRESSES)
# The order of results: growth has two, a stress one or more.
_ORDER = (
    *(scenario.name for scenario in SCENARIOS),
    *("growth-hot", "growth-cold", _MEMORY),
    *(name for stress in _STRESSES.values() for name in stress.RESULTS),
)


def main() -> None:
    """Run the benchmarks that the arguments select."""
    arguments = _arguments()
    if arguments.report:
        REPORT.write_text(render(read().values()))
        return
    check_tools()
    # Ctrl-C and SIGTERM raise KeyboardInterrupt, in the background too, so every `with` cleans up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # Later processes stay off the processor of the servers, unless they are pinned to it.
    os.sched_setaffinity(0, BACK_CPUS)
    names = arguments.only or NAMES
    _check_packages(names)
    results = []
    try:
        with _progress() as progress, ExitStack() as running:
            measured = _Matrix(running, progress, arguments)
            for name in names:
                for result in measured.results(name):
                    results.append(result)
                    if not arguments.quick:
                        # Stored one by one: an interrupted run keeps its finished results.
                        REPORT.write_text(render(keep([result], _ORDER).values()))
    except KeyboardInterrupt:
        sys.exit("interrupted; every server was stopped")
    finally:
        if results:
            Console(width=170).print(Markdown(render(results)))


class _Matrix:
    """Runs scenarios by name, on sites created on first use."""

    def __init__(self, running: ExitStack, progress: Progress, arguments: argparse.Namespace) -> None:
        self._running = running
        self._progress = progress
        self._arguments = arguments

    def results(self, name: str) -> Iterator[Result]:
        rounds = self._arguments.rounds
        run = describe_run(rounds, self._arguments.seconds)
        if name == _GROWTH:
            yield from self._growth(run)
        elif name == _MEMORY:
            yield self._memory(run)
        elif name in _STRESSES:
            yield from self._stress(name, run)
        else:
            scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
            yield self._scenario(scenario, run)

    def _scenario(self, scenario: Scenario, run: Run) -> Result:
        turn = self._bar(scenario.name, matrix.turns(run.rounds, scenario))
        site, data = (self._embedded, Data()) if scenario.where == "embedded" else self._full
        return matrix.measure(scenario, site, data, run, turn)

    def _growth(self, run: Run) -> list[Result]:
        turn = self._bar(_GROWTH, growth.turns(run.rounds))
        return growth.measure(self._stack, self._arguments.links, run, turn)

    def _memory(self, run: Run) -> Result:
        turn = self._bar(_MEMORY, memory.turns())
        site, data = self._full
        return memory.measure(site, data.visits["zipf"], self._arguments.redirects, run, turn)

    def _stress(self, name: str, run: Run) -> list[Result]:
        stress, quick = _STRESSES[name], self._arguments.quick
        turn = self._bar(name, stress.turns(quick=quick))
        with ExitStack() as running:
            return stress.measure(Stack(running), run, turn, quick=quick)

    def _bar(self, name: str, total: int) -> Callable[[str], None]:
        task = self._progress.add_task(name, total=total, doing="starting")

        def turn(doing: str) -> None:
            self._progress.update(task, advance=1, doing=doing)
            if not self._progress.console.is_terminal:  # a log cannot show bars
                print(f"{name}: {doing}", file=sys.stderr, flush=True)

        return turn

    @cached_property
    def _embedded(self) -> Site:
        return embedded(self._running)

    @cached_property
    def _stack(self) -> Stack:
        return Stack(self._running)

    @cached_property
    def _full(self) -> tuple[Site, Data]:
        site = self._stack.site(matrix.MANY)
        return site, matrix.stack_data(site, import_urls(site, self._arguments.urls))


def _check_packages(names: Sequence[str]) -> None:
    servers = {server for scenario in SCENARIOS if scenario.name in names for server in scenario.servers}
    needed = {CONTENDERS[server].needs for server in servers & CONTENDERS.keys()} - {""}
    if missing := sorted(name for name in needed if not find_spec(name)):
        raise SystemExit(f"not installed: {', '.join(missing)}; pip install -r requirements/bench.txt")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:16}"),
        BarColumn(12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}"),
        console=Console(stderr=True),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, metavar="NAME", help=f"some of: {', '.join(NAMES)}"
    )
    parser.add_argument("--rounds", type=int, help="visits of each server (7)")
    parser.add_argument("--seconds", type=int, help="seconds of each visit (4)")
    parser.add_argument("--quick", action="store_true", help="one round of one second; print only")
    parser.add_argument("--report", action="store_true", help="render earlier results, measure nothing")
    parser.add_argument(
        "--urls", type=Path, default=_URLS, help="file with one URL per line, for the Zipf list"
    )
    parser.add_argument("--links", type=int, help="links that `growth` creates (1,000,000)")
    parser.add_argument("--redirects", type=int, help="redirects that `memory` requests (10,000,000)")
    arguments = parser.parse_args()
    usual = (1, 1, 10_000, 20_000) if arguments.quick else (7, 4, 1_000_000, 10_000_000)
    for name, value in zip(("rounds", "seconds", "links", "redirects"), usual, strict=True):
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if arguments.links < growth.FEW:
        parser.error(f"--links must be at least {growth.FEW:,}")
    if not arguments.urls.is_file():
        parser.error(f"no file {arguments.urls}")
    return arguments


if __name__ == "__main__":
    main()
