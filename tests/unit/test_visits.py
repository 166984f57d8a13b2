"""What visits look like: which values a request has, and that no address leaves the process."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.adapters.places import MmdbPlaces, NoPlaces
from app.adapters.sketches import count, merge
from app.adapters.user_agents import UserAgents
from app.domain.errors import SettingsError, Unavailable
from app.domain.link import Slug
from app.domain.visits import MAX_VALUES, OTHER, Agent, Dimension, Kind, Look, Place
from app.service.visits import (
    VisitDescriber,
    VisitNotes,
    VisitorKeys,
    campaign,
    language,
    referrer,
    visitor,
)
from app.web.look import look_of
from app.wire import decode_event, encode_event

NOON = datetime(2030, 1, 31, 12, 34, tzinfo=UTC)
SALE = Slug("sale")
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/17.0 Mobile/15E148 Safari/604.1"
)
PIXEL = (
    "Mozilla/5.0 (Linux; Android 13; Pixel 7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/112.0.0.0"
    " Mobile Safari/537.36"
)
TABLET = PIXEL.replace("Pixel 7", "SM-X900").replace(" Mobile", "")
EDGE = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/91.0.4472.124"
    " Safari/537.36 Edg/91.0.864.59"
)
GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


class Keys:
    """A store of visitor keys that may be away."""

    def __init__(self):
        self.keys = {}
        self.is_away = False

    async def visitor_key(self, day, proposed):
        if self.is_away:
            raise Unavailable("store", "away")
        return self.keys.setdefault(day, proposed)

    async def forget_visitor_keys(self, *, before):
        raise AssertionError


def describer(looks, *, places=None, honours=False, keys=None, agents=None, monotonic=lambda: 0.0):
    numbers = itertools.count()
    return VisitDescriber(
        looks if callable(looks) else lambda: looks,
        VisitorKeys(keys or Keys(), random=lambda size: bytes([next(numbers) % 256]) * size),
        agents or UserAgents(),
        places or NoPlaces(),
        honours_objections=honours,
        monotonic=monotonic,
        new_id=lambda: f"{next(numbers):032x}",
    )


async def take(one, now=NOON):
    one.cut(now)
    return await one.take()


async def described(*looks, **options):
    [event] = await take(describer([(look, 1) for look in looks], **options))
    assert decode_event(encode_event(event)) == event
    return event


@pytest.mark.parametrize(
    ("user_agent", "agent"),
    [
        (FIREFOX, Agent("Firefox", "Linux", "desktop")),
        (IPHONE, Agent("Mobile Safari", "iOS", "phone")),
        (PIXEL, Agent("Chrome Mobile", "Android", "phone")),
        (TABLET, Agent("Chrome", "Android", "tablet")),
        (EDGE, Agent("Edge", "Windows", "desktop")),
        (GOOGLE, Agent(bot="Googlebot")),
        ("Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/slurp)", Agent(bot="Yahoo! Slurp")),
        ("Mozilla/5.0 (compatible; Qwantify/2.4w; +https://www.qwant.com/)", Agent(bot="Qwantify")),
        ("Mediapartners-Google", Agent(bot="Mediapartners-Google")),
        ("Twitterbot/1.0", Agent(bot="Twitterbot", is_preview=True)),
        ("facebookexternalhit/1.1", Agent(bot="FacebookBot", is_preview=True)),
        ("curl/8.5.0", Agent(bot="curl")),
        ("python-requests/2.31", Agent(bot="Python Requests")),
        ("Own-Tool/1", Agent(bot="Own-Tool")),
        ("", Agent(bot="unknown")),
        ("\0\ud800", Agent(bot="unknown")),
        ("Mozilla/5.0", Agent()),
        ("Mozilla/5.0 (Linux; Android 9; CUBOT_X19) Mobile", Agent(os="Android", device="phone")),
    ],
)
def test_user_agents(user_agent, agent):
    found = UserAgents().agent(user_agent)

    assert (found.bot, found.is_preview) == (agent.bot, agent.is_preview)
    assert found.device == agent.device
    if agent.browser != "unknown":
        assert (found.browser, found.os) == (agent.browser, agent.os)


@pytest.mark.parametrize(
    ("host", "value"),
    [
        ("", "direct"),
        ("News.Example", "news.example"),
        ("www.news.example", "news.example"),
        ("news.example.", "news.example"),
        ("localhost", "localhost"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("com.example.app", "com.example.app"),
        ("<script>", "unknown"),
        ("a b", "unknown"),
        ("nodots", "unknown"),
    ],
)
def test_referrers(host, value):
    assert referrer(host) == value


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        *[("de-AT", "de"), ("EN", "en"), ("gsw", "gsw")],
        *[("*", "unknown"), ("", "unknown"), ("english", "unknown")],
    ],
)
def test_languages(tag, value):
    assert language(tag) == value


async def test_values_of_people_and_of_bots():
    person = Look(slug=SALE, referrer="news.example", language="de-AT", user_agent=FIREFOX)
    event = await described(
        person,
        Look(slug=SALE, client="192.0.2.2", user_agent=GOOGLE),
        Look(slug=SALE, client="192.0.2.3", user_agent="WhatsApp/2.23"),
        Look(slug=SALE, client="192.0.2.4", user_agent=FIREFOX, is_ahead=True),
        Look(slug=Slug("other"), user_agent=FIREFOX),
    )

    assert (event.hour.hour, event.hour.minute) == (12, 0)
    sale = event.visits[SALE]
    assert sale.counts == {
        Dimension.KIND: {"person": 1, "bot": 1, "preview": 1, "prefetch": 1},
        Dimension.BOT: {"Googlebot": 1, "WhatsApp": 1},
        Dimension.REFERRER: {"news.example": 1},
        Dimension.LANGUAGE: {"de": 1},
        Dimension.BROWSER: {"Firefox": 1},
        Dimension.OS: {"Linux": 1},
        Dimension.DEVICE: {"desktop": 1},
        Dimension.COUNTRY: {"unknown": 1},
        Dimension.CITY: {"unknown": 1},
    }
    assert len(sale.visitors) == 1
    assert event.visits[Slug("other")].visitors == sale.visitors


async def test_no_address_is_published():
    canary = "203.0.113.99"
    event = await described(Look(slug=SALE, client=canary, user_agent=FIREFOX))

    assert canary.encode() not in encode_event(event)
    # Nor can the hash be made without the key.
    look = Look(slug=SALE, client=canary, user_agent=FIREFOX)
    assert visitor(b"", look) not in event.visits[SALE].visitors


async def test_visitors_have_other_hashes_on_the_next_day():
    looks = [(Look(slug=SALE, client="192.0.2.1", user_agent=FIREFOX), 1)]
    one = describer(looks)

    first, again = [(await take(one))[0] for _ in range(2)]
    [later] = await take(one, NOON + timedelta(days=1))

    assert first.visits[SALE].visitors == again.visits[SALE].visitors
    assert later.visits[SALE].visitors != first.visits[SALE].visitors


async def test_processes_share_the_key_of_a_day_once_the_store_is_back():
    keys = Keys()
    one = VisitorKeys(keys, random=lambda size: b"\1" * size)
    other = VisitorKeys(keys, random=lambda size: b"\2" * size)
    day = NOON.date()

    keys.is_away = True
    assert await one.of(day) == b"\1" * 32
    keys.is_away = False
    assert await other.of(day) == b"\2" * 32
    assert await one.of(day) == b"\2" * 32


async def test_objections_are_honoured_if_the_operator_says_so():
    look = Look(slug=SALE, referrer="news.example", client="192.0.2.1", user_agent=FIREFOX, objects=True)

    kept = await described(look)
    left_out = await described(look, honours=True)

    assert Dimension.REFERRER in kept.visits[SALE].counts
    assert left_out.visits[SALE].counts == {Dimension.KIND: {Kind.PERSON: 1}}
    assert left_out.visits[SALE].visitors == ()


async def test_cancelled_call_loses_nothing():
    notes = VisitNotes()
    notes.note(Look(slug=SALE, user_agent=FIREFOX))
    one = describer(notes.take)

    task = asyncio.create_task(take(one))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    [event] = await take(one)
    assert event.visits[SALE].counts[Dimension.KIND] == {"person": 1}
    assert await one.take() == []


async def test_visits_count_in_the_hour_in_which_they_are_cut():
    one = describer([(Look(slug=SALE, user_agent=FIREFOX), 1)])
    one.cut(NOON)
    one.cut(NOON + timedelta(hours=1))

    assert [event.hour.hour for event in await one.take()] == [12, 13]


async def test_a_visit_that_cannot_be_read_holds_up_no_other():
    class Broken:
        def agent(self, user_agent):
            if user_agent == "broken":
                raise RuntimeError("a rule has failed")
            return Agent()

    looks = [(Look(slug=SALE, user_agent="broken"), 3), (Look(slug=SALE, user_agent=FIREFOX), 1)]
    one = describer(looks, agents=Broken())

    [event] = await take(one)

    assert event.visits[SALE].counts[Dimension.KIND] == {"person": 1}
    assert one.dropped == 3


async def test_reading_takes_a_bounded_time():
    looks = [(Look(slug=Slug(f"s{n}")), 1) for n in range(20)]
    noted = iter([looks, []])
    seconds = itertools.count(step=0.1)
    one = describer(lambda: next(noted), monotonic=lambda: next(seconds))

    first = await take(one)

    assert 1 <= len([slug for event in first for slug in event.visits]) < 10
    assert one.is_behind
    events = [*first, *await take(one)]
    while one.is_behind:
        events += await one.take()
    assert [slug for event in events for slug in event.visits] == [look.slug for look, _ in looks]
    assert one.dropped == 0


async def test_waiting_looks_are_bounded():
    looks = [(Look(slug=Slug(f"s{n}")), 2) for n in range(15_000)]
    one = describer(looks)

    one.cut(NOON)
    one.cut(NOON)

    assert one.dropped == 2 * 10_000


async def test_batches_fit_into_the_spool_and_lose_nothing():
    """A line of the spool has 1 MiB, and a browser can send any host."""
    wide = '\\"' * 100
    looks = [
        (
            Look(
                slug=Slug(f"s{n % 3}"),
                client=f"c{n}",
                referrer=f"{n % 500}.{wide}",
                campaign=f"utm_source={n % 500}{wide}",
            ),
            1,
        )
        for n in range(20_000)
    ]
    looks = [(replace(look, user_agent=FIREFOX), visits) for look, visits in looks]
    events, one = [], describer(looks)
    one.cut(NOON)
    while one.is_behind:
        events += await one.take()

    assert max(len(encode_event(event)) for event in events) < 1 << 20
    visitors = set()
    kinds: Counter[str] = Counter()
    for event in events:
        for slug, visits in event.visits.items():
            visitors |= {(slug, visitor) for visitor in visits.visitors}
            kinds.update(visits.counts.get(Dimension.KIND, {}))
            assert all(len(values) <= MAX_VALUES + 1 for values in visits.counts.values())
    assert len(visitors) == 20_000
    assert kinds == {"person": 20_000}


async def test_values_with_the_most_visits_are_kept():
    looks = [
        (Look(slug=SALE, referrer=f"h{n}.example", user_agent=FIREFOX), 1 + (n >= 50)) for n in range(150)
    ]

    [event] = await take(describer(looks))

    values = event.visits[SALE].counts[Dimension.REFERRER]
    assert {f"h{n}.example" for n in range(50, 150)} | {OTHER} == set(values)
    assert values[OTHER] == 50


async def test_key_of_a_store_that_hangs_is_not_waited_for():
    class Hanging(Keys):
        async def visitor_key(self, day, proposed):
            await asyncio.Event().wait()

    keys = VisitorKeys(Hanging(), random=lambda size: b"k" * size)
    async with asyncio.timeout(10):
        assert await keys.of(NOON.date()) == b"k" * 32


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("", {}),
        ("utm_source=mail&utm_campaign=Spring%20Sale", {"source": "mail", "campaign": "Spring Sale"}),
        ("utm_campaign=a&utm_medium=qr&utm_campaign=b", {"medium": "qr", "campaign": "b"}),
        ("utm_source=", {}),
        ("utm_source=%C3%BC+1", {"source": "ü 1"}),
    ],
)
def test_campaigns(parameters, told):
    assert campaign(parameters) == told


async def test_no_value_has_what_stores_refuse():
    event = await described(
        Look(slug=SALE, user_agent=FIREFOX, campaign="utm_source=a%00b&utm_medium=%FF&utm_campaign=%ED%A0%80")
    )

    for by in (Dimension.SOURCE, Dimension.MEDIUM, Dimension.CAMPAIGN):
        [value] = event.visits[SALE].counts[by]
        assert "\ufffd" in value
        assert "\0" not in value


def test_notes_are_bounded():
    notes = VisitNotes()
    for number in range(20_002):
        notes.note(Look(slug=Slug(str(number))))
    notes.note(Look(slug=Slug("1")))

    taken = dict(notes.take())
    assert (len(taken), notes.dropped) == (20_000, 2)
    assert taken[Look(slug=Slug("1"))] == 2


def test_places_of_a_file(tmp_path):
    from mmdb_writer import MMDBWriter
    from netaddr import IPSet  # type: ignore[import-untyped]

    writer = MMDBWriter(ip_version=6, ipv4_compatible=True)
    maxmind = {"country": {"iso_code": "AT"}, "city": {"names": {"en": "Vienna"}}}
    writer.insert_network(IPSet(["192.0.2.0/24", "2001:db8::/32"]), maxmind)
    writer.insert_network(IPSet(["198.51.100.0/24"]), {"country_code": "de", "city": "Berlin"})
    writer.to_db_file(str(tmp_path / "geo.mmdb"))

    places = MmdbPlaces(tmp_path / "geo.mmdb")

    assert places.place("192.0.2.1") == Place("AT", "Vienna, AT")
    assert places.place("2001:db8:1:2::/64") == Place("AT", "Vienna, AT")
    assert places.place("198.51.100.7") == Place("DE", "Berlin, DE")
    assert places.place("203.0.113.1") == Place()
    assert places.place("nonsense") == Place()
    places.close()


@pytest.mark.parametrize("content", [None, b"", b"no database"])
def test_file_that_knows_no_places_is_named(tmp_path, content):
    path = tmp_path / "geo.mmdb"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SettingsError, match=r"HOPGATE_GEO_FILE: .*geo\.mmdb"):
        MmdbPlaces(path)


def test_sketch_counts_within_two_percent():
    sketch = merge(None, ())
    for start in range(0, 100_000, 20_000):
        sketch = merge(sketch, [number * 7919 for number in range(start, start + 25_000)])

    assert abs(count([sketch]) - 105_000) < 2_100
    assert count([merge(None, [1, 2, 3]), merge(None, [3, 4])]) == 4
    assert count([]) == 0


# Read by the tests of the front as well.
LOOKS = json.loads((Path(__file__).parents[1] / "data" / "looks.json").read_text())


class Headers:
    """As granian shows them: `get` knows the first line of each, and only visible ASCII is shown."""

    def __init__(self, lines):
        self._lines = lines

    def get(self, name):
        first = next((value for key, value in self._lines if key == name), None)
        return first if first is None or first.isascii() else None

    def get_all(self, name):
        return [value for key, value in self._lines if key == name and value.isascii()]


@pytest.mark.parametrize("row", LOOKS["rows"], ids=lambda row: str(row["headers"])[:60])
def test_look_of_a_request(row):
    look = look_of("sale", row["client"], Headers(row["headers"]), row["target"], row["query"])

    assert look == Look(slug=SALE, **row["look"])


def test_address_of_ipv4_within_ipv6_is_that_of_ipv4():
    assert look_of("sale", "::ffff:192.0.2.1", Headers([])).client == "192.0.2.1"
