"""The sample of each format in `tests/data/interchange`, and what it must be read as."""

# fmt: off

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.domain.link import LinkFields, Slug
from app.interchange.records import LinkRecord

SAMPLES = Path(__file__).parents[1] / "data" / "interchange"
ALL = sorted(path.name for path in SAMPLES.iterdir())


def at(
    year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0, *, microsecond: int = 0
) -> datetime:
    return datetime(year, month, day, hour, minute, second, microsecond, UTC)


def link(
    slug: str | None, url: str, *, created_at: datetime | None = None, visits: int = 0, spent_visits: int = 0,
    **fields: Any,
) -> LinkRecord:
    return LinkRecord(
        slug=None if slug is None else Slug(slug),
        fields=LinkFields(long_url=f"https://{url}", **fields),
        created_at=created_at,
        visits=visits,
        spent_visits=spent_visits,
    )


_SPRING = link(
    "spring",
    "example.com/spring",
    title="-50% today",
    tags=("a,b", "c|d"),
    created_at=at(2030, 1, 31, 12),
    visits=17,
)
_DASH = link(
    "-dash", "example.com/dash", title=" spaces, kept ", redirect_code=308, valid_from=at(2030, 1, 1),
    expires_at=at(2031, 1, 1), forward_query=True, enabled=False, max_visits=10,
    created_at=at(2030, 1, 31, 12, microsecond=123456), visits=12, spent_visits=7,
)
_QUOTED = link(
    "quoted", "example.com/quoted", title="'quoted'", redirect_code=301, created_at=at(2030, 1, 31, 12)
)
_ROADMAP = link(
    "roadmap", "example.com/roadmap", title="Roadmap 2030",
    created_at=at(2023, 4, 5, 6, 7, 8, microsecond=123000), visits=88,
)
_HANDBOOK = link("handbook", "example.com/handbook", title="Handbook", tags=("docs", "team"))
_LAUNCHED: dict[str, Any] = {"created_at": at(2025, 1, 2, 3, 4, 5), "visits": 412}
_PRICES = link(
    "prices", "example.com/price-list", title="Price list", tags=("sales",), redirect_code=301,
    created_at=at(2023, 6, 7, 8, 9, 10),
)

# File → format, links, and the refused rows by line and code.
EXPECTED: dict[str, tuple[str, list[LinkRecord], list[tuple[int, str]]]] = {
    "bitly-links.csv": (
        "bitly",
        [link("3xYz12", "example.com/page", title="My Page", created_at=at(2024, 5, 6, 7, 8, 9), visits=12)],
        [(3, "columns_contradict"), (4, "column_restricts")],
    ),
    "bitly.csv": (
        "bitly",
        [
            link("3xYz12", "example.com/page", title="My Page", tags=("marketing",)),
            link("menu-2030", "example.com/menu", title="Menu, spring", tags=("food", "print")),
        ],
        [],
    ),
    "bitly.json": (
        "bitly",
        [
            link(
                "3xYz12", "example.com/page", title="My Page", tags=("marketing",),
                created_at=at(2024, 5, 6, 7, 8, 9),
            )
        ],
        [(2, "column_restricts")],
    ),
    "chhoto.csv": (
        "chhoto",
        [
            link("wiki", "example.com/wiki", title="Team wiki", visits=31),
            link("demo-day", "example.com/demo", expires_at=at(2031, 1, 1)),
        ],
        [],
    ),
    "chhoto.json": (
        "chhoto",
        [
            link("wiki", "example.com/wiki", title="Team wiki", visits=31),
            link("demo-day", "example.com/demo", expires_at=at(2031, 1, 1)),
        ],
        [],
    ),
    "dub.csv": (
        "dub",
        [link("launch", "example.com/launch", tags=("news", "launch"), **_LAUNCHED)],
        [(3, "column_restricts"), (4, "slug_segments")],
    ),
    "dub.json": (
        "dub",
        [link("launch", "example.com/launch", title="Launch", tags=("news", "a,b"), **_LAUNCHED)],
        [(2, "column_restricts")],
    ),
    "hopgate-0.1.csv": (
        "hopgate-0.1",
        [
            link("spring", "example.com/spring", title="-50% today", tags=("a", "b", "c", "d")),
            link(
                "few", "example.com/few", title="Plain", tags=("@home",), redirect_code=308,
                valid_from=at(2030, 1, 1), expires_at=at(2031, 1, 1), max_visits=10, forward_query=True,
                enabled=False,
            ),
        ],
        [],
    ),
    "hopgate-0.1.jsonl": (
        "hopgate",
        [
            _SPRING,
            link(
                "few", "example.com/few", max_visits=10, created_at=at(2030, 1, 31, 12), visits=4,
                spent_visits=4,
            ),
        ],
        [],
    ),
    "hopgate.csv": ("hopgate", [_SPRING, _DASH, _QUOTED], []),
    "hopgate.jsonl": ("hopgate", [_SPRING, _DASH, _QUOTED], []),
    "kutt.csv": ("kutt", [_ROADMAP], [(3, "column_restricts"), (4, "time_without_zone")]),
    "kutt.json": (
        "kutt",
        [
            _ROADMAP,
            link(
                "tickets", "example.com/tickets", expires_at=at(2033, 1, 1),
                created_at=at(2023, 4, 5, 6, 7, 8, microsecond=123000),
            ),
        ],
        [(2, "column_restricts"), (3, "column_restricts")],
    ),
    "rebrandly.csv": (
        "rebrandly",
        [
            link(
                "product", "example.com/products/item-123", title="Product",
                created_at=at(2024, 1, 15, 10, 30), visits=142,
            ),
            link("blog", "example.com/blog/post-1", created_at=at(2024, 1, 14, 15, 45)),
        ],
        [],
    ),
    "rebrandly.json": (
        "rebrandly",
        [
            link(
                "product", "example.com/products/item-123", title="Product", tags=("shop",),
                forward_query=True, created_at=at(2024, 1, 15, 10, 30), visits=142,
            )
        ],
        [(2, "column_restricts")],
    ),
    "shlink-export.csv": (
        "shlink",
        [
            LinkRecord(
                slug=_HANDBOOK.slug, fields=_HANDBOOK.fields, created_at=at(2021, 5, 6, 5, 8, 9), visits=15
            ),
            link("map-2", "example.com/map", created_at=at(2022, 1, 1)),
        ],
        [],
    ),
    "shlink.csv": (
        "shlink",
        [_HANDBOOK, link("map-2", "example.com/map", title="Map; printed")],
        [(4, "domains_several")],
    ),
    "shlink.json": (
        "shlink",
        [
            link(
                "handbook", "example.com/handbook", title="Handbook", tags=("docs", "team"),
                forward_query=True,
                created_at=at(2021, 5, 6, 5, 8, 9), visits=15,
            ),
            link(
                "raffle", "example.com/raffle", valid_from=at(2024, 1, 2), expires_at=at(2034, 1, 1),
                max_visits=10, created_at=at(2024, 1, 1), visits=7, spent_visits=7,
            ),
        ],
        [(3, "column_restricts")],
    ),
    "short.io.csv": (
        "short.io",
        [
            LinkRecord(slug=_PRICES.slug, fields=_PRICES.fields, created_at=_PRICES.created_at, visits=25),
            link(
                "voucher", "example.com/voucher", expires_at=at(2033, 11, 21), max_visits=5,
                created_at=at(2023, 6, 7, 8, 9, 10), visits=3, spent_visits=3,
            ),
        ],
        [(4, "column_restricts"), (5, "column_restricts")],
    ),
    "short.io.json": ("short.io", [_PRICES], [(2, "column_restricts")]),
    "shortlinker.csv": (
        "shortlinker",
        [
            link("github", "github.com/example", created_at=at(2024, 12, 15, 14, 30, 22)),
            link(
                "slk003", "example.com/s3", expires_at=at(2034, 1, 1),
                created_at=at(2024, 1, 1, microsecond=123456), visits=5,
            ),
        ],
        [(3, "column_restricts")],
    ),
    "urls.txt": (
        "urls",
        [
            link(None, "example.com/1"),
            link(None, "example.com/zwei"),
            link(None, "maps.example.com/@52.5,13.4,15z"),
            link(None, "example.com/1"),
        ],
        [(6, "url_forbidden_character"), (7, "url_scheme")],
    ),
    "yourls-plugin.csv": (
        "yourls",
        [
            link("first", "example.com/first", visits=1021),
            link("spring-sale", "shop.example.com/?ids=1,2,3", visits=7),
        ],
        [],
    ),
    "yourls.csv": (
        "yourls",
        [
            link(
                "first", "example.com/first", title="First steps",
                created_at=at(2012, 3, 4, 5, 6, 7), visits=1021,
            ),
            link(
                "spring-sale", "shop.example.com/?ids=1,2,3&utm_source=mail", title="Sale, 20% off",
                created_at=at(2019, 11, 29, 23, 59, 59), visits=7,
            ),
            link("quotes", "example.com/q", title='He said "hello"', created_at=at(2020, 2, 29, 12)),
        ],
        [],
    ),
    "yourls.json": (
        "yourls",
        [
            link(
                "first", "example.com/first", title="First steps",
                created_at=at(2012, 3, 4, 5, 6, 7), visits=1021,
            ),
            link("ozh", "example.com/ozh", title="Second", created_at=at(2013, 1, 2, 3, 4, 5), visits=3),
        ],
        [],
    ),
}
