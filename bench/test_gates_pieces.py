"""
Performance gates for the steps of a redirect, each against a minimal implementation.

As in `test_gates`: ratios within this run, which fail when the usual ratio about doubles.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from pytest_benchmark.fixture import BenchmarkFixture

from app.adapters.native_limiter import NativeRateLimiter
from app.domain.events import LinksMissed
from app.domain.link import Resolution, Slug
from app.ports import Policy
from app.resilience.admission import AdmissionController
from app.service.clicks import ClickCounter
from app.service.l1_cache import L1Cache
from app.service.resolver import Resolver
from app.web.redirects import RedirectHandler, render
from app.web.response import Response
from app.wire import decode_event, decode_resolution, encode_event, encode_resolution
from bench.test_gates import UNUSED, ratio

SLUG = Slug("abcdefg")
TARGET = "https://example.com/a/long/path?with=query"
RESOLUTION = Resolution(SLUG, 1, TARGET)
CLIENT = "198.51.100.7"
HEADERS = [("location", TARGET), ("cache-control", "private, no-cache, max-age=0")]


@dataclass(frozen=True, slots=True)
class _Three:
    """As large as an L1 entry and as slow to create, because it is a frozen dataclass."""

    resolution: Resolution
    answer: Response
    until: float


@dataclass(frozen=True, slots=True)
class _PlainResponse:
    """The fields of a response in a frozen dataclass of the standard library."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    forward_query: bool = False
    is_visit: bool = False
    metered_version: int = 0


def _l1(monotonic: Callable[[], float]) -> L1Cache[Response]:
    l1 = L1Cache(render, monotonic=monotonic, wall=time.time)
    l1.put(RESOLUTION)
    return l1


def test_l1_answer(benchmark: BenchmarkFixture) -> None:
    """Look-up, clock and rate limit against a look-up and a clock: usually 2.9."""
    limiter = NativeRateLimiter(dict.fromkeys(Policy, "1000000000/s burst 1000000000"))
    answer_from_l1 = RedirectHandler(
        _l1(lambda: time.monotonic() + 3600),
        UNUSED,
        limiter,
        ClickCounter(),
        UNUSED,
        monotonic=time.monotonic,
    ).answer_from_l1
    entries: dict[str, _Three] = {SLUG: _Three(RESOLUTION, Response(302, HEADERS), time.monotonic() + 3600)}

    def least(slug: str, _client: str) -> Response | None:
        entry = entries.get(slug)
        return entry.answer if entry is not None and time.monotonic() < entry.until else None

    def answer() -> Response | None:
        return answer_from_l1(SLUG, CLIENT, time.monotonic())

    assert answer() is not None
    benchmark(answer)

    assert ratio(answer, lambda: least(SLUG, CLIENT)) < 5


def test_l1_get(benchmark: BenchmarkFixture) -> None:
    """Against a dictionary: usually 3.2."""
    # With a constant clock, no entry expires.
    l1, entries = _l1(itertools.repeat(0.0).__next__), {SLUG: RESOLUTION}
    benchmark(l1.get, SLUG)

    assert l1.get(SLUG) is not None
    assert ratio(lambda: l1.get(SLUG), lambda: entries.get(SLUG)) < 5.7


def test_l1_put(benchmark: BenchmarkFixture) -> None:
    """Response, entry and minimum version against three dataclasses in an OrderedDict: usually 1.7."""
    l1 = _l1(time.monotonic)
    entries: OrderedDict[str, _Three] = OrderedDict()

    def least() -> None:
        for _ in range(3):
            entries[SLUG] = _Three(RESOLUTION, Response(302, HEADERS), 0.0)
            entries.move_to_end(SLUG)

    benchmark(l1.put, RESOLUTION)

    assert ratio(lambda: l1.put(RESOLUTION), least, calls=100) < 3.2


def test_rendering(benchmark: BenchmarkFixture) -> None:
    """Against a frozen dataclass of the same fields: usually 1."""
    now = time.time()
    benchmark(render, RESOLUTION, now)

    assert ratio(lambda: render(RESOLUTION, now), lambda: _PlainResponse(302, list(HEADERS)), calls=100) < 2


def test_cache_entries_as_bytes(benchmark: BenchmarkFixture) -> None:
    """Encoding and decoding against msgspec with a dictionary of the same fields: usually 6."""
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    document = {"version": 1, "url": RESOLUTION.long_url, "code": 302}

    def round_trip() -> Resolution | None:
        return decode_resolution(SLUG, encode_resolution(RESOLUTION))

    assert round_trip() == RESOLUTION
    benchmark(round_trip)

    assert ratio(round_trip, lambda: decode(encode(document)), calls=100) < 10.5


def test_events_as_bytes(benchmark: BenchmarkFixture) -> None:
    """Encoding and decoding 100 missed slugs against msgspec with the list: usually 4."""
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    slugs = tuple(Slug(f"slug{number:04}") for number in range(100))
    event = LinksMissed(slugs)

    def round_trip() -> object:
        return decode_event(encode_event(event))

    assert round_trip() == event
    benchmark(round_trip)

    assert ratio(round_trip, lambda: decode(encode(slugs)), calls=20) < 7.5


def test_concurrent_lookups(benchmark: BenchmarkFixture) -> None:
    """64 concurrent misses, read in one batch, against 64 tasks that wait: usually 2.6."""
    slugs = [Slug(f"slug{number:04}") for number in range(64)]

    class Cache:
        """As much of a `LinkCache` as a look-up calls."""

        async def get_many(self, wanted: Sequence[Slug]) -> dict[Slug, Resolution]:
            return {slug: Resolution(slug, 1, RESOLUTION.long_url) for slug in wanted}

    async def look_up(redirects: Resolver[Response], l1: L1Cache[Response]) -> list[Response]:
        l1.on_gap()
        return await asyncio.gather(*[redirects.resolve(slug) for slug in slugs])

    async def wait(answer: asyncio.Future[None]) -> None:
        await answer

    def answer_all(answers: Sequence[asyncio.Future[None]]) -> None:
        for answer in answers:
            answer.set_result(None)

    async def least() -> list[None]:
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in slugs]
        loop.call_soon(answer_all, answers)
        return await asyncio.gather(*map(wait, answers))

    with asyncio.Runner() as runner:
        l1 = _l1(time.monotonic)
        admission = AdmissionController(monotonic=time.monotonic)

        cache: Any = Cache()

        async def made() -> Resolver[Response]:
            return Resolver(l1, cache, UNUSED, UNUSED, admission)

        redirects = runner.run(made())
        assert [answer.status for answer in runner.run(look_up(redirects, l1))] == [302] * 64
        benchmark(lambda: runner.run(look_up(redirects, l1)))

        both = ratio(lambda: runner.run(look_up(redirects, l1)), lambda: runner.run(least()), calls=5)
        assert both < 5
