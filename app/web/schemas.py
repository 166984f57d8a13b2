"""What the API reads and writes, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec

from app.domain.errors import FieldError, HopgateError, InvalidInput
from app.domain.link import DEFAULT_REDIRECT_CODE, MAX_MAX_VISITS, Link, LinkFields
from app.service.stats import HOUR, HourlyStats

MAX_SLUGS = 1000

# Described here and checked by `app.domain.rules`, like everything that a link may be.
_MaxVisits = Annotated[
    int, msgspec.Meta(extra_json_schema={"minimum": 1, "maximum": MAX_MAX_VISITS, "format": "int64"})
]


class CreateLink(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/links`. Without `slug` a random one is made."""

    long_url: str
    slug: str | None = None
    title: str = ""
    tags: tuple[str, ...] = ()
    redirect_code: int = DEFAULT_REDIRECT_CODE
    valid_from: datetime | None = None
    expires_at: datetime | None = None
    max_visits: _MaxVisits | None = None
    forward_query: bool = False
    enabled: bool = True

    def fields(self) -> LinkFields:
        """Return everything but the slug."""
        values = {name: getattr(self, name) for name in PatchLink.__struct_fields__}
        return LinkFields(**values)


class PatchLink(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PATCH /api/v1/links/{slug}`: what is left out stays as it is."""

    long_url: str | msgspec.UnsetType = msgspec.UNSET
    title: str | msgspec.UnsetType = msgspec.UNSET
    tags: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    redirect_code: int | msgspec.UnsetType = msgspec.UNSET
    valid_from: datetime | msgspec.UnsetType | None = msgspec.UNSET
    expires_at: datetime | msgspec.UnsetType | None = msgspec.UNSET
    max_visits: _MaxVisits | msgspec.UnsetType | None = msgspec.UNSET
    forward_query: bool | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET

    def changes(self) -> Mapping[str, Any]:
        """Return what was said, by name."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}


class Invalidate(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/cache/invalidate`."""

    slugs: list[str]


class Invalidated(msgspec.Struct):
    """What became of an invalidation; `unknown` are the slugs that no link has."""

    invalidated: int
    unknown: list[str]


class LinkDocument(msgspec.Struct):
    """
    A link. `version` grows by one with every change, and is the ETag.

    `visits` are the redirects given so far, to GET. They trail by about two seconds; by more
    while RabbitMQ, the worker or the database is away. They change no version. `max_visits` is how
    many redirects are given in all while there is such a limit, exactly; then 410.
    """

    slug: str
    short_url: str
    long_url: str
    title: str
    tags: tuple[str, ...]
    redirect_code: int
    valid_from: datetime | None
    expires_at: datetime | None
    max_visits: _MaxVisits | None
    forward_query: bool
    enabled: bool
    visits: int
    version: int
    created_at: datetime
    updated_at: datetime


class HourlyClicks(msgspec.Struct):
    """The redirects of one hour, named by its beginning in UTC."""

    hour: datetime
    clicks: int


class LinkStats(msgspec.Struct):
    """
    How often a link was visited: in all, and in each hour that begins in [since, until).

    Counts trail like `visits` of a link. A redirect counts in the hour in which its gateway
    flushes its counts, about a second later.
    """

    slug: str
    total: int
    since: datetime
    until: datetime
    hours: list[HourlyClicks]


class LinkPage(msgspec.Struct):
    """One page of links, newest first; `next_cursor` is null on the last."""

    links: list[LinkDocument]
    next_cursor: str | None


class FieldProblem(msgspec.Struct):
    """One broken rule."""

    field: str
    code: str
    message: str


class Problem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Every error (RFC 9457). `code` is stable; `link` is the one that stands in the way."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    errors: list[FieldProblem] = []
    link: LinkDocument | None = None
    trace_id: str | None = None


def link_document(link: Link, public_url: str) -> LinkDocument:
    """Return *link* as the API shows it."""
    fields = link.fields
    return LinkDocument(
        slug=link.slug,
        short_url=f"{public_url}/{link.slug}",
        long_url=fields.long_url,
        title=fields.title,
        tags=fields.tags,
        redirect_code=fields.redirect_code,
        valid_from=fields.valid_from,
        expires_at=fields.expires_at,
        max_visits=fields.max_visits,
        forward_query=fields.forward_query,
        enabled=fields.enabled,
        visits=link.visits,
        version=link.version,
        created_at=link.created_at,
        updated_at=link.updated_at,
    )


def stats_document(stats: HourlyStats) -> LinkStats:
    """Return *stats* as the API shows them."""
    hours = [HourlyClicks(stats.since + n * HOUR, clicks) for n, clicks in enumerate(stats.hours)]
    until = stats.since + len(stats.hours) * HOUR
    return LinkStats(stats.link.slug, stats.link.visits, stats.since, until, hours)


class UnreadableBody(HopgateError):
    """The body is not one JSON object; the message says where."""


T = TypeVar("T")


def read(body: bytes, schema: type[T]) -> T:
    """
    Return *body* as *schema*.

    Stricter than most readers, as I-JSON (RFC 7493) is: a name given twice, NaN, Infinity or
    half a surrogate pair make a body unreadable. Two readers could take the first for two
    different things, and no UTF-8 can carry the last back to the client.

    Raises:
        UnreadableBody: it is not JSON.
        InvalidInput: it is JSON of another shape.
    """
    try:
        document = json.loads(
            body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
        if b"\\u" in body:
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UnreadableBody(reason) from None
    try:
        return msgspec.convert(document, schema)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`") or "body"
        raise InvalidInput([FieldError(field, "schema", message)]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        message = "a name occurs twice in an object"
        raise ValueError(message)
    return document


def _refuse(constant: str) -> None:
    message = f"{constant} is not JSON"
    raise ValueError(message)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        message = "a number is too large"
        raise ValueError(message)
    return value
