"""What is reported: numbers that add up, over processes and their deaths, and nothing a client chose."""

from __future__ import annotations

import asyncio
import itertools
import os
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.adapters.guarded import Guards
from app.domain.errors import Unavailable
from app.domain.link import LinkFields
from app.telemetry import prometheus
from app.telemetry.samples import BUCKETS_S, FAMILIES, Histogram, merge
from app.telemetry.sharing import SharedSamples
from app.telemetry.timing import Timings, timed
from app.web.metrics import Metrics, guard_samples
from tests.unit.whole_application import Application

ROWS, LAG = ("hopgate_shed", ("list",)), ("hopgate_event_loop_lag_seconds", ())
LIMIT = ("hopgate_admission_limit", ())


def parsed(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_counters_and_gauges_of_processes_add_up_and_the_worst_lag_counts():
    one, other = {ROWS: [2], LAG: [0.1], LIMIT: [10]}, {ROWS: [3], LAG: [0.3], LIMIT: [20]}

    assert merge([one, other]) == {ROWS: [5], LAG: [0.3], LIMIT: [30]}


def test_the_text_is_what_prometheus_reads():
    histogram = Histogram()
    for seconds in (0.0001, 0.0005, 0.0006, 0.03, 9.0):
        histogram.observe(seconds)
    samples = {ROWS: [7], LAG: [0.25], ("hopgate_dependency_seconds", ("store",)): histogram.values}

    got = parsed(prometheus.text(samples))

    store = ("dependency", "store")
    assert got["hopgate_shed_total", (("kind", "list"),)] == 7
    assert got["hopgate_event_loop_lag_seconds", ()] == 0.25
    buckets = [got["hopgate_dependency_seconds_bucket", (store, ("le", repr(b)))] for b in BUCKETS_S]
    assert buckets == [2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4]
    assert got["hopgate_dependency_seconds_bucket", (store, ("le", "+Inf"))] == 5
    assert got["hopgate_dependency_seconds_count", (store,)] == 5
    assert got["hopgate_dependency_seconds_sum", (store,)] == pytest.approx(9.0312)


# --- several processes -------------------------------------------------------------------


@pytest.fixture
def wall(monotonic):
    return monotonic


def test_whoever_is_asked_answers_for_all(tmp_path, wall):
    one, other = (SharedSamples(tmp_path, clock=wall) for _ in range(2))
    one.write({ROWS: [2], LIMIT: [10]})
    other.write({ROWS: [3], LIMIT: [20]})

    assert one.read() == other.read() == {ROWS: [5], LIMIT: [30]}
    one.close({})
    other.close({})


def test_a_lock_in_use_does_not_look_forgotten(tmp_path, wall):
    """What tidies up /tmp removes files of ten days ago; without its lock, a place would be taken twice."""
    shared = SharedSamples(tmp_path, clock=wall)
    os.utime(tmp_path / "0.lock", (0, 0))

    shared.write({ROWS: [2]})

    assert time.time() - (tmp_path / "0.lock").stat().st_mtime < 60
    shared.close({})


def test_a_successor_goes_on_counting_and_takes_no_gauge_over(tmp_path, wall):
    """The predecessor is killed: it closes nothing, its lock goes with it."""
    one = SharedSamples(tmp_path, clock=wall)
    one.write({ROWS: [2], LIMIT: [10]})
    one._lock.close()

    successor = SharedSamples(tmp_path, clock=wall)
    successor.write({ROWS: [1], LIMIT: [5]})

    assert successor.read() == {ROWS: [3], LIMIT: [5]}
    assert len(list(tmp_path.glob("*.json"))) == 1
    successor.close({})


def test_the_gauges_of_a_dead_process_fade_and_its_counters_stay(tmp_path, wall):
    living, dead = (SharedSamples(tmp_path, clock=wall) for _ in range(2))
    dead.write({ROWS: [2], LIMIT: [10]})
    dead._lock.close()
    wall.now += 5
    living.write({ROWS: [1], LIMIT: [5]})

    assert living.read() == {ROWS: [3], LIMIT: [5]}
    living.close({})


def test_a_file_that_was_cut_off_is_passed_over(tmp_path, wall):
    """Our own are renamed into place; this one is somebody else's, or the disk's."""
    one = SharedSamples(tmp_path, clock=wall)
    one.write({ROWS: [2]})
    (tmp_path / "9.json").write_text('{"written_at": 1')

    assert one.read() == {ROWS: [2]}
    one.close({})


async def test_a_folder_that_is_gone_is_said_and_stops_nothing(tmp_path, wall):
    folder = tmp_path / "gone"
    folder.mkdir()
    one = SharedSamples(folder, clock=wall)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

    metrics = Metrics([lambda: {ROWS: [1]}], one)
    running = asyncio.create_task(metrics.run())
    answers = await asyncio.gather(*(metrics.answer() for _ in range(3)))

    assert {answer.status for answer in answers} == {503}
    assert not running.done()
    running.cancel()
    metrics.close()


async def test_scrapes_and_writes_do_not_meet(tmp_path):
    counted = itertools.count(1)
    metrics = Metrics([lambda: {ROWS: [next(counted)]}], SharedSamples(tmp_path, clock=time.time))

    answers = await asyncio.gather(*(metrics.answer() for _ in range(100)))

    values = [parsed(answer.body)["hopgate_shed_total", (("kind", "list"),)] for answer in answers]
    assert values == sorted(values) == list(range(1, 101))
    metrics.close()


def test_all_samples_of_a_process_survive_being_written(tmp_path, wall):
    own = merge([guard_samples(Guards().snapshot()), Timings("store").samples(), {ROWS: [1], LAG: [0.1]}])
    one = SharedSamples(tmp_path, clock=wall)
    one.write(own)

    assert one.read() == own
    one.close({})


# --- timing ------------------------------------------------------------------------------


class Dependency:
    async def ask(self, answer):
        if answer is None:
            raise Unavailable("dependency", "away")
        return answer

    async def ping(self): ...

    def start(self):
        return "started"


async def test_calls_are_timed_and_failures_counted():
    ticks = iter([0.0, 0.002, 1.0, 1.5])
    timings = Timings("store")
    dependency = timed(Dependency(), timings, clock=lambda: next(ticks))

    assert await dependency.ask(1) == 1
    with pytest.raises(Unavailable):
        await dependency.ask(None)
    await dependency.ping()
    assert dependency.start() == "started"

    assert timings.failures == 1
    assert sum(timings.seconds.values[:-1]) == 1
    assert timings.seconds.values[-1] == pytest.approx(0.002)


# --- a gateway ---------------------------------------------------------------------------


async def scrape(application: Application) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = await application.ask("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return parsed(answer.body)


def redirects(got, source: str, status: str) -> float:
    return got.get(("hopgate_redirects_total", (("source", source), ("status", status))), 0)


async def test_every_visit_is_counted_once(application):
    link = (await application.services.links.create(LinkFields(long_url="https://example.com/"))).link
    off = await application.services.links.create(LinkFields(long_url="https://example.com/", enabled=False))
    for _ in range(10):
        await application.status(f"/{link.slug}")
        await application.status(f"/{off.link.slug}")
        await application.status("/unknown")
        await application.status("/x")  # no slug: never looked up

    got = await scrape(application)

    assert [redirects(got, "look_up", status) for status in ("3xx", "410", "404")] == [1, 1, 11]
    assert [redirects(got, "memory", status) for status in ("3xx", "410", "404")] == [9, 9, 9]
    total = sum(value for (name, _), value in got.items() if name == "hopgate_redirects_total")
    assert total == 40
    look_ups = {labels[0][1]: value for (name, labels), value in got.items() if "look_ups_total" in name}
    assert sum(look_ups.values()) == 3
    assert look_ups["failed"] == 0
    assert got["hopgate_first_cache_entries", ()] == 3
    assert got["hopgate_processes", ()] == 1


async def test_refusals_are_counted_by_why(application):
    application.press(10_000)
    assert await application.status("/api/v1/links") == 503
    assert await application.status("/unknown") == 503
    application.press(0)
    for i in range(70):
        await application.status(f"/unknown-{i}")

    got = await scrape(application)

    assert got["hopgate_shed_total", (("kind", "list"),)] == 1
    assert got["hopgate_shed_total", (("kind", "look_up"),)] == 1
    assert redirects(got, "look_up", "503") == 1
    assert redirects(got, "look_up", "429") == got["hopgate_limited_total", (("policy", "not_found"),)] == 10


async def test_metrics_are_answered_however_much_there_is_to_do(application):
    application.press(10_000)

    assert (await scrape(application))["hopgate_admission_in_flight", ()] == 10_000


async def test_nothing_that_a_client_chooses_becomes_a_series(application):
    async def visit(numbers) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        for i in numbers:
            await application.status(f"/unknown-{i}")
            await application.status(f"/api/v1/links/{i}")
            await asyncio.sleep(0)
        return set(await scrape(application))

    before = await visit(range(1))
    after = await visit(range(1, 1_000))

    assert after == before
    assert all(
        name.removesuffix("_total") in FAMILIES for name, _ in after if "dependency_seconds" not in name
    )
    assert not [series for series in after if "unknown-" in str(series) or "198.51" in str(series)]


async def test_the_shared_file_is_written_without_being_asked(tmp_path):
    shared = SharedSamples(tmp_path, clock=time.time)
    metrics = Metrics([lambda: {ROWS: [4]}], shared)
    running = asyncio.create_task(metrics.run())

    while not shared.read():
        await asyncio.sleep(0.01)

    running.cancel()
    assert shared.read() == {ROWS: [4]}
    metrics.close()
