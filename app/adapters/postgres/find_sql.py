"""
The statements of listings in PostgreSQL: see `app.adapters.postgres.find`.

Joins are LATERAL with OFFSET 0, which the planner keeps in their order: it counts on what filters pass to be
spread evenly, and would walk a million links for some that are all at the end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from app.adapters.find_order import (
    TIMES,
    beyond,
    domain_bounds,
    in_domains,
    is_indexed,
    order_by,
    time_of,
)
from app.adapters.postgres import sql
from app.ports import LinkCondition, LinkQuery, LinkSort, Position, TimeRange

_COLLATE = ' COLLATE "C"'
_IS_LISTED = "removed_at IS NULL"
_INDEX = """
    CROSS JOIN LATERAL (
        SELECT host, folded FROM link_index WHERE link_index.id = links.id OFFSET 0
    ) AS link_index
"""
_TOTALS = """
    CROSS JOIN LATERAL (
        SELECT slug, clicks FROM click_totals WHERE click_totals.slug = links.slug OFFSET 0
    ) AS click_totals
"""
_NOT_ENDED = "(links.expires_at IS NULL OR links.expires_at > %(now)s)"
_CONDITIONS = {
    LinkCondition.DISABLED: "NOT links.enabled",
    LinkCondition.EXPIRED: "links.enabled AND links.expires_at <= %(now)s",
    LinkCondition.PENDING: f"links.enabled AND links.valid_from > %(now)s AND {_NOT_ENDED}",
    LinkCondition.LIVE: "links.enabled AND (links.valid_from IS NULL OR links.valid_from <= %(now)s)"
    f" AND {_NOT_ENDED}",
}
# The ids of links in one condition, or of a few more.
_IN_CONDITION = {
    LinkCondition.DISABLED: f"SELECT id FROM links WHERE {_IS_LISTED} AND NOT enabled",
    LinkCondition.EXPIRED: f"SELECT id FROM links WHERE {_IS_LISTED} AND expires_at <= %(now)s",
    LinkCondition.PENDING: f"SELECT id FROM links WHERE {_IS_LISTED} AND valid_from > %(now)s",
}

RETAG = sql.changing(f"""
    UPDATE links SET version = version + 1, updated_at = %(now)s, {sql.CHANGED_BY}, tags = CASE
        WHEN %(new)s::text IS NULL OR tags @> ARRAY[%(new)s::text] THEN array_remove(tags, %(tag)s::text)
        ELSE array_replace(tags, %(tag)s::text, %(new)s::text) END
    WHERE slug = ANY(%(slugs)s) AND removed_at IS NULL AND tags @> ARRAY[%(tag)s::text]
""")

# What the triggers have not seen: a tag that its link lacks.
FORGET_STALE = """
    DELETE FROM link_tags WHERE tag = %(tag)s AND NOT EXISTS (
        SELECT 1 FROM links
        WHERE links.id = link_tags.id AND removed_at IS NULL AND tags @> ARRAY[%(tag)s::text]
    ) RETURNING id
"""


def parameters(query: LinkQuery, after: Position | None) -> dict[str, Any]:
    """Return what the statements of *query* bind, but for the time and the limit."""
    values: dict[str, Any] = {
        "tags_any": list(query.tags_any),
        "tags_all": list(query.tags_all),
        "tags_none": list(query.tags_none),
        "host": query.host,
        "long_url": query.long_url,
        "owner": query.owner,
        **domain_bounds(query),
    }
    values |= {f"term_{n}": term for n, term in enumerate(query.terms)}
    for name in ("created", "updated", "expires"):
        period: TimeRange = getattr(query, name)
        values |= {f"{name}_since": period.since, f"{name}_until": period.until}
    if after is not None:
        key = time_of(after.key) if query.sort in TIMES else after.key
        values |= {"key": key, "tie": after.tie}
    return values


def select_tags(among: LinkQuery, *, first: bool) -> str:
    """Return the statement that counts the tags of the links that pass *among*, or of all links."""
    conditions = _checks_of_columns(among)
    source = "link_tags JOIN links USING (id)" if conditions else "link_tags"
    conditions += [] if first else ["tag > %(after)s"]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT tag, count(*) FROM {source} {where} GROUP BY tag ORDER BY tag LIMIT %(limit)s"


def lock_tagged(among: LinkQuery) -> str:
    """Return the statement that locks the next links to retag, in the order of all changes."""
    conditions = _checks_of_columns(among)
    source = "link_tags JOIN links USING (id)" if conditions else "link_tags"
    where = " AND ".join(["tag = %(tag)s", *conditions])
    return f"""
        SELECT slug FROM links WHERE removed_at IS NULL
            AND id IN (SELECT id FROM {source} WHERE {where} ORDER BY id LIMIT %(limit)s)
        ORDER BY slug COLLATE "C" FOR UPDATE
    """


class Driver(NamedTuple):
    """
    An index to begin with: a query of the ids that pass one filter, some of them more than once.

    `rest`: the query without that filter, or all of it where the check of a row costs nothing. `ordered`: an
    index has the ids in their order. `estimated`: the query whose estimate tells their number; None: counting
    some of them is cheap.
    """

    ids: str
    rest: LinkQuery
    ordered: bool = False
    estimated: str | None = None


def drivers(query: LinkQuery) -> list[Driver]:
    """Return the indexes of the filters of *query*."""
    found = []
    if query.long_url is not None:
        ids = f"SELECT id FROM links WHERE long_url = %(long_url)s AND {_IS_LISTED}"
        found.append(Driver(ids, query))
    found += [
        Driver(
            f"{_with_letters(n)} AND position(hopgate_fold(%(term_{n})s) IN folded) > 0",
            # Terms are bound by their places, so only a single one can be left out.
            replace(query, terms=()) if len(query.terms) == 1 else query,
            # The planner takes the other condition, which nearly all of these pass, for one that a third
            # pass.
            estimated=_with_letters(n),
        )
        for n in range(len(query.terms))
    ]
    found += [
        Driver(f"SELECT id FROM link_tags WHERE tag = (%(tags_all)s::text[])[{n + 1}]", query, ordered=True)
        for n in range(len(query.tags_all))
    ]
    if len(query.tags_any) == 1:
        ids = "SELECT id FROM link_tags WHERE tag = (%(tags_any)s::text[])[1]"
        found.append(Driver(ids, query, ordered=True))
    elif query.tags_any:
        found.append(Driver("SELECT id FROM link_tags WHERE tag = ANY(%(tags_any)s::text[])", query))
    if query.host is not None:
        ids = "SELECT id FROM link_index WHERE host = %(host)s"
        found.append(Driver(ids, replace(query, host=None), ordered=True))
    for name in ("created", "updated", "expires"):
        bounds = _period(name, getattr(query, name), "")
        if bounds:
            found.append(Driver(f"SELECT id FROM links WHERE {_IS_LISTED} AND {bounds}", query))
    if query.owner is not None:
        ids = f"SELECT id FROM links WHERE {_IS_LISTED} AND {_is_owned(query)}"
        found.append(Driver(ids, query, ordered=True))
    if query.domain or query.domains:
        found.append(Driver(f"SELECT id FROM links WHERE {_IS_LISTED} AND {_in_domains(query, '')}", query))
    if len(query.conditions) == 1 and query.conditions[0] in _IN_CONDITION:
        found.append(Driver(_IN_CONDITION[query.conditions[0]], query, ordered=True))
    return found


def _with_letters(number: int) -> str:
    pattern = f"'%%' || hopgate_letters(hopgate_fold(%(term_{number})s)) || '%%'"
    return f"SELECT id FROM link_index WHERE letters LIKE {pattern}"


def probe(drivers: list[Driver]) -> str:
    """Return the statement that counts the ids of each of *drivers*, up to `%(most)s` of each."""
    counts = (
        f"(SELECT count(*) FROM (SELECT 1 FROM ({one.ids}) AS a LIMIT %(most)s) AS b)" for one in drivers
    )
    return f"SELECT {', '.join(counts)}"


def estimate(driver: Driver) -> str:
    """Return the statement that estimates how many ids *driver* has, as the plan in JSON."""
    return f"EXPLAIN (FORMAT JSON) {driver.estimated or driver.ids}"


def walk(query: LinkQuery, after: Position | None, rows: int | None) -> str:
    """
    Return the statement that walks the index of the sort, at most *rows* rows of it.

    In the order of the ids, terms and hosts are looked for in their own table: each row is one that is read,
    not two, and links are read of those alone that pass.
    """
    if rows is not None and query.sort is LinkSort.STORED and is_indexed(query):
        where = "" if after is None else f"WHERE {_beyond(query, 'link_index')}"
        order = order_by(query, "link_index")
        ids = f"SELECT id, host, folded FROM link_index {where} ORDER BY {order} LIMIT {rows} OFFSET 0"
        source = f"({ids}) AS link_index {_links('link_index')}"
        return _page(query, source, checks(query), order, has_index=True)
    table = "click_totals" if query.sort is LinkSort.CLICKS else "links"
    bounds = [] if table == "click_totals" else [f"links.{_IS_LISTED}", *_on_sort(query)]
    if after is not None:
        bounds.append(_beyond(query, table))
    order = order_by(query, table, _COLLATE)
    source, conditions = table, [*bounds, *checks(query)]
    if rows is not None:
        where = f"WHERE {' AND '.join(bounds)}" if bounds else ""
        source = f"(SELECT * FROM {table} {where} ORDER BY {order} LIMIT {rows} OFFSET 0) AS {table}"
        conditions = checks(query)
    if table == "click_totals":
        source += f"""
            CROSS JOIN LATERAL (
                SELECT * FROM links WHERE links.slug = click_totals.slug AND {_IS_LISTED} OFFSET 0
            ) AS links
        """
    return _page(query, source, conditions, order)


def stream(query: LinkQuery, after: Position | None, driver: Driver) -> str:
    """
    Return the statement that walks the ids of *driver* in their order, which is that of *query*.

    Where no index has them in it they are sorted; links are read until the page is full in any case.
    """
    bound = "" if after is None else f"WHERE {_beyond(query, 'driver')}"
    order = order_by(query, "driver")
    distinct = "" if driver.ordered else "DISTINCT"
    ids = f"SELECT {distinct} id FROM ({driver.ids}) AS driver {bound} ORDER BY {order} OFFSET 0"
    return _page(driver.rest, f"({ids}) AS driver {_links('driver')}", checks(driver.rest), order)


def gather(query: LinkQuery, after: Position | None, driver: Driver) -> str:
    """Return the statement that looks at all links of *driver*, and sorts them."""
    totals = _TOTALS if query.sort is LinkSort.CLICKS else ""
    table = "click_totals" if totals else "links"
    bound = [] if after is None else [_beyond(query, table)]
    ids = f"SELECT DISTINCT id FROM ({driver.ids}) AS driver OFFSET 0"
    source = f"({ids}) AS driver {_links('driver')} {totals}"
    return _page(driver.rest, source, [*bound, *checks(driver.rest)], order_by(query, table, _COLLATE))


def counting(query: LinkQuery) -> str:
    """Return the statement that counts the links that pass."""
    joined = "JOIN link_index ON link_index.id = links.id" if is_indexed(query) else ""
    found = [f"links.{_IS_LISTED}", *_checks_of_columns(query)]
    found += [
        f"link_index.letters LIKE '%%' || hopgate_letters(hopgate_fold(%(term_{n})s)) || '%%'"
        for n in range(len(query.terms))
    ]
    if query.tags_any:
        found.append("links.id IN (SELECT id FROM link_tags WHERE tag = ANY(%(tags_any)s::text[]))")
    found += [
        f"links.id IN (SELECT id FROM link_tags WHERE tag = (%(tags_all)s::text[])[{n + 1}])"
        for n in range(len(query.tags_all))
    ]
    return f"SELECT count(*) FROM links {joined} WHERE {' AND '.join(found)}"


# Each part reads one index or table from end to end, which takes less than a join of all links.
TOTALS = f"""
    SELECT
        (SELECT count(*) FROM links WHERE {_IS_LISTED}),
        ((SELECT coalesce(sum(clicks), 0) FROM click_totals) - (
            SELECT coalesce(sum(clicks), 0)
            FROM links JOIN click_totals USING (slug) WHERE removed_at IS NOT NULL
        ))::bigint
"""


def checks(query: LinkQuery) -> list[str]:
    """Return the filters as conditions of one row."""
    found = _checks_of_columns(query)
    if query.tags_any:
        found.append("links.tags && %(tags_any)s::text[]")
    if query.tags_all:
        found.append("links.tags @> %(tags_all)s::text[]")
    return found


def _links(table: str) -> str:
    """Return the join of the links that rows of *table* have the ids of."""
    links = f"SELECT * FROM links WHERE links.id = {table}.id AND {_IS_LISTED} OFFSET 0"
    return f"CROSS JOIN LATERAL ({links}) AS links"


def _page(
    query: LinkQuery, source: str, conditions: list[str], order: str, *, has_index: bool = False
) -> str:
    """Return the statement of a page; *has_index*: *source* has `link_index` already."""
    joined = _INDEX if is_indexed(query) and not has_index else ""
    clicks = ", click_totals.clicks" if query.sort is LinkSort.CLICKS else ""
    return f"""
        SELECT {sql.LINK}, id FROM (
            SELECT links.*{clicks} FROM {source} {joined}
            WHERE {" AND ".join(conditions) or "true"} ORDER BY {order} LIMIT %(wanted)s
        ) AS links ORDER BY {order_by(query, "links", _COLLATE)}
    """


def _checks_of_columns(query: LinkQuery) -> list[str]:
    found = [_period(name, getattr(query, name), "links.") for name in ("created", "updated", "expires")]
    found = [one for one in found if one]
    if query.tags_none:
        found.append("NOT links.tags && %(tags_none)s::text[]")
    if query.host is not None:
        found.append("link_index.host = %(host)s")
    if query.long_url is not None:
        found.append("links.long_url = %(long_url)s")
    if (condition := _in_domains(query, "links.")) is not None:
        found.append(condition)
    if query.owner is not None:
        found.append(_is_owned(query))
    if query.conditions:
        found.append(f"({' OR '.join(f'({_CONDITIONS[one]})' for one in query.conditions)})")
    return found + [
        f"position(hopgate_fold(%(term_{n})s) IN link_index.folded) > 0" for n in range(len(query.terms))
    ]


def _in_domains(query: LinkQuery, prefix: str) -> str | None:
    return in_domains(query, f"{prefix}slug", "%({})s::text")


def _is_owned(query: LinkQuery) -> str:
    return f"{sql.OWNER} = %(owner)s::text" if query.owner else f"{sql.OWNER} IS NULL"


def _period(name: str, period: TimeRange, prefix: str) -> str:
    bounds = []
    if period.since is not None:
        bounds.append(f"{prefix}{name}_at >= %({name}_since)s")
    if period.until is not None:
        bounds.append(f"{prefix}{name}_at < %({name}_until)s")
    return " AND ".join(bounds)


def _on_sort(query: LinkQuery) -> list[str]:
    """Return the conditions on the column of the sort, which bound the walk itself."""
    if query.sort not in TIMES:
        return []
    bounds = _period(query.sort.value, getattr(query, query.sort.value), "links.")
    return [bounds] if bounds else []


def _beyond(query: LinkQuery, table: str) -> str:
    key = "%(key)s::text" + _COLLATE if query.sort is LinkSort.TITLE else "%(key)s"
    tie = "%(tie)s::text" if query.sort in (LinkSort.CLICKS, LinkSort.SLUG) else "%(tie)s::bigint"
    return beyond(query, table, key, tie, _COLLATE)
