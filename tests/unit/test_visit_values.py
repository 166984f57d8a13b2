"""Values that visits have, of their browser, referrer, campaign and place; and how visitors are counted."""

from __future__ import annotations

import pytest

from app.adapters.places import MmdbPlaces
from app.adapters.sketches import count, merge
from app.adapters.user_agents import UserAgents
from app.domain.errors import SettingsError
from app.domain.visits import Agent, Place
from app.service.visits import campaign, language, referrer
from tests.unit.visitors import EDGE, FIREFOX, GOOGLE, IPHONE, PIXEL, TABLET


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
