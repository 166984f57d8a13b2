"""
Visits by what they look like: the dimensions that statistics count, and never an address.

A visit is described by what its request says: where it comes from, with what program, in which language. Each
value is counted by itself, in the hour in which its gateway flushes its counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from app.domain.link import Slug

# Of a value, characters: longer ones are cut.
MAX_VALUE_LENGTH = 100
# Values of a dimension that are counted apart for a link in an hour; further ones are counted as OTHER.
MAX_VALUES = 100
# No request has it as a value of its own.
OTHER = ""
# Totals stand in the place of a link, of which none has such a key: here that of all links together.
ALL_LINKS = Slug("*")
# Totals are the keys from ALL_LINKS on, before this one. With it begin the same by the day (UTC), once that
# is over: a year of hours takes seconds to add up.
ALL_LINKS_BY_DAY = Slug("*day")
# Values of a dimension that are counted apart in such a day; further ones are counted as OTHER.
MAX_DAY_VALUES = 300
# Totals of requests that found no link begin with it: no domain is called so, and no tag's total.
_REFUSALS = f"{ALL_LINKS}?"
UNKNOWN = "unknown"
# Referrers of visits that come from no page.
DIRECT = "direct"


def total_of_domain(domain_id: int) -> Slug:
    """Return the total of the links of a domain."""
    return Slug(f"{ALL_LINKS}{domain_id}")


def total_of_tag(tag: str) -> Slug:
    """Return the total of the links that have *tag* when their visits are counted."""
    return Slug(f"{ALL_LINKS}#{tag}")


def is_total(slug: Slug) -> bool:
    """Is *slug* a total, of all links, a domain or a tag?"""
    return slug.startswith(ALL_LINKS)


def refusals_of(total: Slug) -> Slug:
    """Return the total of the requests without a redirect beside *total*, of all links or of a domain."""
    return Slug(_REFUSALS + total[len(ALL_LINKS) :])


def is_of_refusals(slug: Slug) -> bool:
    """Is *slug* a total of requests without a redirect?"""
    return slug.startswith(_REFUSALS)


def by_day_of(total: Slug) -> Slug:
    """Return what *total* is called by the day."""
    return Slug(ALL_LINKS_BY_DAY + total[len(ALL_LINKS) :])


class Dimension(StrEnum):
    """
    What visits are counted by.

    `KIND` has every visit. `BOT` has those of bots by their names, all others have those of people alone;
    `SOURCE`, `MEDIUM` and `CAMPAIGN` those of them that name one.

    `OUTCOME` and `MISSING` are of requests without a redirect, see `refusals_of`: how they ended, and which
    slugs they asked for. Stored, outcomes stand in the place of `KIND`.
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
    OUTCOME = "outcome"
    MISSING = "missing"


# What statistics show of visits.
OF_VISITS = tuple(
    one for one in Dimension if one not in {Dimension.KIND, Dimension.OUTCOME, Dimension.MISSING}
)


class Outcome(StrEnum):
    """How requests for a link end: `MISSED` with 404, `GONE` with 410, also where a page stands for it."""

    VISIT = "visit"
    MISSED = "missed"
    GONE = "gone"


class Kind(StrEnum):
    """What makes a visit: the values of `Dimension.KIND`."""

    PERSON = "person"
    BOT = "bot"
    PREVIEW = "preview"
    PREFETCH = "prefetch"


# Made for each visit: a frozen data class takes four times as long.
class Look(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    What the requests of visits look like, as they were sent.

    `client` is an address or an IPv6 network, and is never stored. `objects`: the visitor asks not to be
    tracked. `is_ahead`: a browser asks before its user does. `campaign`: the `utm_` parameters of the target,
    then those of the visit's query, as they are written. Requests without a redirect, by their `outcome`,
    have a slug, a user agent and `objects` alone; the slug is that of no link, or only what the keys of its
    domain begin with.
    """

    slug: Slug
    referrer: str = ""
    language: str = ""
    client: str = ""
    campaign: str = ""
    user_agent: str = ""
    objects: bool = False
    is_ahead: bool = False
    outcome: Outcome = Outcome.VISIT


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
