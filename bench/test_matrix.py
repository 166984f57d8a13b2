"""Tests of the benchmarks: requests, counts and reports. No server is measured."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import contenders, open_loop, report, results
from bench.__main__ import _ORDER
from bench.load import Load, Visit, at_rate, counted, flood, percentile
from bench.matrix import SCENARIOS, zipf
from bench.processes import Server, free_port, serving
from bench.results import Bar, Check, Result, Run, Side

_ANSWERS_404 = """
import sys, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(302 if self.path == "/there" else 404)
        self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
needs_load = pytest.mark.skipif(
    not (shutil.which("wrk") and shutil.which("h2load")), reason="wrk or h2load (nghttp2-client) is missing"
)
_RUN = Run("2030-01-31 12:00 UTC", "abc1234", "a machine", 2, "Python 3", 3, 4, 0.1)


@pytest.fixture(scope="module")
def server():
    port = free_port()
    with serving([sys.executable, "-c", _ANSWERS_404, str(port)], port, {}) as running:
        yield running


def _load(per_second: float, **others: Any) -> Load:
    usual = Load(1000, per_second, 0, 1.0, 2.0, 3.0, 10.0)
    return dataclasses.replace(usual, **others)


def _result(ours: list[Load], theirs: list[Load], bar: Bar) -> Result:
    sides = [Side("hopgate", "Hopgate", ours), Side("bare", "the other", theirs)]
    return Result("one", "One", "How.", "per_second", sides, {"bare": bar}, _RUN)


@needs_load
def test_unexpected_status_is_an_error(server: Server, tmp_path: Path) -> None:
    """Wrk alone counts every 404 as an error, and no 302 where a 404 is expected."""
    paths = tmp_path / "paths"
    paths.write_text("/there\n/absent\n")

    redirects = flood(server, Visit(paths=paths, right=(302,), connections=2), seconds=1)
    absences = flood(server, Visit(paths=paths, right=(404,), connections=2), seconds=1)
    either = flood(server, Visit(paths=paths, right=(302, 404), connections=2), seconds=1)

    assert 0.4 < redirects.bad / redirects.requests < 0.6
    assert 0.4 < absences.bad / absences.requests < 0.6
    assert either.bad == 0
    assert either.cpu_us > 0


@needs_load
def test_single_path_needs_no_list(server: Server) -> None:
    there = flood(server, Visit(path="/there", connections=2), seconds=1)
    absent = flood(server, Visit(path="/absent", connections=2), seconds=1)

    assert there.bad == 0
    # Two may be in flight when wrk stops counting one of them.
    assert abs(absent.bad - absent.requests) <= 2


@needs_load
def test_fixed_count_waits_for_every_response(server: Server, tmp_path: Path) -> None:
    paths = tmp_path / "paths"
    paths.write_text("/there\n/absent\n")

    load = counted(server, Visit(paths=paths, connections=4), count=200)

    assert (load.requests, load.bad) == (200, 100)


@needs_load
def test_fixed_rate_is_kept(server: Server) -> None:
    load = at_rate(server, Visit(path="/there", connections=4), seconds=2, rate=100)

    assert load.bad == 0
    assert load.requests == pytest.approx(200, rel=0.1)
    two = at_rate(
        server,
        Visit(path="/there", connections=4),
        seconds=2,
        rate=100,
        addresses=["192.0.2.1", "192.0.2.2"],
    )
    assert two.requests == pytest.approx(200, rel=0.1)


def test_open_loop_sends_on_time_and_records_all(server: Server, tmp_path: Path) -> None:
    planned, answers, paths = tmp_path / "plan", tmp_path / "answers", tmp_path / "paths"
    paths.write_text("/there\n/absent\n")
    phases = [(100.0, 1.0), (200.0, 0.5)]
    plan = open_loop.Plan(
        port=server.port, paths=str(paths), key="", create_every=1000, opened=5, connections=50, phases=phases
    )
    planned.write_bytes(msgspec.json.encode(plan))

    subprocess.run(
        [sys.executable, "-m", "bench.open_loop", str(planned), str(answers)], check=True, timeout=30
    )

    seen = sorted(open_loop.read(answers))
    assert Counter(one.status for one in seen) == {302: 100, 404: 100}
    assert [round((one.at_us - seen[0].at_us) / 1e4) for one in seen[:100]] == list(range(100))


def test_slow_response_delays_later_requests() -> None:
    from bench.load import _as_planned

    assert list(_as_planned([1.0, 25.0], each_s=0.01)) == [1.0, 25.0, 15.0, 5.0]
    assert list(_as_planned([1.0, 25.0], each_s=None)) == [1.0, 25.0]


def test_percentile_is_an_observed_value() -> None:
    ordered = [float(number) for number in range(1000)]

    assert [percentile(ordered, share) for share in (0.5, 0.99, 0.999, 1)] == [500, 990, 999, 999]
    assert percentile([7.0], 0.5) == 7


def test_zipf_weights_are_deterministic() -> None:
    slugs = [f"s{number}" for number in range(100)]
    drawn = zipf(slugs, 20_000)

    counts = Counter(drawn)
    assert drawn == zipf(slugs, 20_000)
    assert set(counts) == set(slugs)
    assert counts["s0"] / counts["s1"] == pytest.approx(2, rel=0.15)
    assert counts["s0"] / counts["s9"] == pytest.approx(10, rel=0.25)


def test_median_ratio_of_rounds_decides_the_verdict() -> None:
    result = _result([_load(80), _load(900)], [_load(100), _load(1000)], Bar(at_least=0.85, moonshot=0.95))
    other = result.sides[1]

    assert result.ratios(other) == pytest.approx([0.8, 0.9])
    assert result.verdict(other) is True  # the median, 0.85
    assert "| 0.85 (0.80 to 0.90) | pass |" in report.render([result])
    slower = _result([_load(80)], [_load(100)], Bar(at_least=0.85))
    assert "| 0.80 | **FAIL** |" in report.render([slower])
    assert Bar(at_most=1.15).passed(1.15)
    assert not Bar(at_most=1.15).passed(1.16)


def test_check_is_reported_with_its_bar(tmp_path: Path) -> None:
    checks = [Check("lost", 3, Bar(at_most=0)), Check("seen by all, p99", 12.345, Bar(at_most=100), " ms")]
    result = Result("one", "One", "How.", "p99_ms", [Side("a", "A", [_load(1)])], {}, _RUN, checks=checks)

    assert "| One | | lost ≤ 0 | 3 | **FAIL** |" in report.render([result])
    assert "| One | | seen by all, p99 ≤ 100 ms | 12.35 ms | pass |" in report.render([result])
    results.keep([result], ["one"], tmp_path / "results.json")
    assert list(results.read(tmp_path / "results.json").values()) == [result]


def test_results_of_other_scenarios_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    one = _result([_load(1)], [_load(1)], Bar(at_least=1))
    sides = one.sides
    two = Result("two", "Two", "How.", "rss_mb", [Side("a", "A", sides[0].loads, 5.0)] * 2, {}, _RUN)

    results.keep([one], ["two", "one"], file)
    results.keep([two], ["two", "one"], file)

    assert list(results.read(file).values()) == [two, one]
    results.keep([], ["one"], file)
    assert list(results.read(file)) == ["one"]


def test_every_scenario_names_known_servers() -> None:
    for scenario in SCENARIOS:
        assert scenario.name in _ORDER
        assert set(scenario.bars) <= set(scenario.servers[1:])
        assert all(contenders.title(name) for name in scenario.servers)


@needs_load
def test_ctrl_c_stops_every_server() -> None:
    """Servers have their own sessions, which the signal of the terminal does not reach."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "--quick", "--only", "connections-1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while len(started := _children(process.pid)) < 3:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    assert process.returncode == 1
    assert output.splitlines()[-1] == "interrupted; every server was stopped"
    # A server and its workers share a session; the first is the watcher.
    assert not [pid for pid in started if not Server(pid, 0).is_gone()]


def _children(pid: int) -> list[int]:
    """Return the servers that *pid* started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]
