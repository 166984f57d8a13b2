"""The figures of one page, from two sets of samples."""

from __future__ import annotations

from bisect import bisect_left
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.telemetry import families
from app.telemetry.overview import Breaker, Overview, Percentiles, Queue, overview, quantile
from app.telemetry.samples import Durations, Samples

NONE = Percentiles(None, None, None)
REDIRECT = families.HTTP_SECONDS.of("/{slug}", "GET", "3xx")
API = families.HTTP_SECONDS.of("/api/v1/links/{slug}", "GET", "2xx")
CREATE = families.HTTP_SECONDS.of("/api/v1/links", "POST", "2xx")
SCRAPE = families.HTTP_SECONDS.of("/metrics", "GET", "2xx")


def durations(series, *seconds: float) -> list[float]:
    family, labels = series
    counted = Durations(family.bounds_of(labels))
    for one in seconds:
        counted.observe(one)
    return counted.values


def requests(status: str, route: str = "/{slug}"):
    return families.HTTP_REQUESTS.of(route, "GET", status)


def test_rates_are_per_second_of_the_time_between():
    before: Samples = {
        requests("302"): [100],
        requests("500", "/api/v1/links"): [1],
        families.REDIRECTS.of("memory", "3xx"): [90],
        families.LIMITED.of("api"): [5],
        families.SHED.of("list"): [0],
        families.PROCESS_CPU.of(): [10.0],
    }
    after: Samples = {
        requests("302"): [300],
        requests("500", "/api/v1/links"): [2],
        requests("503", "/api/v1/links"): [1],
        families.REDIRECTS.of("memory", "3xx"): [190],
        families.REDIRECTS.of("look_up", "3xx"): [10],
        families.REDIRECTS.of("look_up", "404"): [1000],
        families.LIMITED.of("api"): [7],
        families.LIMITED.of("redirect"): [0],
        families.SHED.of("list"): [4],
        families.SHED.of("write"): [2],
        families.PROCESS_CPU.of(): [10.5],
    }

    seen = overview(before, after, 2.0)

    assert seen.seconds == 2
    assert seen.requests_per_s == (200 + 1 + 1) / 2
    assert seen.redirects_per_s == (100 + 10) / 2
    assert seen.server_errors_per_s == (1 + 1) / 2
    assert seen.limited_per_s == {"api": 1, "redirect": 0}
    assert seen.shed_per_s == 3
    assert seen.cpu == 0.25


def test_a_counter_that_fell_has_grown_by_its_value():
    assert overview({requests("302"): [1000]}, {requests("302"): [30]}, 1).requests_per_s == 30


def test_a_histogram_of_which_one_bucket_fell_began_anew():
    """Its other buckets may be higher than before all the same."""
    before: Samples = {REDIRECT: durations(REDIRECT, 0.2, 0.2)}
    after: Samples = {REDIRECT: durations(REDIRECT, 0.00006, 0.00006, 0.00006)}

    seen = overview(before, after, 1).redirect_latency.p99_s

    assert seen is not None
    assert 0.00005 < seen <= 0.0000625


def test_latency_is_of_the_time_between_and_of_its_routes():
    before: Samples = {REDIRECT: durations(REDIRECT, *[0.9] * 1000), API: durations(API, 0.9)}
    after: Samples = {
        REDIRECT: durations(REDIRECT, *[0.9] * 1000, *[0.0024] * 100),
        API: durations(API, 0.9, 0.03),
        CREATE: durations(CREATE, *[0.2] * 3),
        SCRAPE: durations(SCRAPE, *[9.0] * 100),
    }

    seen = overview(before, after, 1)

    redirect, api = seen.redirect_latency, seen.api_latency
    assert redirect.p50_s == pytest.approx(0.002 + 0.0005 * 0.5)
    assert redirect.p95_s == pytest.approx(0.002 + 0.0005 * 0.95)
    assert redirect.p99_s == pytest.approx(0.002 + 0.0005 * 0.99)
    # One between 25 and 50 ms, three between 100 and 250 ms.
    assert api.p50_s == pytest.approx(0.1 + 0.15 * 1 / 3)


def test_empty_histograms_have_no_percentiles():
    same: Samples = {REDIRECT: durations(REDIRECT, 0.1), API: durations(API)}

    seen = overview(same, same, 1)

    assert seen.redirect_latency == seen.api_latency == NONE


def test_hit_ratios_count_failures_as_asked():
    def layer(name: str, hit: int, miss: int, failed: int) -> Samples:
        return {
            families.LAYERS.of(name, "hit"): [hit],
            families.LAYERS.of(name, "miss"): [miss],
            families.LAYERS.of(name, "failed"): [failed],
        }

    before = layer("l1", 100, 100, 0) | layer("cache", 7, 7, 7)
    after = layer("l1", 190, 110, 0) | layer("cache", 8, 8, 9) | layer("store", 0, 0, 0)

    assert overview(before, after, 1).hit_ratios == {"l1": 0.9, "cache": 0.25, "store": None}


def test_breakers_that_are_not_closed():
    def breaker(name: str, closed: int, opened: int, half: int) -> Samples:
        return {
            families.BREAKER_STATE.of(name, "closed"): [closed],
            families.BREAKER_STATE.of(name, "open"): [opened],
            families.BREAKER_STATE.of(name, "half_open"): [half],
        }

    after = breaker("redis.read", 1, 2, 1) | breaker("postgresql.lookup", 4, 0, 0)

    assert overview({}, after, 1).breakers == (
        Breaker("redis.read", "half_open", 1),
        Breaker("redis.read", "open", 2),
    )


def test_queues_with_their_dead_letters():
    after: Samples = {
        families.QUEUE_MESSAGES.of("hopgate.cache", "ready"): [3],
        families.QUEUE_MESSAGES.of("hopgate.cache", "unacknowledged"): [2],
        families.QUEUE_MESSAGES.of("hopgate.cache.dead", "ready"): [1],
        families.QUEUE_MESSAGES.of("hopgate.cache.retry.5s", "ready"): [9],
        families.QUEUE_MESSAGES.of("hopgate.clicks", "ready"): [0],
    }

    assert overview({}, after, 1).queues == (
        Queue("hopgate.cache", ready=3, unacknowledged=2, dead=1),
        Queue("hopgate.clicks", ready=0, unacknowledged=None, dead=None),
    )


def test_present_values_are_of_the_second_set():
    def gauges(by: int) -> Samples:
        return {
            families.OUTBOX_ROWS.of(): [1 * by],
            families.OUTBOX_OLDEST.of(): [0.5 * by],
            families.LIMITER_LEASED.of("api"): [10 * by],
            families.LIMITER_LEASED.of("create"): [1 * by],
            families.CLICKS_BUFFERED.of(): [7 * by],
            families.CLICKS_DROPPED.of(): [3 * by],
            families.LOOP_LAG.of(): [0.001 * by],
            families.PROCESS_MEMORY.of(): [1000 * by],
            families.PROCESSES.of(): [2 * by],
        }

    seen = overview(gauges(5), gauges(1), 1)

    assert (seen.outbox_rows, seen.outbox_oldest_s) == (1, 0.5)
    assert seen.leased_tokens == 11
    assert (seen.clicks_buffered, seen.clicks_lost) == (7, 3)
    assert (seen.loop_lag_s, seen.memory_bytes, seen.processes) == (0.001, 1000, 2)


def test_missing_series_are_unknown():
    assert overview({}, {}, 1) == Overview(
        seconds=1,
        requests_per_s=0,
        redirects_per_s=0,
        server_errors_per_s=0,
        shed_per_s=0,
        limited_per_s={},
        redirect_latency=NONE,
        api_latency=NONE,
        hit_ratios={},
        breakers=(),
        queues=(),
        outbox_rows=None,
        outbox_oldest_s=None,
        leased_tokens=None,
        clicks_buffered=None,
        clicks_lost=None,
        loop_lag_s=None,
        memory_bytes=None,
        cpu=0,
        processes=0,
    )


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_two_sets_of_one_time_have_no_rates(seconds):
    with pytest.raises(ValueError, match="different times"):
        overview({}, {}, seconds)


BOUNDS = st.lists(
    st.floats(1e-6, 1e3, allow_nan=False, allow_subnormal=False), min_size=1, max_size=20, unique=True
)
DURATIONS = st.lists(st.floats(0, 2e3, allow_nan=False), min_size=1, max_size=200)


@given(bounds=BOUNDS.map(sorted), seconds=DURATIONS, q=st.floats(0.01, 1))
def test_quantile_is_within_the_bucket_of_the_value_it_stands_for(bounds, seconds, q):
    counted = Durations(bounds)
    for one in seconds:
        counted.observe(one)

    got = quantile(q, bounds, counted.values[:-1])

    assert got is not None
    value = sorted(seconds)[ceil(q * len(seconds)) - 1]
    bucket = bisect_left(bounds, value)
    if bucket == len(bounds):
        assert got == bounds[-1]
    else:
        assert (bounds[bucket - 1] if bucket else 0) <= got <= bounds[bucket]


@given(counts=st.lists(st.integers(0, 10), min_size=5, max_size=5).filter(any))
def test_quantiles_ascend(counts):
    found = [quantile(q / 20, (1, 2, 3, 4), counts) for q in range(1, 21)]

    assert None not in found
    assert found == sorted(one for one in found if one is not None)


def test_quantile_of_nothing():
    assert quantile(0.5, (), ()) is None
    assert quantile(0.5, (1.0,), (0, 0)) is None
