"""Links: one, many, and listings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Unpack

from hopgate_client import models
from hopgate_client.calls import Call, Repeat, body, given, jsonable, once_at, query, segment
from hopgate_client.errors import HopgateError, UnexpectedAnswer
from hopgate_client.fields import Filters, LinkChanges, LinkEdit, LinkName, NewLink, NewLinkFields, Time

if TYPE_CHECKING:
    from hopgate_client.aio.client import AsyncHopgate

# Of one request; the gateway takes no more.
BATCH = 5000
# The gateway takes longer for a batch than for anything else.
_BATCH_DEADLINE_S, _BATCH_TIMEOUT_S = 120.0, 45.0
_PAGE = 200


class Links:
    """The links of a gateway. `domain` is the host of a link; None: that of the gateway's base URL."""

    def __init__(self, client: AsyncHopgate) -> None:
        self._client = client

    async def create(self, long_url: str, **fields: Unpack[NewLinkFields]) -> models.Link:
        """
        Create a link, exactly once: each attempt has the same Idempotency-Key.

        Raises:
            Conflict: the slug, or the external id, is that of another link.
        """
        call = Call("POST", "/links", body=body(long_url=long_url, **fields), repeat=Repeat.BY_KEY)
        answer = await self._client.send(call)
        if not answer.body:
            where = answer.headers.get("location", "")
            raise UnexpectedAnswer(
                f"an earlier attempt has created the link, {where}, which this key may not read",
                may_have_applied=True,
            )
        return models.read(models.Link, answer.json())

    async def get(self, slug: str, *, domain: str | None = None) -> models.Link:
        """Return a link. Raises NotFound; Gone: it was removed."""
        call = Call("GET", _path(slug), query(domain=domain), repeat=Repeat.ALWAYS)
        return models.read(models.Link, (await self._client.send(call)).json())

    async def change(
        self,
        slug: str,
        *,
        domain: str | None = None,
        if_version: int | None = None,
        **changes: Unpack[LinkChanges],
    ) -> models.Link | None:
        """
        Change what is named of a link, at *if_version* alone if there is one: then attempts are repeated.

        Returns:
            The link; None if the key may not read it.

        Raises:
            PreconditionFailed: the link is at another version.
        """
        call = Call(
            "PATCH",
            _path(slug),
            query(domain=domain),
            body=body(**changes),
            repeat=once_at(if_version),
            if_version=if_version,
        )
        return _maybe(await self._client.send(call))

    async def remove(self, slug: str, *, domain: str | None = None, if_version: int | None = None) -> None:
        """Remove a link, at *if_version* alone if there is one: then attempts are repeated."""
        call = Call(
            "DELETE",
            _path(slug),
            query(domain=domain),
            repeat=once_at(if_version),
            if_version=if_version,
        )
        await self._client.send(call)

    async def undo(
        self, slug: str, *, domain: str | None = None, if_version: int | None = None
    ) -> models.Link | None:
        """
        Undo the last change of a link, if that made *if_version*: then attempts are repeated.

        Returns:
            The link; None if it is removed again, or the key may not read it.
        """
        call = Call(
            "POST",
            _path(slug, "/undo"),
            query(domain=domain),
            repeat=once_at(if_version),
            if_version=if_version,
        )
        return _maybe(await self._client.send(call))

    async def stats(
        self,
        slug: str,
        *,
        domain: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        interval: str | None = None,
        time_zone: str | None = None,
        compare: bool | None = None,
        top: int | None = None,
    ) -> models.LinkStats:
        """
        Return how often a link was visited, and what its visits looked like; by default in 24 hours.

        Args:
            interval: `hour` or `day`: adds `series`, of days in *time_zone* (`Europe/Vienna`; default UTC).
            compare: adds the period `before`.
            top: how many values of each field are named, 1 to 250; 10 without it.
        """
        asked = query(
            domain=domain,
            since=since,
            until=until,
            interval=interval,
            time_zone=time_zone,
            compare=compare,
            top=top,
        )
        call = Call("GET", _path(slug, "/stats"), asked, repeat=Repeat.ALWAYS)
        return models.read(models.LinkStats, (await self._client.send(call)).json())

    async def stats_csv(
        self,
        slug: str,
        *,
        domain: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        interval: str | None = None,
        time_zone: str | None = None,
        compare: bool | None = None,
        top: int | None = None,
    ) -> str:
        """Return the same as CSV, a line for each number: section, start, value, visits."""
        asked = query(
            domain=domain,
            since=since,
            until=until,
            interval=interval,
            time_zone=time_zone,
            compare=compare,
            top=top,
            format="csv",
        )
        call = Call("GET", _path(slug, "/stats"), asked, repeat=Repeat.ALWAYS)
        return (await self._client.send(call)).body.decode()

    async def history(
        self,
        slug: str,
        *,
        domain: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> models.LinkHistory:
        """Return a page of the changes of a link, removed or not, newest first."""
        asked = query(domain=domain, limit=limit, cursor=cursor)
        call = Call("GET", _path(slug, "/history"), asked, repeat=Repeat.ALWAYS)
        return models.read(models.LinkHistory, (await self._client.send(call)).json())

    async def page(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        count: bool = False,
        **filters: Unpack[Filters],
    ) -> models.LinkPage:
        """Return a page of the links that pass *filters*, newest first or by `sort`."""
        asked = query(limit=limit, cursor=cursor, count=count or None, **filters)
        call = Call("GET", "/links", asked, repeat=Repeat.ALWAYS)
        return models.read(models.LinkPage, (await self._client.send(call)).json())

    async def list(self, *, page_size: int = _PAGE, **filters: Unpack[Filters]) -> AsyncIterator[models.Link]:
        """
        Give each link that passes *filters*, a page at a time.

        A link that stays as it is while pages are read is given exactly once.
        """
        cursor = None
        while True:
            page = await self.page(limit=page_size, cursor=cursor, **filters)
            for link in page.links:
                yield link
            cursor = page.next_cursor
            if cursor is None:
                return

    async def create_many(
        self,
        items: Iterable[NewLink],
        *,
        atomic: bool = False,
        upsert: bool = False,
        reuse: bool = False,
    ) -> tuple[models.ItemResult, ...]:
        """
        Create links, 5,000 with each request; each request is done exactly once.

        Args:
            atomic: all or none; of one request alone.
            upsert: a link that has the `external_id` of an item is changed instead.
            reuse: a link that is as the item is returned instead.

        Returns:
            What became of each item, in order.

        Raises:
            InvalidRequest: `problem.items` says which items an atomic batch was given up for.
        """
        options = given(atomic=atomic or None, upsert="external_id" if upsert else None, reuse=reuse or None)
        return await self._many("POST", items, options)

    async def change_many(
        self, items: Iterable[LinkEdit], *, atomic: bool = False
    ) -> tuple[models.ItemResult, ...]:
        """Change links, as `create_many` creates them; an item names the slug, and `version` if need be."""
        return await self._many("PATCH", items, given(atomic=atomic or None))

    async def remove_many(
        self, items: Iterable[str | LinkName], *, atomic: bool = False
    ) -> tuple[models.ItemResult, ...]:
        """Remove links, by slug or by what names them, as `create_many` creates them."""
        return await self._many("DELETE", items, given(atomic=atomic or None))

    async def _many(
        self, method: str, items: Iterable[object], options: Mapping[str, Any]
    ) -> tuple[models.ItemResult, ...]:
        done: list[models.ItemResult] = []
        rest = iter(items)
        batch = [*islice(rest, BATCH)]
        if "atomic" in options and next(rest, None) is not None:
            raise ValueError(f"an atomic batch has at most {BATCH} items")
        while batch:
            call = Call(
                method,
                "/links/bulk",
                body={"links": jsonable(batch), **options},
                repeat=Repeat.BY_KEY,
                deadline_s=_BATCH_DEADLINE_S,
                timeout_s=_BATCH_TIMEOUT_S,
            )
            try:
                document = (await self._client.send(call)).json()
            except HopgateError as error:
                error.done = tuple(done)
                raise
            done += models.read(models.ItemResults, document).results
            batch = [*islice(rest, BATCH)]
        return tuple(done)


def _path(slug: str, rest: str = "") -> str:
    return f"/links/{segment(slug)}{rest}"


def _maybe(answer: Any) -> models.Link | None:
    return models.read(models.Link, answer.json()) if answer.body else None
