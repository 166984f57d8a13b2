"""
Visits by what they look like: the dimensions that statistics count, and never an address.

A visit is described by what its request says: where it comes from, with what program, in which language. Each
value is counted by itself, in the hour in which its gateway flushes its counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from app.domain.link import Slug

# Of a value, characters: longer ones are cut.
MAX_VALUE_LENGTH = 100
# Values of a dimension that are counted apart for a link in an hour; further ones are counted as OTHER.
MAX_VALUES = 100
# No request has it as a value of its own.
OTHER = ""
# In the place of a link: all links together. No link has it as its key.
ALL_LINKS = Slug("*")
# The same by the day (UTC), once that is over: a year of hours takes seconds to add up.
ALL_LINKS_BY_DAY = Slug("*day")
# Values of a dimension that are counted apart in such a day; further ones are counted as OTHER.
MAX_DAY_VALUES = 300
UNKNOWN = "unknown"
# Referrers of visits that come from no page.
DIRECT = "direct"


class Dimension(StrEnum):
    """
    What visits are counted by.

    `KIND` has every visit. `BOT` has those of bots by their names, all others have those of people alone;
    `SOURCE`, `MEDIUM` and `CAMPAIGN` those of them that name one.
    """

    KIND = "kind"
    REFERRER = "referrer"
    COUNTRY = "country"
    CITY = "city"
    LANGUAGE = "language"
    BROWSER = "browser"
    OS = "os"
    DEVICE = "device"
    SOURCE = "source"
    MEDIUM = "medium"
    CAMPAIGN = "campaign"
    BOT = "bot"


class Kind(StrEnum):
    """What makes a visit: the values of `Dimension.KIND`."""

    PERSON = "person"
    BOT = "bot"
    PREVIEW = "preview"
    PREFETCH = "prefetch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """
    What the requests of visits look like, as they were sent.

    `client` is an address or an IPv6 network, and is never stored. `objects`: the visitor asks not to be
    tracked. `is_ahead`: a browser asks before its user does. `campaign`: the `utm_` parameters of the target,
    then those of the visit's query, as they are written.
    """

    slug: Slug
    referrer: str = ""
    language: str = ""
    client: str = ""
    campaign: str = ""
    user_agent: str = ""
    objects: bool = False
    is_ahead: bool = False


@dataclass(frozen=True, slots=True)
class Agent:
    """What a user agent tells: a program of a person, or a bot by its name."""

    browser: str = UNKNOWN
    os: str = UNKNOWN
    device: str = UNKNOWN
    bot: str | None = None
    is_preview: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address is: an ISO 3166 code of two letters, and a city with it in English."""

    country: str = UNKNOWN
    city: str = UNKNOWN


Counts = Mapping[Dimension, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class LinkVisits:
    """
    Visits of one link: by each dimension, and the visitors among people.

    `visitors` are hashes of 63 bits under a key that is forgotten two days later.
    """

    counts: Counts
    visitors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ValueVisits:
    """The visits of one value of a dimension; `OTHER` has those of the values that are not named."""

    dimension: Dimension
    value: str
    visits: int
