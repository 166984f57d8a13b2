"""The order of a listing in SQL, the positions in it, and the effort for it: what the stores share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, assert_never

from app.domain.link import Link
from app.domain.link_key import AFTER_OTHERS, DEFAULT_ID, keys_between
from app.domain.reach import Reach
from app.ports import LinkQuery, LinkSort, Position


class Effort(NamedTuple):
    """
    When a store changes from one way of finding links to another.

    Args:
        few: ids of a filter that are gathered at once.
        many: ids of a filter beyond which a long walk comes first.
        walked, long_walked: bounds of the two walks, in the store's own unit.
    """

    few: int
    many: int
    walked: int
    long_walked: int


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# The columns of each order, the unique one last. `clicks` is that of `click_totals`.
_COLUMNS: Mapping[LinkSort, tuple[str, ...]] = {
    LinkSort.STORED: ("id",),
    LinkSort.CREATED: ("created_at", "id"),
    LinkSort.UPDATED: ("updated_at", "id"),
    LinkSort.CLICKS: ("clicks", "slug"),
    LinkSort.TITLE: ("title", "id"),
    LinkSort.SLUG: ("slug",),
}
TIMES = frozenset({LinkSort.CREATED, LinkSort.UPDATED})


def is_indexed(query: LinkQuery) -> bool:
    """Does a filter of *query* need what `link_index` holds?"""
    return bool(query.terms) or query.host is not None


def domain_bounds(query: LinkQuery) -> dict[str, str]:
    """Return what bounds the slugs of the domains of *query*, as `in_domains` names it."""
    values: dict[str, str] = {}
    for number, domain in enumerate(_domains(query)):
        values[f"domain_first_{number}"], values[f"domain_end_{number}"] = keys_between(domain)
        if domain == DEFAULT_ID:
            values[f"domain_later_{number}"] = AFTER_OTHERS
    return values


def in_domains(query: LinkQuery, column: str, mark: str) -> str | None:
    """Return the condition that *column*, a slug, is of the domains of *query*; None: of any."""
    conditions = []
    for number, domain in enumerate(_domains(query)):
        first, end = mark.format(f"domain_first_{number}"), mark.format(f"domain_end_{number}")
        conditions.append(f"({column} >= {first} AND {column} < {end})")
        if domain == DEFAULT_ID:
            conditions.append(f"{column} >= {mark.format(f'domain_later_{number}')}")
    return f"({' OR '.join(conditions)})" if conditions else None


def _domains(query: LinkQuery) -> tuple[int, ...]:
    return query.domains if query.domain is None else (query.domain,)


def within(reach: Reach) -> LinkQuery:
    """Return the query of all links within *reach*."""
    return LinkQuery(owner=reach.owner, domains=tuple(sorted(reach.domains or ())))


def order_by(query: LinkQuery, table: str, collate: str = "") -> str:
    """Return the ORDER BY list of *query* over the columns of *table*; titles compare by *collate*."""
    direction = "DESC" if query.descending else "ASC"
    return ", ".join(f"{one} {direction}" for one in _columns(query, table, collate))


def beyond(query: LinkQuery, table: str, key: str, tie: str, collate: str = "") -> str:
    """Return the condition that a row of *table* comes after the position *key*, *tie*."""
    columns = _columns(query, table, collate)
    values = [key, tie][-len(columns) :]
    comparison = "<" if query.descending else ">"
    return f"({', '.join(columns)}) {comparison} ({', '.join(values)})"


def position(query: LinkQuery, link: Link, link_id: int) -> Position:
    """Return where *link* is in the order of *query*."""
    match query.sort:
        case LinkSort.STORED:
            return Position(link_id, link_id)
        case LinkSort.CREATED:
            return Position((link.created_at - _EPOCH) // _MICROSECOND, link_id)
        case LinkSort.UPDATED:
            return Position((link.updated_at - _EPOCH) // _MICROSECOND, link_id)
        case LinkSort.CLICKS:
            return Position(link.visits, link.slug)
        case LinkSort.TITLE:
            return Position(link.fields.title, link_id)
        case LinkSort.SLUG:
            return Position(link.slug, link.slug)
        case _:
            assert_never(query.sort)


def beside_id(sort: LinkSort) -> str | None:
    """Return the column that *sort* orders by before the id, if there are these two."""
    first, *others = _COLUMNS[sort]
    return first if others == ["id"] else None


def time_of(key: int | str) -> datetime:
    """Return the time that a position has as its key."""
    return _EPOCH + int(key) * _MICROSECOND


def _columns(query: LinkQuery, table: str, collate: str) -> list[str]:
    names = _COLUMNS[query.sort]
    return [f"{table}.{name}{collate if name == 'title' else ''}" for name in names]
