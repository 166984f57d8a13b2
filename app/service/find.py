"""Listings of links by filters, terms and sorts, and the tags of all links."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from app.concurrency.actors import reach
from app.concurrency.time_limit import left_s
from app.domain import rules, search, target
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link
from app.domain.policy import WEB, TargetPolicy
from app.domain.reach import Reach
from app.ports import (
    MAX_RETAGGED,
    FindStore,
    LinkCondition,
    LinkQuery,
    LinkSort,
    Position,
    TagCount,
    TimeRange,
    Totals,
)
from app.service.links import Deliver

_T = TypeVar("_T")

MAX_FILTER_TAGS = rules.MAX_TAGS
# A count reads every link that passes; more is not worth the time of the store.
COUNT_S = 2.0
# What a change of tags leaves of its request's time for the batch under way.
_BATCH_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """
    What a listing is asked for, as it was typed. What is None or empty filters nothing.

    A link has to pass every filter: all terms of `search`; of `tag` any, of `tags_all` all, of `tags_none`
    none; `state`: any. `domain` is an id, `owner` that of a key, or empty: links without an owner. Times
    are from `…_since` on and before `…_until`. `sort` is one of `SORTS`; None is the order in which links
    were stored, newest first.
    """

    search: str | None = None
    tag: tuple[str, ...] = ()
    tags_all: tuple[str, ...] = ()
    tags_none: tuple[str, ...] = ()
    host: str | None = None
    long_url: str | None = None
    domain: int | None = None
    owner: str | None = None
    state: tuple[LinkCondition, ...] = ()
    created_since: datetime | None = None
    created_until: datetime | None = None
    updated_since: datetime | None = None
    updated_until: datetime | None = None
    expires_since: datetime | None = None
    expires_until: datetime | None = None
    sort: str | None = None

    def query(self) -> LinkQuery:
        """
        Return the query; filters that mean the same make the same one.

        Raises:
            InvalidInput: with every parameter that breaks a rule, or contradicts another.
        """
        errors: list[FieldError] = []
        sort, descending = SORTS[self.sort] if self.sort is not None else (LinkSort.STORED, True)
        query = LinkQuery(
            terms=_checked(errors, self.search, search.terms_of) or (),
            tags_any=self._tags("tag", errors),
            tags_all=self._tags("tags_all", errors),
            tags_none=self._tags("tags_none", errors),
            host=_checked(errors, self.host, _host),
            long_url=_checked(errors, self.long_url, _long_url),
            domain=self.domain,
            owner=self.owner,
            conditions=tuple(one for one in LinkCondition if one in self.state),
            created=self._period("created", errors),
            updated=self._period("updated", errors),
            expires=self._period("expires", errors),
            sort=sort,
            descending=descending,
        )
        for name, asked in (("tags_all", query.tags_all), ("tag", query.tags_any)):
            refused = set(asked) & set(query.tags_none)
            if refused and (name == "tags_all" or len(refused) == len(asked)):
                errors.append(
                    FieldError("tags_none", "contradiction", f"excludes every link that {name} asks for")
                )
        if errors:
            raise InvalidInput(errors)
        return query

    def _tags(self, name: str, errors: list[FieldError]) -> tuple[str, ...]:
        tags: tuple[str, ...] = getattr(self, name)
        if len(tags) > MAX_FILTER_TAGS:
            message = f"names {len(tags)} tags, the most is {MAX_FILTER_TAGS}"
            errors.append(FieldError(name, "tags_too_many", message))
        wrong = next((problem for tag in tags if (problem := rules.tag_problem(tag)) is not None), None)
        if wrong is not None:
            errors.append(FieldError(name, "tag_invalid", wrong))
        return tuple(sorted(set(tags)))

    def _period(self, name: str, errors: list[FieldError]) -> TimeRange:
        since = rules.checked_time(f"{name}_since", getattr(self, f"{name}_since"), errors)
        until = rules.checked_time(f"{name}_until", getattr(self, f"{name}_until"), errors)
        if since is not None and until is not None and since >= until:
            errors.append(FieldError(f"{name}_until", "range_empty", f"must be later than {name}_since"))
        return TimeRange(since, until)


# What `sort` may say: a minus turns the order around.
SORTS: dict[str, tuple[LinkSort, bool]] = {
    f"{sign}{sort.value}": (sort, sign == "-")
    for sort in LinkSort
    if sort is not LinkSort.STORED
    for sign in ("", "-")
}


@dataclass(frozen=True, slots=True)
class Listing:
    """One page. `count` is how many links pass; None if it was not asked for, or took too long."""

    links: tuple[Link, ...]
    next_after: Position | None
    count: int | None


@dataclass(frozen=True, slots=True)
class Retagged:
    """How many links were changed; `is_done`: none is left that has the tag."""

    changed: int
    is_done: bool


class Listings:
    """
    Lists links, and changes their tags; those beyond the reach of the caller are none.

    Args:
        deliver: called with the changes of each batch after its commit.
        clock: the present time, timezone-aware UTC.
        monotonic: seconds that only grow.
    """

    def __init__(
        self,
        store: FindStore,
        deliver: Deliver,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._clock = clock
        self._monotonic = monotonic

    async def page(
        self, query: LinkQuery, *, after: Position | None, limit: int, counted: bool = False
    ) -> Listing:
        """
        Return one page of the links that are not removed and pass *query*; *counted*: and how many do.

        Raises:
            Unavailable: the store did not answer.
        """
        now = self._clock()
        asked = reached(reach(), query)
        if asked is None:
            return Listing((), None, 0 if counted else None)
        page = await self._store.find(asked, after=after, limit=limit, now=now)
        count = None
        if counted:
            limit_s = min(COUNT_S, left_s(self._monotonic()) / 2)
            count = await self._store.count(asked, now=now, limit_s=limit_s) if limit_s > 0 else None
        return Listing(page.links, page.next_after, count)

    async def totals(self) -> Totals | None:
        """
        Return how many links there are, and their clicks; None if adding them up takes too long.

        Raises:
            Unavailable: the store did not answer.
        """
        limit_s = min(COUNT_S, left_s(self._monotonic()) / 2)
        return await self._store.totals(limit_s=limit_s) if limit_s > 0 else None

    async def tags(self, *, after: str | None, limit: int) -> Sequence[TagCount]:
        """
        Return up to *limit* tags in the order of their code points, those *after* it.

        Raises:
            Unavailable: the store did not answer.
        """
        return await self._store.tags(after=after, limit=limit, reach=reach())

    async def retag(self, tag: str, new: str | None) -> Retagged:
        """
        Replace *tag* by *new* on every link that has it; None removes it. Each link is changed once.

        Links are changed in batches, each a transaction with its events, until the time of the request is
        nearly over. Repeating it continues.

        Raises:
            InvalidInput: a tag breaks a rule, or both are the same.
            Unavailable: some links may have been changed.
        """
        errors = [
            FieldError(name, "tag_invalid", problem)
            for name, one in (("tag", tag), ("name", new))
            if one is not None and (problem := rules.tag_problem(one)) is not None
        ]
        if tag == new:
            errors.append(FieldError("name", "tag_unchanged", "must be another tag"))
        if errors:
            raise InvalidInput(errors)
        changed = 0
        while True:
            batch = await self._store.retag(tag, new, limit=MAX_RETAGGED, now=self._clock(), reach=reach())
            if not batch:
                return Retagged(changed, is_done=True)
            changed += len(batch)
            await self._deliver(batch)
            if left_s(self._monotonic()) < _BATCH_S:
                return Retagged(changed, is_done=False)


def reached(reach: Reach, query: LinkQuery) -> LinkQuery | None:
    """Return the query of what *query* asks for within *reach*; None if that can be no link."""
    if reach.owner is not None:
        if query.owner not in (None, reach.owner):
            return None
        query = replace(query, owner=reach.owner)
    if reach.domains is None:
        return query
    if query.domain is None:
        return replace(query, domains=tuple(sorted(reach.domains)))
    return query if query.domain in reach.domains else None


def _checked(errors: list[FieldError], text: str | None, read: Callable[[str], _T]) -> _T | None:
    """Return what *read* makes of *text*; its errors join the others."""
    if text is None:
        return None
    try:
        return read(text)
    except InvalidInput as error:
        errors += error.errors
        return None


def _long_url(text: str) -> str:
    # Links of every scheme are found, whatever may be made now.
    scheme = text.partition(":")[0].lower()
    return target.canonical(text, own_hosts=(), policy=TargetPolicy(schemes=WEB | {scheme}))


def _host(text: str) -> str:
    """Return the canonical form of the host *text*, as targets have it."""
    try:
        return target.canonical_host(text)
    except InvalidInput as error:
        raise InvalidInput([FieldError("host", one.code, one.message) for one in error.errors]) from None
