"""Every request is counted once, by route, method and status, whatever becomes of it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest

from app.concurrency.expiry import Expiry
from app.domain.link import LinkFields
from app.telemetry import families
from app.telemetry.buckets import BUCKETS_S, COARSE_S, FINE_S
from app.telemetry.requests import RequestMetrics
from tests.unit.exposition import samples
from tests.unit.whole_application import Application, Headers, Protocol, Scope

Series = tuple[str, frozenset[tuple[str, str]]]


async def scrape(application: Application) -> dict[Series, float]:
    text = (await application.services.metrics.text()).decode()
    return {(one.name, frozenset(one.labels.items())): one.value for one in samples(text)}


def by_labels(got: dict[Series, float], name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """The sums of the series of *name* that are not zero, by *labels*."""
    sums: Counter[tuple[str, ...]] = Counter()
    for (one, values), value in got.items():
        if one == name and value:
            sums[tuple(dict(values)[label] for label in labels)] += int(value)
    return sums


@pytest.fixture
async def slug(application):
    made = await application.services.links.create(LinkFields(long_url="https://example.com/"))
    return made.link.slug


async def test_redirects_are_counted_with_and_without_a_look_up(application, slug):
    for _ in range(5):
        await application.status(f"/{slug}")
    await application.status(f"/{slug}", "HEAD")
    await application.status("/unknown")
    await application.status("/unknown")
    await application.status("/x.y")

    got = await scrape(application)

    redirect = "/{slug}"
    assert by_labels(got, "http_server_requests_total", "route", "method", "status") == {
        (redirect, "GET", "302"): 5,
        (redirect, "HEAD", "302"): 1,
        (redirect, "GET", "404"): 3,
    }
    assert by_labels(got, "http_server_request_duration_seconds_count", "route", "method", "status") == {
        (redirect, "GET", "3xx"): 5,
        (redirect, "HEAD", "3xx"): 1,
        (redirect, "GET", "4xx"): 3,
    }
    layers = by_labels(got, "hopgate_layer_requests_total", "layer", "result")
    assert (layers["l1", "hit"], layers["l1", "miss"]) == (6, 3)
    # The malformed slug is looked up nowhere. The link may be in the cache already.
    assert layers["cache", "hit"] + layers["cache", "miss"] == 2
    assert layers["store", "hit"] + layers["store", "miss"] == layers["cache", "miss"]
    assert layers["store", "miss"] == 1


async def test_l1_hits_and_misses_are_all_redirects(application, slug):
    for path in [f"/{slug}", "/unknown", f"/{slug}", "/x.y", "/unknown"] * 20:
        await application.status(path)

    got = await scrape(application)

    by_result = by_labels(got, "hopgate_layer_requests_total", "layer", "result")
    redirects = sum(by_labels(got, "hopgate_redirects_total", "status").values())
    assert by_result["l1", "hit"] + by_result["l1", "miss"] == redirects == 100


async def test_each_status_is_counted_as_it_was_sent(application, slug, monkeypatch):
    """The counts are those of the answers, and each answer is in one bucket of a histogram."""
    sent: Counter[str] = Counter()

    async def ask(path: str, method: str = "GET", headers: Headers | None = None) -> None:
        protocol, scope = Protocol(), Scope(method, path)
        if headers is not None:
            scope.headers = headers
        await application._rsgi.__rsgi__(scope, protocol)
        sent[str(protocol.status)] += 1

    for path in ("/unknown", f"/{slug}", "/api/v1/links", "/healthz", "/a/b/c", "/robots.txt"):
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "BREW", "POST"):
            await ask(path, method)
    await ask("/new", headers=Headers())  # no host
    await ask("/a/b", "POST", headers=Headers())
    for i in range(70):  # over the not-found limit
        await ask(f"/unknown-{i}")
    application.press(10_000)
    await ask("/unseen")
    await ask("/api/v1/links")
    application.press(0)

    async def fails(*_args, **_options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(application.services.redirects, "answer", fails)
    await ask("/unseen")

    got = await scrape(application)

    counted = by_labels(got, "http_server_requests_total", "status")
    assert {status: counted[status,] for status in sent} == sent
    assert {"200", "302", "400", "401", "404", "405", "429", "500", "503"} <= sent.keys()
    classes = by_labels(got, "http_server_request_duration_seconds_count", "status")
    assert classes == Counter(
        {(f"{digit}xx",): sum(n for status, n in sent.items() if status[0] == digit) for digit in "2345"}
    )
    everything = [
        (name, labels) for name, labels in got if name == "http_server_request_duration_seconds_bucket"
    ]
    assert sum(got[one] for one in everything if ("le", "+Inf") in one[1]) == sum(sent.values())
    assert by_labels(got, "http_server_requests_total", "method")["_OTHER",] == 6
    assert by_labels(got, "http_server_requests_total", "route")["unknown",] == 6 + 1


async def test_request_in_flight_is_seen_and_counted_when_cancelled(application):
    resolver = application.services.redirects._resolver
    begun = asyncio.Event()

    async def never(_slug):
        begun.set()
        await asyncio.Event().wait()

    resolver.resolve = never
    # The metrics may take longer than a redirect is given.
    application.services.redirects._expiry = Expiry(60)
    asking = asyncio.create_task(application.ask("/unseen"))
    await begun.wait()

    active: Series = ("http_server_active_requests", frozenset())
    assert (await scrape(application))[active] == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    got = await scrape(application)
    assert got[active] == 0
    assert by_labels(got, "http_server_requests_total", "route", "method", "status") == {
        ("/{slug}", "GET", "499"): 1
    }


async def test_answer_that_cannot_be_sent_is_counted(application, slug):
    class Gone(Protocol):
        def response_empty(self, status, headers):
            raise RuntimeError("the client is gone")

    with pytest.raises(RuntimeError, match="gone"):
        await application._rsgi.__rsgi__(Scope("GET", f"/{slug}"), Gone())

    got = await scrape(application)
    assert by_labels(got, "http_server_requests_total", "status") == {("302",): 1}
    assert got["http_server_active_requests", frozenset()] == 0


async def test_every_usual_series_is_there_from_the_start(application, slug):
    """A series that appears with its first event hides that event from `rate`."""
    before = set(await scrape(application))

    await application.status(f"/{slug}")
    await application.status("/unknown")
    await application.status(f"/{slug}", "HEAD")
    await application.status("/api/v1/links/x")
    await application.status("/a/b/c")
    for method in ("PUT", "BREW", "OPTIONS"):
        await application.status("/a/b/c", method)
    await application.status("/healthz")
    application.press(10_000)
    await application.status("/api/v1/links")

    added = set(await scrape(application)) - before
    assert {name.rpartition("_")[0] for name, _ in added} == {"http_server_request_duration_seconds"}
    assert ("route", "/{slug}") not in {label for _, labels in added for label in labels}
    requests = [labels for name, labels in before if name == "http_server_requests_total"]
    assert frozenset({("route", "/{slug}"), ("method", "GET"), ("status", "503")}) in requests
    assert frozenset({("route", "/healthz"), ("method", "DELETE"), ("status", "405")}) in requests


async def test_durations_are_those_of_routes_that_are_used(application, slug):
    """Zeros of all the others were nine tenths of what a scrape reads."""
    name = "http_server_request_duration_seconds_count"
    await application.status(f"/{slug}")
    await application.status("/healthz")

    counted = {labels: value for (of, labels), value in (await scrape(application)).items() if of == name}

    assert counted[frozenset({("route", "/healthz"), ("method", "GET"), ("status", "2xx")})] == 1
    others = {labels for labels, count in counted.items() if not count}
    assert {dict(labels)["route"] for labels in others} == {"/{slug}"}
    assert {dict(labels)["status"] for labels in others} >= {"4xx", "5xx"}


@pytest.mark.timeout(120)
async def test_clients_cannot_make_series(application, slug):
    """A hundred thousand slugs, paths, methods, agents and keys have the series of one."""

    async def visit(numbers: range) -> None:
        for i in numbers:
            method = f"X{i}" if i % 5 == 1 else "GET"
            path = (f"/s{i}", f"/p{i}", f"/a/{i}", f"/api/v1/links/s{i}", f"/api/v1/x{i}/y")[i % 5]
            scope = Scope(method, path)
            scope.headers |= {"user-agent": [f"agent {i}"], "authorization": [f"Bearer hg_{i}"]}
            scope.client = f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:1"
            await application._rsgi.__rsgi__(scope, Protocol())

    async def at_once() -> None:
        """Answer 404 without the delay that slows down guessing."""

    application._rsgi._tarpit.hold = at_once
    application.press(10_000)  # what needs a look-up is shed
    await visit(range(10))
    before = set(await scrape(application))

    await visit(range(10, 100_000))

    after = await scrape(application)
    assert set(after) == before
    assert sum(by_labels(after, "http_server_requests_total", "route").values()) == 100_000


def test_narrow_buckets_of_redirects():
    """Neighbours are at most a quarter apart where redirects are answered, and begin at 10 µs."""
    narrow = [bound for bound in FINE_S if 0.00005 <= bound <= 1]

    assert FINE_S[0] == COARSE_S[0] == 0.00001
    assert max(after / before for before, after in itertools.pairwise(narrow)) <= 1.25 + 1e-9
    assert (narrow[0], narrow[-1]) == (0.00005, 1.0)
    assert list(FINE_S) == sorted(set(FINE_S))
    # A sum over all routes is exact at the coarse bounds.
    assert set(COARSE_S) <= set(FINE_S)
    assert list(BUCKETS_S) == sorted(set(BUCKETS_S))


def test_duration_is_in_the_bucket_of_its_bound():
    """`le` is less or equal: a duration on a bound counts below it."""
    requests = RequestMetrics()
    for seconds in (0.000005, 0.00005, 0.000051, 100.0):
        requests.observe("/{slug}", "GET", 302, seconds)

    values = requests.samples()[families.HTTP_SECONDS.of("/{slug}", "GET", "3xx")]

    assert [i for i, count in enumerate(values[:-1]) if count] == [0, 2, 3, len(FINE_S)]
    assert values[-1] == pytest.approx(100.000106)


def test_whole_microseconds_become_buckets_once():
    requests = RequestMetrics()
    for step, count in ((0, 1), (49, 2), (50, 4), (1_999, 8)):
        requests.steps[302][step] += count
    series = families.HTTP_SECONDS.of("/{slug}", "GET", "3xx")

    first, again = (requests.samples()[series] for _ in range(2))

    assert first == again
    at = [FINE_S.index(bound) for bound in (0.00001, 0.00005, 0.00006, 0.002)]
    assert [(i, count) for i, count in enumerate(first[:-1]) if count] == list(
        zip(at, (1, 2, 4, 8), strict=True)
    )
    assert first[-1] == pytest.approx(0.0000005 + 2 * 0.0000495 + 4 * 0.0000505 + 8 * 0.0019995)
    # Every bound in the range of the steps is a whole number of them.
    assert all(abs(bound * 1e6 - round(bound * 1e6)) < 1e-6 for bound in FINE_S if bound <= 0.002)


async def test_layers_that_do_not_answer_are_told_apart(application):
    from app.domain.errors import Unavailable

    async def away(_slugs):
        raise Unavailable("cache", "away")

    resolver = application.services.redirects._resolver
    resolver._cache = replace_method(resolver._cache, "get_many", away)
    resolver._store = replace_method(resolver._store, "resolve", away)

    assert await application.status("/unseen") == 503

    got = await scrape(application)
    assert by_labels(got, "hopgate_layer_requests_total", "layer", "result") == {
        ("l1", "miss"): 1,
        ("cache", "failed"): 1,
        ("store", "failed"): 1,
    }


def replace_method(port, name, method):
    class Replaced:
        def __getattr__(self, other):
            return method if other == name else getattr(port, other)

    return Replaced()
