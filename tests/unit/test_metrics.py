"""Metrics: counts add up over processes and their deaths; no label is chosen by a client."""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
import re
import time
from pathlib import Path

import pytest

from app import __version__
from app.adapters.guards import DependencyGuards
from app.domain.errors import Unavailable
from app.telemetry import families, prometheus
from app.telemetry.buckets import BUCKETS_S
from app.telemetry.families import Counter
from app.telemetry.metrics import Metrics
from app.telemetry.process import process_samples
from app.telemetry.samples import Durations, Rising, Samples, merge
from app.telemetry.sharing import SharedSamples
from app.telemetry.sources import guard_samples
from app.telemetry.timing import Timings, timed
from tests.unit.exposition import as_prometheus_reads, parsed

SHED, LAG, LIMIT = families.SHED.of("list"), families.LOOP_LAG.of(), families.ADMISSION_LIMIT.of()
DECLARED = list(families.declared().values())


def test_processes_add_up_and_the_largest_lag_counts():
    one: Samples = {SHED: [2], LAG: [0.1], LIMIT: [10]}
    other: Samples = {SHED: [3], LAG: [0.3], LIMIT: [20]}

    assert merge([one, other]) == {SHED: [5], LAG: [0.3], LIMIT: [30]}


def test_text_reads_back_as_the_same_samples():
    histogram = Durations()
    for seconds in (0.0001, 0.0005, 0.0006, 0.03, 9.0):
        histogram.observe(seconds)
    redirects = families.HTTP_SECONDS.of("/{slug}", "GET", "3xx")
    fine = Durations(redirects[0].bounds_of(redirects[1]))
    fine.observe(0.00007, 3)
    samples: Samples = {
        SHED: [7],
        LAG: [0.25],
        families.PROCESS_CPU.of(): [0.1],
        families.BREAKER_STATE.of('odd "name"\n', "open"): [2],
        families.DEPENDENCY_SECONDS.of("store"): histogram.values,
        redirects: fine.values,
    }

    assert prometheus.read(prometheus.text(samples).decode()) == samples


def test_series_of_another_version_are_left_out():
    text = """\
# TYPE hopgate_shed_total counter
hopgate_shed_total{kind="list"} 1.0
hopgate_shed_total{kind="list",more="x"} 2.0
hopgate_shed_created{kind="list"} 3.0
# TYPE hopgate_unheard_of gauge
hopgate_unheard_of 4.0
# TYPE hopgate_dependency_seconds histogram
hopgate_dependency_seconds_bucket{dependency="store",le="0.5"} 1.0
hopgate_dependency_seconds_bucket{dependency="store",le="+Inf"} 1.0
hopgate_dependency_seconds_sum{dependency="store"} 1.0
"""

    assert prometheus.read(text) == {SHED: [1]}


@pytest.mark.parametrize(
    "text",
    [
        "<!doctype html><p>no gateway</p>",
        "# TYPE hopgate_event_loop_lag_seconds gauge\nhopgate_event_loop_lag_seconds NaN\n",
        "# TYPE hopgate_event_loop_lag_seconds gauge\nhopgate_event_loop_lag_seconds 1e999\n",
        "# TYPE hopgate_event_loop_lag_seconds gauge\nhopgate_event_loop_lag_seconds\n",
    ],
)
def test_other_text_is_refused(text):
    with pytest.raises(ValueError):
        prometheus.read(text)


def test_text_parses_as_prometheus_format():
    histogram = Durations()
    for seconds in (0.0001, 0.0005, 0.0006, 0.03, 9.0):
        histogram.observe(seconds)
    samples: Samples = {
        SHED: [7],
        LAG: [0.25],
        families.BREAKER_STATE.of('odd "name"\n', "open"): [2],
        families.DEPENDENCY_SECONDS.of("store"): histogram.values,
    }

    text = prometheus.text(samples)

    got = as_prometheus_reads(text)
    assert parsed(text) == got

    store = ("dependency", "store")
    assert got["hopgate_shed_total", (("kind", "list"),)] == 7
    assert got["hopgate_event_loop_lag_seconds", ()] == 0.25
    buckets = [got["hopgate_dependency_seconds_bucket", (store, ("le", repr(b)))] for b in BUCKETS_S]
    assert buckets == [2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4]
    assert got["hopgate_dependency_seconds_bucket", (store, ("le", "+Inf"))] == 5
    assert got["hopgate_dependency_seconds_count", (store,)] == 5
    assert got["hopgate_dependency_seconds_sum", (store,)] == pytest.approx(9.0312)


def test_new_family_is_rendered_and_merged(tmp_path, wall):
    """There is no registry: a sample brings its family, so it cannot be dropped."""
    new = Counter("hopgate_new", "Things counted by a test.", ("kind",)).of("some")
    shared = SharedSamples(tmp_path, clock=wall)
    shared.write(merge([{new: [1]}, {new: [2]}]))

    assert parsed(prometheus.text({new: [1]}))["hopgate_new_total", (("kind", "some"),)] == 1
    assert parsed(prometheus.text(shared.read()))["hopgate_new_total", (("kind", "some"),)] == 3
    shared.close({})


def test_wrong_number_of_label_values_is_an_error():
    with pytest.raises(ValueError, match="hopgate_shed has the labels"):
        families.SHED.of()


def test_help_texts_stand_alone():
    for family in DECLARED:
        assert family.help[0].isupper()
        assert family.help.endswith(".")
        assert len(family.help.split()) >= 4
        assert not re.search(r"\b(of (them|these|those|it)|that (it|they))\b", family.help), family.help


def test_metric_names_are_unique_and_documented():
    """The tables of the manual name each metric once, as it is shown, with its labels."""
    section = Path("docs/operations.md").read_text().split("## Metrics")[1].split("\n## ")[0]
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    names = [family.name for family in DECLARED]

    assert len(set(names)) == len(names)
    assert sorted(shown(family) for family in DECLARED) == sorted(re.findall(r"`([^`]+)`", " ".join(rows)))


def shown(family: families.Family) -> str:
    """The name in PromQL, with the labels."""
    suffix = "_total" if isinstance(family, Counter) else ""
    labels = f"{{{','.join(family.labels)}}}" if family.labels else ""
    return f"{family.name}{suffix}{labels}"


# --- several processes -------------------------------------------------------------------


@pytest.fixture
def wall(monotonic):
    return monotonic


def test_each_process_reports_for_all(tmp_path, wall):
    one, other = (SharedSamples(tmp_path, clock=wall) for _ in range(2))
    one.write({SHED: [2], LIMIT: [10]})
    other.write({SHED: [3], LIMIT: [20]})

    assert one.read() == other.read() == {SHED: [5], LIMIT: [30]}
    one.close({})
    other.close({})


def test_lock_file_in_use_stays_recent(tmp_path, wall):
    """Cleaners of /tmp remove files of ten days ago; without its lock file, a slot would be taken twice."""
    shared = SharedSamples(tmp_path, clock=wall)
    os.utime(tmp_path / "0.lock", (0, 0))

    shared.write({SHED: [2]})

    assert time.time() - (tmp_path / "0.lock").stat().st_mtime < 60
    shared.close({})


def test_successor_continues_counters_but_not_gauges(tmp_path, wall):
    """The predecessor is killed: it closes nothing, and its lock ends with it."""
    one = SharedSamples(tmp_path, clock=wall)
    one.write({SHED: [2], LIMIT: [10]})
    one._lock.close()

    successor = SharedSamples(tmp_path, clock=wall)
    successor.write({SHED: [1], LIMIT: [5]})

    assert successor.read() == {SHED: [3], LIMIT: [5]}
    assert len(list(tmp_path.glob("*.json"))) == 1
    successor.close({})


def test_dead_process_keeps_counters_and_loses_gauges(tmp_path, wall):
    living, dead = (SharedSamples(tmp_path, clock=wall) for _ in range(2))
    dead.write({SHED: [2], LIMIT: [10]})
    dead._lock.close()
    wall.now += 5
    living.write({SHED: [1], LIMIT: [5]})

    assert living.read() == {SHED: [3], LIMIT: [5]}
    living.close({})


def test_truncated_file_is_skipped(tmp_path, wall):
    """Hopgate renames its files into place; a truncated one has another origin, such as a full disk."""
    one = SharedSamples(tmp_path, clock=wall)
    one.write({SHED: [2]})
    (tmp_path / "9.json").write_text('{"written_at": 1')

    assert one.read() == {SHED: [2]}
    one.close({})


async def test_missing_folder_is_reported_and_ends_nothing(tmp_path, wall):
    folder = tmp_path / "gone"
    folder.mkdir()
    one = SharedSamples(folder, clock=wall)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

    metrics = Metrics([lambda: {SHED: [1]}], one)
    running = asyncio.create_task(metrics.run())
    outcomes = await asyncio.gather(*(metrics.text() for _ in range(3)), return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert not running.done()
    running.cancel()
    await metrics.aclose()


async def test_concurrent_scrapes_never_go_back(tmp_path):
    counted = itertools.count(1)
    metrics = Metrics([lambda: {SHED: [next(counted)]}], SharedSamples(tmp_path, clock=time.time))

    texts = await asyncio.gather(*(metrics.text() for _ in range(100)))

    values = [parsed(text)["hopgate_shed_total", (("kind", "list"),)] for text in texts]
    assert values == sorted(values) == list(range(1, 101))
    await metrics.aclose()


def test_samples_survive_a_round_trip_through_a_file(tmp_path, wall):
    own = merge([guard_samples(DependencyGuards()), Timings("store").samples(), {SHED: [1], LAG: [0.1]}])
    one = SharedSamples(tmp_path, clock=wall)
    one.write(own)

    assert one.read() == own
    one.close({})


def test_process_reports_itself():
    before = process_samples()
    with (Path(__file__)).open():
        during = process_samples()
    while process_samples()[families.PROCESS_CPU.of()] == before[families.PROCESS_CPU.of()]:
        pass

    assert during[families.PROCESS_FDS.of()][0] == before[families.PROCESS_FDS.of()][0] + 1
    assert during[families.PROCESS_MEMORY.of()][0] > 1 << 20
    assert during[families.PROCESS_MAX_FDS.of()][0] >= during[families.PROCESS_FDS.of()][0]
    assert during[families.BUILD.of(__version__, platform.python_version())] == [1]
    # Of two processes, memory adds up; the version is one.
    both = merge([before, before])
    assert both[families.PROCESS_MEMORY.of()] == [2 * before[families.PROCESS_MEMORY.of()][0]]
    assert both[families.BUILD.of(__version__, platform.python_version())] == [1]


# --- timing ------------------------------------------------------------------------------


class Dependency:
    async def ask(self, answer):
        if answer is None:
            raise Unavailable("dependency", "away")
        return answer

    async def ping(self): ...


async def test_calls_are_timed_and_failures_counted():
    ticks = iter([0.0, 0.002, 1.0, 1.5])
    timings = Timings("store")
    dependency = timed(Dependency, Dependency(), timings, clock=lambda: next(ticks))

    assert await dependency.ask(1) == 1
    with pytest.raises(Unavailable):
        await dependency.ask(None)
    await dependency.ping()

    assert timings.failures == 1
    assert sum(timings.seconds.values[:-1]) == 1
    assert timings.seconds.values[-1] == pytest.approx(0.002)


async def test_shared_file_is_written_without_a_scrape(tmp_path):
    shared = SharedSamples(tmp_path, clock=time.time)
    metrics = Metrics([lambda: {SHED: [4]}], shared)
    running = asyncio.create_task(metrics.run())

    while not shared.read():
        await asyncio.sleep(0.01)

    running.cancel()
    assert shared.read() == {SHED: [4]}
    await metrics.aclose()


def test_difference_of_counts_never_falls():
    readings = iter([5, 9, 8, 10])
    source = Rising(lambda: {families.STALE_REDIRECTS.of(): [next(readings)]})

    assert [source()[families.STALE_REDIRECTS.of()] for _ in range(4)] == [[5], [9], [9], [10]]
