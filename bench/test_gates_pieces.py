"""
Gates for the pieces of a redirect, each beside the least that could do its work.

As in `test_gates`: ratios of this run, which fail when a usual figure about doubles.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import pytest

from app.adapters.gate_native import NativeGate
from app.domain.events import LinksMissed
from app.domain.link import Resolution, Slug
from app.ports import Policy
from app.resilience.admission import Admission
from app.service.admission import Entrance
from app.service.clicks import ClickCounter
from app.service.hot_links import HotLinks
from app.service.redirects import Redirects
from app.web.answer import Answer
from app.web.redirect import RedirectLane, render
from app.wire import decode_event, decode_resolution, encode_event, encode_resolution
from bench.test_gates import ratio

SLUG = Slug("abcdefg")
RESOLUTION = Resolution(SLUG, 1, "https://example.com/a/long/path?with=query")
CLIENT = "198.51.100.7"
HEADERS = [("location", RESOLUTION.long_url), ("cache-control", "private, no-cache, max-age=0")]


@dataclass(frozen=True, slots=True)
class _Three:
    """As large as an entry, and made as slowly: that is the price of frozen dataclasses."""

    resolution: Resolution
    answer: Answer
    until: float


@dataclass(frozen=True, slots=True)
class _PlainAnswer:
    """The fields of an answer in a frozen dataclass of the standard library."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    forward_query: bool = False
    is_visit: bool = False
    metered_version: int = 0


def _hot(monotonic: Callable[[], float]) -> HotLinks[Answer]:
    hot = HotLinks(render, monotonic=monotonic, wall=time.time)
    hot.put(RESOLUTION)
    return hot


def test_answering_from_the_first_cache(benchmark: pytest.FixtureRequest) -> None:
    """Look-up, clock and limiter beside a look-up and a clock: usually 2.9."""
    gate = NativeGate(dict.fromkeys(Policy, "1000000000/s burst 1000000000"))
    answer_hot = RedirectLane(
        _hot(lambda: time.monotonic() + 3600), None, gate, ClickCounter(), None, monotonic=time.monotonic
    ).answer_hot
    entries = {SLUG: _Three(RESOLUTION, Answer(302, HEADERS), time.monotonic() + 3600)}

    def least(slug: str, _client: str) -> Answer | None:
        entry = entries.get(slug)
        return entry.answer if entry is not None and time.monotonic() < entry.until else None

    assert answer_hot(SLUG, CLIENT) is not None
    benchmark(answer_hot, SLUG, CLIENT)

    assert ratio(lambda: answer_hot(SLUG, CLIENT), lambda: least(SLUG, CLIENT)) < 5


def test_first_cache_get(benchmark: pytest.FixtureRequest) -> None:
    """Beside a dictionary: usually 3.2."""
    # A clock that stands still: nothing gets old.
    hot, entries = _hot(itertools.repeat(0.0).__next__), {SLUG: RESOLUTION}
    benchmark(hot.get, SLUG)

    assert hot.get(SLUG) is not None
    assert ratio(lambda: hot.get(SLUG), lambda: entries.get(SLUG)) < 5.7


def test_first_cache_put(benchmark: pytest.FixtureRequest) -> None:
    """The answer, the entry and the floor, beside three dataclasses in an ordered dictionary: usually 1.7."""
    hot = _hot(time.monotonic)
    entries: OrderedDict[str, _Three] = OrderedDict()

    def least() -> None:
        for _ in range(3):
            entries[SLUG] = _Three(RESOLUTION, Answer(302, HEADERS), 0.0)
            entries.move_to_end(SLUG)

    benchmark(hot.put, RESOLUTION)

    assert ratio(lambda: hot.put(RESOLUTION), least, calls=5_000) < 3.2


def test_rendering(benchmark: pytest.FixtureRequest) -> None:
    """Beside making a frozen dataclass of the same fields: usually 1."""
    now = time.time()
    benchmark(render, RESOLUTION, now)

    assert ratio(lambda: render(RESOLUTION, now), lambda: _PlainAnswer(302, list(HEADERS)), calls=5_000) < 2


def test_cache_entries_as_bytes(benchmark: pytest.FixtureRequest) -> None:
    """To bytes and back, beside msgspec with a dictionary of the same fields: usually 6."""
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    document = {"version": 1, "url": RESOLUTION.long_url, "code": 302}

    def there_and_back() -> Resolution | None:
        return decode_resolution(SLUG, encode_resolution(RESOLUTION))

    assert there_and_back() == RESOLUTION
    benchmark(there_and_back)

    assert ratio(there_and_back, lambda: decode(encode(document)), calls=5_000) < 10.5


def test_events_as_bytes(benchmark: pytest.FixtureRequest) -> None:
    """A hundred missed slugs to bytes and back, beside msgspec with the list: usually 4."""
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    slugs = tuple(Slug(f"slug{number:04}") for number in range(100))
    event = LinksMissed(slugs)

    def there_and_back() -> object:
        return decode_event(encode_event(event))

    assert there_and_back() == event
    benchmark(there_and_back)

    assert ratio(there_and_back, lambda: decode(encode(slugs)), calls=2_000) < 7.5


def test_look_ups_of_concurrent_visitors(benchmark: pytest.FixtureRequest) -> None:
    """64 visitors who miss 64 links, read in one batch, beside 64 tasks that wait: usually 2.6."""
    slugs = [Slug(f"slug{number:04}") for number in range(64)]

    class Cache:
        async def get_many(self, wanted: Sequence[Slug]) -> dict[Slug, Resolution]:
            return {slug: Resolution(slug, 1, RESOLUTION.long_url) for slug in wanted}

    async def look_up(redirects: Redirects[Answer], hot: HotLinks[Answer]) -> list[Answer]:
        hot.on_gap()
        return await asyncio.gather(*[redirects.resolve(slug) for slug in slugs])

    async def wait(answer: asyncio.Future[None]) -> None:
        await answer

    async def least() -> list[None]:
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in slugs]
        loop.call_soon(lambda: [answer.set_result(None) for answer in answers])
        return await asyncio.gather(*map(wait, answers))

    with asyncio.Runner() as runner:
        hot = _hot(time.monotonic)
        entrance = Entrance(Admission(), monotonic=time.monotonic)

        async def made() -> Redirects[Answer]:
            return Redirects(hot, Cache(), None, None, entrance)

        redirects = runner.run(made())
        assert [answer.status for answer in runner.run(look_up(redirects, hot))] == [302] * 64
        benchmark(lambda: runner.run(look_up(redirects, hot)))

        both = ratio(
            lambda: runner.run(look_up(redirects, hot)), lambda: runner.run(least()), calls=5, rounds=200
        )
        assert both < 5
