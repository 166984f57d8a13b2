"""
The statements of listings in SQLite: see `app.adapters.sqlite.find`.

SQLite chooses plans without knowing the values. So each statement says which index it begins with, joins are
CROSS JOINs, which keep their order, and a plus before a column keeps its index out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from app.adapters.find_order import TIMES, beside_id, beyond, domain_bounds, in_domains, is_indexed, order_by
from app.adapters.sqlite import sql
from app.ports import LinkCondition, LinkQuery, LinkSort, Position, TimeRange

# Trigrams of a term that are looked up, from its beginning to its end; the text itself decides.
_MOST_TRIGRAMS = 16
_IS_LISTED = "links.removed_at IS NULL"
_INDEX = "CROSS JOIN link_index ON link_index.id = links.id"
_TOTALS = "CROSS JOIN click_totals ON click_totals.slug = links.slug"
_WALKED = {
    LinkSort.STORED: "links NOT INDEXED",
    LinkSort.CREATED: "links INDEXED BY links_created",
    LinkSort.UPDATED: "links INDEXED BY links_updated",
    LinkSort.TITLE: "links INDEXED BY links_title",
    LinkSort.SLUG: "links",
    LinkSort.CLICKS: "click_totals INDEXED BY click_totals_clicks"
    " CROSS JOIN links ON links.slug = click_totals.slug",
}
_NOT_ENDED = "(+links.expires_at IS NULL OR +links.expires_at > :now)"
_CONDITIONS = {
    LinkCondition.DISABLED: "NOT +links.enabled",
    LinkCondition.EXPIRED: "+links.enabled AND +links.expires_at <= :now",
    LinkCondition.PENDING: f"+links.enabled AND +links.valid_from > :now AND {_NOT_ENDED}",
    LinkCondition.LIVE: "+links.enabled AND (+links.valid_from IS NULL OR +links.valid_from <= :now)"
    f" AND {_NOT_ENDED}",
}

PROBE_TRIGRAM = """
    SELECT count(*) FROM (SELECT 1 FROM link_texts WHERE link_texts MATCH :match LIMIT :most)
"""
# What the triggers have not seen: a tag that its link lacks.
FORGET_STALE = """
    DELETE FROM link_tags WHERE tag = ?1 AND NOT EXISTS (
        SELECT 1 FROM links, json_each(links.tags) AS one
        WHERE links.id = link_tags.id AND removed_at IS NULL AND one.value = ?1
    )
"""
SET_TAGS = f"""
    UPDATE links SET tags = :tags, updated_at = :now, version = version + 1, {sql.CHANGED_BY}
    WHERE slug = :slug
"""


_TAGGED = "link_tags CROSS JOIN links ON links.id = link_tags.id"


def select_tags(among: LinkQuery, *, first: bool) -> str:
    """Return the statement that counts the tags of the links that pass *among*, or of all links."""
    conditions = _checks(among)
    source = _TAGGED if conditions else "link_tags"
    conditions += [] if first else ["tag > :after"]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT tag, count(*) FROM {source} {where} GROUP BY tag ORDER BY tag LIMIT :limit"


def select_tagged(among: LinkQuery) -> str:
    """Return the statement that finds the next links to retag."""
    conditions = ["link_tags.tag = :tag", _IS_LISTED, *_checks(among)]
    return f"""
        SELECT links.slug, links.tags FROM {_TAGGED}
        WHERE {" AND ".join(conditions)} ORDER BY link_tags.id LIMIT :limit
    """


class Driver(NamedTuple):
    """
    An index to begin with: a query of the ids that pass one filter, some of them more than once.

    `ordered`: it has them in the order of ids, once each.
    """

    ids: str
    ordered: bool


def bindings(query: LinkQuery, after: Position | None) -> dict[str, Any]:
    """Return what the statements of *query* bind, but for the time and the limit."""
    values: dict[str, Any] = {
        "host": query.host,
        "long_url": query.long_url,
        "owner": query.owner,
        **domain_bounds(query),
    }
    for name in ("terms", "tags_any", "tags_all", "tags_none"):
        values |= {f"{name}_{n}": value for n, value in enumerate(getattr(query, name))}
    for name in ("created", "updated", "expires"):
        period: TimeRange = getattr(query, name)
        values |= {f"{name}_since": sql.micros(period.since), f"{name}_until": sql.micros(period.until)}
    if after is not None:
        values |= {"key": after.key, "tie": after.tie}
    return values


def trigrams_of(terms: tuple[str, ...]) -> list[str]:
    """Return trigrams of *terms*, spread over each."""
    found: dict[str, None] = {}
    for term in terms:
        last = len(term) - 3
        steps = min(last, _MOST_TRIGRAMS - 1)
        places = {round(n * last / steps) for n in range(steps + 1)} if steps else {0}
        found |= dict.fromkeys(term[place : place + 3] for place in sorted(places))
    return list(found)


def match(trigrams: list[str]) -> str:
    """Return the full-text query of links that have all *trigrams*."""
    return " AND ".join('"{}"'.format(one.replace('"', '""')) for one in trigrams)


def drivers(query: LinkQuery) -> list[Driver]:
    """Return the indexes of the filters of *query*."""
    found = []
    if query.long_url is not None:
        found.append(Driver("SELECT id FROM links WHERE long_url = :long_url", ordered=False))
    if query.terms:
        found.append(Driver("SELECT rowid AS id FROM link_texts WHERE link_texts MATCH :match", ordered=True))
    found += [
        Driver(f"SELECT id FROM link_tags WHERE tag = :tags_all_{n}", ordered=True)
        for n in range(len(query.tags_all))
    ]
    if len(query.tags_any) == 1:
        found.append(Driver("SELECT id FROM link_tags WHERE tag = :tags_any_0", ordered=True))
    elif query.tags_any:
        ids = f"SELECT id FROM link_tags WHERE tag IN {_list('tags_any', query)}"
        found.append(Driver(ids, ordered=False))
    if query.host is not None:
        found.append(Driver("SELECT id FROM link_index WHERE host = :host", ordered=True))
    listed = "removed_at IS NULL"
    for name in ("created", "updated", "expires"):
        bounds = _period(name, getattr(query, name), "")
        if bounds:
            ids = f"SELECT id FROM links INDEXED BY links_{name} WHERE {listed} AND {bounds}"
            found.append(Driver(ids, ordered=False))
    found += _drivers_of_reach(query)
    by_condition = {
        LinkCondition.DISABLED: f"links INDEXED BY links_disabled WHERE {listed} AND NOT enabled",
        LinkCondition.EXPIRED: f"links INDEXED BY links_ending WHERE {listed} AND expires_at <= :now",
        LinkCondition.PENDING: f"links INDEXED BY links_pending WHERE {listed} AND valid_from > :now",
    }
    if len(query.conditions) == 1 and query.conditions[0] in by_condition:
        is_ordered = query.conditions[0] is not LinkCondition.PENDING
        found.append(Driver(f"SELECT id FROM {by_condition[query.conditions[0]]}", ordered=is_ordered))
    return found


def _drivers_of_reach(query: LinkQuery) -> list[Driver]:
    found = []
    if query.owner is not None:
        ids = f"SELECT id FROM links INDEXED BY links_owner WHERE {_IS_LISTED} AND {_is_owned(query)}"
        found.append(Driver(ids, ordered=True))
    if query.domain or query.domains:
        ids = f"SELECT id FROM links WHERE {_IS_LISTED} AND {in_domains(query, 'slug', ':{}')}"
        found.append(Driver(ids, ordered=False))
    return found


def probe(driver: Driver, most: int) -> str:
    """Return the statement that counts the ids of *driver* up to *most*."""
    return f"SELECT count(*) FROM (SELECT 1 FROM ({driver.ids}) LIMIT {most})"


def walks(query: LinkQuery, after: Position | None) -> list[str]:
    """
    Return the statements that walk the index of the sort, one after the other.

    SQLite begins at a pair of columns only if the second one is not the id. So those beside the position come
    from a statement of their own: a million links may have the same title, or none.
    """
    table = "click_totals" if query.sort is LinkSort.CLICKS else "links"
    if after is None:
        return [_walk(query, table, [])]
    column = beside_id(query.sort)
    if column is None:
        return [_walk(query, table, [beyond(query, table, ":key", ":tie")])]
    comparison = "<" if query.descending else ">"
    beside = [f"links.{column} = :key", f"links.id {comparison} :tie"]
    return [_walk(query, table, beside), _walk(query, table, [f"links.{column} {comparison} :key"])]


def _walk(query: LinkQuery, table: str, bound: list[str]) -> str:
    if query.sort in TIMES:
        bound = [*bound, _period(query.sort.value, getattr(query, query.sort.value), "links.")]
    joined = _INDEX if is_indexed(query) else ""
    conditions = [_IS_LISTED, *(one for one in bound if one), *_checks(query)]
    return f"""
        SELECT {sql.SELECTED}, links.id FROM {_WALKED[query.sort]} {joined}
        WHERE {" AND ".join(conditions)} ORDER BY {order_by(query, table)} LIMIT :wanted
    """


def gather(query: LinkQuery, after: Position | None, driver: Driver) -> str:
    """Return the statement that looks at the links of *driver*, in their order if it is that of the sort."""
    by_id = query.sort is LinkSort.STORED
    table = "driver" if by_id else "click_totals" if query.sort is LinkSort.CLICKS else "links"
    bound = [] if after is None else [beyond(query, table, ":key", ":tie")]
    totals = _TOTALS if query.sort is LinkSort.CLICKS else ""
    ids = driver.ids if driver.ordered else f"SELECT DISTINCT id FROM ({driver.ids})"
    return f"""
        SELECT {sql.SELECTED}, links.id
        FROM ({ids}) AS driver CROSS JOIN links ON links.id = driver.id
        {_INDEX if is_indexed(query) else ""} {totals}
        WHERE {" AND ".join([_IS_LISTED, *bound, *_checks(query)])}
        ORDER BY {order_by(query, table)} LIMIT :wanted
    """


def counting(query: LinkQuery, driver: Driver | None) -> str:
    """Return the statement that counts the links that pass, among those of *driver*."""
    begin = "links"
    if driver is not None:
        begin = f"(SELECT DISTINCT id FROM ({driver.ids})) AS driver CROSS JOIN links ON links.id = driver.id"
    joined = _INDEX if is_indexed(query) else ""
    return f"SELECT count(*) FROM {begin} {joined} WHERE {' AND '.join([_IS_LISTED, *_checks(query)])}"


# Each part reads one index from end to end: a join of all links takes thirty times as long.
TOTALS = f"""
    SELECT
        (SELECT count(*) FROM links INDEXED BY links_created WHERE {_IS_LISTED}),
        (SELECT coalesce(sum(clicks), 0) FROM click_totals) - (
            SELECT coalesce(sum(clicks), 0) FROM links INDEXED BY links_removed
            CROSS JOIN click_totals ON click_totals.slug = links.slug WHERE links.removed_at IS NOT NULL
        )
"""


def _checks(query: LinkQuery) -> list[str]:
    found = [_period(name, getattr(query, name), "+links.") for name in ("created", "updated", "expires")]
    found = [one for one in found if one]
    if query.long_url is not None:
        found.append("+links.long_url = :long_url")
    if query.host is not None:
        found.append("+link_index.host = :host")
    if (condition := in_domains(query, "+links.slug", ":{}")) is not None:
        found.append(condition)
    if query.owner is not None:
        # Beside an operator, the expression is none of the index.
        found.append(f"+{_is_owned(query)}")
    if query.conditions:
        found.append(f"({' OR '.join(f'({_CONDITIONS[one]})' for one in query.conditions)})")
    if query.tags_any:
        found.append(_has(_list("tags_any", query)))
    found += [_has(f"(:tags_all_{n})") for n in range(len(query.tags_all))]
    if query.tags_none:
        found.append(f"NOT {_has(_list('tags_none', query))}")
    return found + [f"instr(link_index.folded, :terms_{n}) > 0" for n in range(len(query.terms))]


def _is_owned(query: LinkQuery) -> str:
    return f"{sql.OWNER} = :owner" if query.owner else f"{sql.OWNER} IS NULL"


def _has(tags: str) -> str:
    return f"EXISTS (SELECT 1 FROM link_tags WHERE tag IN {tags} AND link_tags.id = links.id)"


def _list(name: str, query: LinkQuery) -> str:
    return f"({', '.join(f':{name}_{n}' for n in range(len(getattr(query, name))))})"


def _period(name: str, period: TimeRange, prefix: str) -> str:
    bounds = []
    if period.since is not None:
        bounds.append(f"{prefix}{name}_at >= :{name}_since")
    if period.until is not None:
        bounds.append(f"{prefix}{name}_at < :{name}_until")
    return " AND ".join(bounds)
