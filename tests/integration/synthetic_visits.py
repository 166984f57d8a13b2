"""Visits of known composition: requests that a gateway answers, and what statistics have to say of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

BASE, OTHER_HOST = "hop.example", "go.example"
_SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0"
_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
# What people use: the header, then browser, system and device. Even numbers are those of even people.
PROGRAMS = (
    ("Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0", "Firefox", "Linux", "desktop"),
    (
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) {_SAFARI} Mobile/15E148 Safari/604.1",
        *("Mobile Safari", "iOS", "phone"),
    ),
    (
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/120.0.0.0 Safari/537.36",
        *("Chrome", "Windows", "desktop"),
    ),
    (
        f"Mozilla/5.0 (Linux; Android 13; Pixel 7) {_WEBKIT} Chrome/120.0.0.0 Mobile Safari/537.36",
        *("Chrome Mobile", "Android", "phone"),
    ),
)
BOTS = (("curl/8.5.0", "curl"), ("Googlebot/2.1 (+http://www.google.com/bot.html)", "Googlebot"))
PREVIEWS = (("Twitterbot/1.0", "Twitterbot"), ("Slackbot-LinkExpanding 1.0", "Slackbot-LinkExpanding"))
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "ja", "zh", "ar", "sv")
# Fewer than the values that an hour counts apart, and more than a request shows unless it asks for more.
REFERRERS, COUNTRIES, CITIES, SOURCES = 80, 45, 90, 5
# More of them than the values that an hour counts apart.
CAMPAIGNS, MOST_AN_HOUR = 150, 100
# Of the addresses, one in ten is of IPv6.
_OF_IPV6 = 10
TAGS = ("spring", "sale")


@dataclass(frozen=True, slots=True)
class LinkToVisit:
    """A link by its number: its slug, the host of its domain, its tags."""

    slug: str
    host: str
    tags: Sequence[str]


def place_of(person: int) -> int:
    """Return the number of the city of *person*; the last one is in no file."""
    return int((CITIES + 1) * (person * 0.618_033_988_75 % 1) ** 2)


def country_of(place: int) -> str:
    """Return the code of the country of city *place*."""
    number = place % COUNTRIES
    return chr(ord("A") + number // 26) + chr(ord("A") + number % 26)


def address_of(person: int) -> str:
    """Return the address of *person*, which the next one shares; people of an address have other programs."""
    place, number = place_of(person), person // 2
    if number % _OF_IPV6 == 3:
        return f"2001:db8:{place + 0x4A1:x}:{number + 0x51:x}::{person % 7 + 1:x}"
    return f"10.{place + 100}.{50 + (number >> 8)}.{number * 73 + 41 & 255}"


def same_address(person: int) -> int:
    """Return the number of the first one with the address of *person*, whose place is that of both."""
    return person - person % 2


def write_places(path: Path) -> None:
    """Write a file that knows where the addresses of people are."""
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True)
    for place in range(CITIES):
        found = {"country": {"iso_code": country_of(place)}, "city": {"names": {"en": f"City {place}"}}}
        writer.insert_network(IPSet([f"10.{place + 100}.0.0/16", f"2001:db8:{place + 0x4A1:x}::/48"]), found)
    writer.to_db_file(str(path))


@dataclass(slots=True)
class Tally:
    """What statistics have to say of some visits: how many have each value, and who the people are."""

    visits: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    people: set[int] = field(default_factory=set)

    def add(self, other: Tally) -> None:
        """Add the visits of *other*."""
        self.visits += other.visits
        self.counts.update(other.counts)
        self.people |= other.people

    def of(self, dimension: str) -> dict[str, int]:
        """Return how many visits each value of *dimension* has."""
        return {value: visits for (name, value), visits in self.counts.items() if name == dimension}


class Composition:
    """
    Draws visits of *links* by *people*, and tells them as they are drawn.

    Eight in ten are of people, one of bots, the rest previews and prefetches. Low numbers are frequent: of
    links, people, referrers and campaigns.
    """

    def __init__(self, links: Sequence[LinkToVisit], people: int) -> None:
        self._links = links
        self._people = people
        self._random = Random(22)
        self.by_link: defaultdict[int, Tally] = defaultdict(Tally)

    def requests(self, visits: int) -> Iterator[bytes]:
        """Yield the requests of the next *visits*."""
        random = self._random.random
        for _ in range(visits):
            number = int(len(self._links) * random() ** 2)
            link, tally = self._links[number], self.by_link[number]
            kind = random()
            person = same_address(int(self._people * random() ** 2)) + (random() < 0.5)
            query, headers = self._look(tally, person, kind)
            tally.visits += 1
            lines = (
                f"GET /{link.slug}{query} HTTP/1.1",
                f"Host: {link.host}",
                f"X-Forwarded-For: {address_of(same_address(person))}",
                *headers,
            )
            yield "\r\n".join([*lines, "", ""]).encode()

    def _look(self, tally: Tally, person: int, kind: float) -> tuple[str, list[str]]:
        """Return the query and the headers of a visit, and tell what they say."""
        random = self._random.random
        language = LANGUAGES[int(len(LANGUAGES) * random() ** 2)]
        source, campaign = int(SOURCES * random()), int(CAMPAIGNS * random() ** 2)
        has_campaign = random() < 0.3
        query = f"?utm_source=s{source}&utm_campaign=c{campaign}" if has_campaign else ""
        referrer = int(REFERRERS * random() ** 2)
        headers = [f"Accept-Language: {language}-XX,en;q=0.5"]
        if referrer:
            headers.append(f"Referer: https://www.R{referrer}.example/page?x=1")
        program, browser, os, device = PROGRAMS[person % 2 + 2 * (person // 2 % 2)]
        if kind >= 0.8:
            headers += _of_others(tally, program, kind, first=random() < 0.6)
            return query, headers
        headers.append(f"User-Agent: {program}")
        place = place_of(same_address(person))
        country = country_of(place) if place < CITIES else "unknown"
        values = [
            *(("kind", "person"), ("language", language), ("browser", browser), ("os", os)),
            *(("device", device), ("referrer", f"r{referrer}.example" if referrer else "direct")),
            *(("country", country), ("city", f"City {place}, {country}" if place < CITIES else "unknown")),
        ]
        if has_campaign:
            values += [("source", f"s{source}"), ("campaign", f"c{campaign}")]
        for value in values:
            tally.counts[value] += 1
        tally.people.add(person)
        return query, headers

    def told(self, *, host: str | None = None, tag: str | None = None) -> Tally:
        """Return what statistics have to say of all visits, or of those of a host or a tag."""
        whole = Tally()
        for number, tally in self.by_link.items():
            link = self._links[number]
            if host in (None, link.host) and (tag is None or tag in link.tags):
                whole.add(tally)
        return whole


def _of_others(tally: Tally, program: str, kind: float, *, first: bool) -> list[str]:
    """Return the headers of a program that is of no person, or of a prefetch, and tell what they say."""
    if kind >= 0.96:
        tally.counts["kind", "prefetch"] += 1
        return [f"User-Agent: {program}", "Sec-Purpose: prefetch"]
    is_bot = kind < 0.9
    agent, name = (BOTS if is_bot else PREVIEWS)[0 if first else 1]
    tally.counts["kind", "bot" if is_bot else "preview"] += 1
    tally.counts["bot", name] += 1
    return [f"User-Agent: {agent}"]


def check(shown: dict[str, Any], told: Tally, *, days: int, hours: int, within: float) -> None:
    """
    Check that statistics say of some visits what they have to; they named 250 values of each dimension.

    Args:
        days, hours: how many of them the visits lie in. A visitor counts once a day.
        within: how far the number of visitors may be off.
    """
    kinds = {"people": "person", "bots": "bot", "previews": "preview", "prefetches": "prefetch"}
    right = told.of("kind")
    assert {name: shown[name] for name in kinds} == {name: right.get(kind, 0) for name, kind in kinds.items()}
    for dimension in (
        *("referrer", "country", "city", "language", "browser", "os", "device", "source", "bot"),
    ):
        assert {one["value"]: one["visits"] for one in shown[dimension]} == told.of(dimension), dimension
    assert shown["medium"] == []
    _check_beyond(shown["campaign"], told.of("campaign"), MOST_AN_HOUR * hours)
    people = len(told.people)
    assert (1 - within) * people <= shown["visitors"] <= (1 + within) * days * people


def _check_beyond(found: Sequence[dict[str, Any]], right: dict[str, int], most: int) -> None:
    """Check a dimension with more values than are counted apart: the sum is exact, no value has too many."""
    named = {one["value"]: one["visits"] for one in found}
    others = named.pop("", 0)
    assert sum(named.values()) + others == sum(right.values())
    assert len(named) <= most
    assert all(visits <= right[name] for name, visits in named.items())
