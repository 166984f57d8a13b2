"""
Wire formats: events and cache entries as bytes, names of exchanges, queues and keys.

Writers and readers share this module, so formats cannot drift apart. Every message carries its
format version (`"v":1`); a message of another version is poison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, assert_never

import msgspec

from app.domain.errors import PoisonMessage
from app.domain.events import ClicksCounted, Event, LinkChanged, LinksMissed, VisitsDescribed, WorkQueue
from app.domain.link import DEFAULT_REDIRECT_CODE, REDIRECT_CODES, Resolution, Slug
from app.domain.origin import MAX_BAGGAGE, MAX_TRACESTATE, Origin, passed_on, read_traceparent
from app.domain.slug import MAX_LENGTH
from app.domain.visits import MAX_VALUE_LENGTH, Dimension, LinkVisits

# --- names -----------------------------------------------------------------------------

EVENTS_EXCHANGE = "hopgate.events"  # direct: to work queues and their retry and dead-letter queues
CACHE_QUEUE = WorkQueue.CACHE
CLICKS_QUEUE = WorkQueue.CLICKS
WORK_QUEUES = tuple(WorkQueue)
INVALIDATIONS_EXCHANGE = "hopgate.invalidations"  # fanout: one exclusive queue for each gateway
RETRY_DELAYS_S = (1, 10, 60)  # queues <work queue>.retry.<n>s dead-letter to the work queue after n seconds
ATTEMPT_HEADER = "x-hopgate-attempt"
# Of an event: when its change was committed, or else when it was published, in milliseconds of unix time.
# Of an announcement: when each of its changes was committed, 0 if that is unknown. A header, because
# processes of an earlier version refuse bodies with fields that they do not know.
TIME_HEADER = "x-hopgate-time"


def retry_queue(delay_s: int, queue: str = CACHE_QUEUE) -> str:
    """Return the name of the queue that delays the retries of *queue* by *delay_s* seconds."""
    return f"{queue}.retry.{delay_s}s"


def dead_queue(queue: str = CACHE_QUEUE) -> str:
    """Return the name of the dead-letter queue of *queue*."""
    return f"{queue}.dead"


DEAD_QUEUE = dead_queue()


def cache_key(slug: Slug) -> str:
    """Return the Redis key of *slug*; the braces make it the hash tag."""
    return f"hg:link:{{{slug}}}"


def limit_prefix(policy: str) -> str:
    """Return the prefix of the Redis keys of rate limit *policy*."""
    return f"hg:limit:{policy}:"


def wide_limit_prefix(policy: str) -> str:
    """Return the prefix of the Redis keys of rate limit *policy* for IPv6 networks of 48 bits."""
    return f"hg:limit:wide-{policy}:"


def slug_of_key(key: bytes) -> Slug:
    """Return the slug of the Redis key *key*."""
    return Slug(key.decode("utf-8", "replace").removeprefix("hg:link:{").removesuffix("}"))


# --- events ----------------------------------------------------------------------------

MAX_SLUGS_A_MESSAGE = 1000
MAX_CLICKED_SLUGS_A_MESSAGE = 5000
# Lua numbers are doubles: above 2^53 two versions could compare equal.
MAX_VERSION = 2**53 - 1
_LAST_HOUR = 253_402_297_200  # the last hour of the year 9999, in unix seconds

_SlugText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LENGTH)]


class _Changed(msgspec.Struct, tag_field="kind", tag="changed", forbid_unknown_fields=True):
    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    slug: _SlugText
    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]


class _Missed(msgspec.Struct, tag_field="kind", tag="missed", forbid_unknown_fields=True):
    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    slugs: Annotated[tuple[_SlugText, ...], msgspec.Meta(min_length=1, max_length=MAX_SLUGS_A_MESSAGE)]


_Clicks = Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]


class _Counted(msgspec.Struct, tag_field="kind", tag="clicks", forbid_unknown_fields=True):
    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    batch: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    hour: Annotated[int, msgspec.Meta(ge=0, le=_LAST_HOUR, multiple_of=3600)]  # unix seconds
    clicks: Annotated[
        dict[_SlugText, _Clicks], msgspec.Meta(min_length=1, max_length=MAX_CLICKED_SLUGS_A_MESSAGE)
    ]


class _LinkVisits(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    # A dimension of a later release is left out: its visits are in the others.
    by: dict[str, dict[Annotated[str, msgspec.Meta(max_length=MAX_VALUE_LENGTH)], _Clicks]]
    visitors: tuple[Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)], ...] = ()


class _Described(msgspec.Struct, tag_field="kind", tag="visits", forbid_unknown_fields=True):
    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    batch: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    hour: Annotated[int, msgspec.Meta(ge=0, le=_LAST_HOUR, multiple_of=3600)]
    links: Annotated[
        dict[_SlugText, _LinkVisits], msgspec.Meta(min_length=1, max_length=MAX_CLICKED_SLUGS_A_MESSAGE)
    ]


_Message = _Changed | _Missed | _Counted | _Described

_DIMENSIONS = {str(dimension): dimension for dimension in Dimension}
_encoder = msgspec.json.Encoder()
# The errors of a decoder; UnicodeDecodeError comes from invalid UTF-8 inside a string.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_event_decoder = msgspec.json.Decoder(_Message)
_changes_decoder = msgspec.json.Decoder(list[_Changed])


def encode_event(event: Event) -> bytes:
    """Return *event* as JSON."""
    return _encoder.encode(_message(event))


def _message(event: Event) -> _Message:
    match event:
        case LinkChanged(slug, version):
            return _Changed(1, slug, version)
        case LinksMissed(slugs):
            return _Missed(1, slugs)
        case ClicksCounted(batch, hour, clicks):
            return _Counted(1, batch, int(hour.timestamp()), {str(slug): n for slug, n in clicks.items()})
        case VisitsDescribed(batch, hour, visits):
            links = {
                str(slug): _LinkVisits({str(by): dict(n) for by, n in one.counts.items()}, one.visitors)
                for slug, one in visits.items()
            }
            return _Described(1, batch, int(hour.timestamp()), links)
        case _:
            assert_never(event)


def decode_event(body: bytes) -> Event:
    """
    Return the event in *body*.

    Raises:
        PoisonMessage: *body* is not an event, or has another format version.
    """
    try:
        message = _event_decoder.decode(body)
    except _UNREADABLE as error:
        raise PoisonMessage(str(error)) from error
    match message:
        case _Changed():
            return LinkChanged(Slug(message.slug), message.version)
        case _Missed():
            return LinksMissed(tuple(Slug(slug) for slug in message.slugs))
        case _Counted():
            hour = datetime.fromtimestamp(message.hour, UTC)
            return ClicksCounted(message.batch, hour, {Slug(slug): n for slug, n in message.clicks.items()})
        case _Described():
            hour = datetime.fromtimestamp(message.hour, UTC)
            links = {Slug(slug): _link_visits(one) for slug, one in message.links.items()}
            return VisitsDescribed(message.batch, hour, links)
        case _:
            assert_never(message)


def _link_visits(one: _LinkVisits) -> LinkVisits:
    counts = {_DIMENSIONS[by]: counts for by, counts in one.by.items() if by in _DIMENSIONS}
    return LinkVisits(counts, one.visitors)


def encode_time(event: Event, now: float) -> int:
    """Return the value of `TIME_HEADER` for *event*, which is published at *now* (unix seconds)."""
    committed_at = event.committed_at if isinstance(event, LinkChanged) else None
    return _millis(now if committed_at is None else committed_at)


def decode_time(value: object) -> float | None:
    """Return the unix seconds in a `TIME_HEADER`; None if there is none, or it is unreadable."""
    return value / 1000 if type(value) is int and 0 < value < _LAST_HOUR * 1000 else None


def encode_times(changes: Sequence[LinkChanged]) -> list[int]:
    """Return the value of `TIME_HEADER` for *changes*, as one fan-out message."""
    return [_millis(change.committed_at or 0.0) for change in changes]


def with_times(changes: Sequence[LinkChanged], value: object) -> Sequence[LinkChanged]:
    """Return *changes* with the times in their `TIME_HEADER`, if it is readable."""
    if not isinstance(value, list) or len(value) != len(changes):
        return changes
    return [
        replace(change, committed_at=decode_time(time)) for change, time in zip(changes, value, strict=True)
    ]


def _millis(seconds: float) -> int:
    return round(seconds * 1000)


def encode_changes(changes: list[LinkChanged]) -> bytes:
    """Return *changes* as one fan-out message."""
    return _encoder.encode([_Changed(1, change.slug, change.version) for change in changes])


def decode_changes(body: bytes) -> list[LinkChanged]:
    """
    Return the changes in a fan-out message.

    Raises:
        PoisonMessage: *body* is not a list of changes, or has another format version.
    """
    try:
        return [LinkChanged(Slug(c.slug), c.version) for c in _changes_decoder.decode(body)]
    except _UNREADABLE as error:
        raise PoisonMessage(str(error)) from error


# --- origins ---------------------------------------------------------------------------

# When the request of the trace began, in unix seconds: an old one is not continued.
_AT_HEADER = "x-hopgate-traced-at"
_headers_decoder = msgspec.json.Decoder(dict[str, str])


def origin_headers(origin: Origin | None) -> dict[str, str]:
    """Return *origin* as headers of a message, by the names that W3C Trace Context gives them."""
    if origin is None:
        return {}
    headers = {"traceparent": origin.traceparent, _AT_HEADER: f"{origin.at:.3f}"}
    if origin.tracestate:
        headers["tracestate"] = origin.tracestate
    if origin.baggage:
        headers["baggage"] = origin.baggage
    return headers


def read_origin(headers: Mapping[str, object]) -> Origin | None:
    """Return the origin in *headers*; None if it is missing, unreadable or not recorded."""
    text = headers.get("traceparent")
    parent = read_traceparent(text) if isinstance(text, str) else None
    if parent is None or not parent.is_sampled:
        return None
    try:
        at = float(str(headers.get(_AT_HEADER, 0)))
    except ValueError:
        at = 0.0
    return Origin(
        parent.trace_id,
        parent.span_id,
        at,
        passed_on(str(headers.get("tracestate") or ""), MAX_TRACESTATE),
        passed_on(str(headers.get("baggage") or ""), MAX_BAGGAGE),
    )


def encode_origin(origin: Origin | None) -> str | None:
    """Return *origin* as it stands in an outbox row: its headers as JSON."""
    return None if origin is None else _encoder.encode(origin_headers(origin)).decode()


def decode_origin(text: str | None) -> Origin | None:
    """Return the origin in an outbox row; None if there is none, or it is unreadable."""
    if text is None:
        return None
    try:
        return read_origin(_headers_decoder.decode(text))
    except _UNREADABLE:
        return None


# --- cache entries ---------------------------------------------------------------------


class _Entry(msgspec.Struct, omit_defaults=True):
    """A resolution without slug and version. Entries of an older release lack newer fields."""

    # First, and left out if it is 0: the Lua script of the cache reads it. A bigint of the store.
    epoch: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] = 0
    url: str | None = None
    code: int = DEFAULT_REDIRECT_CODE
    query: bool = False
    start: float | None = None
    end: float | None = None
    metered: bool = False
    override: bool = False
    over: str | None = None
    robots: str | None = None
    # Of an alias: the slug of the link whose visits are spent.
    spends: str | None = None


_entry_decoder = msgspec.json.Decoder(_Entry)


def encode_resolution(resolution: Resolution) -> bytes:
    """Return *resolution* without its slug: `<version>|<JSON>`. The Lua script reads version and epoch."""
    entry = _Entry(
        epoch=resolution.epoch,
        url=resolution.long_url,
        code=resolution.redirect_code,
        query=resolution.forward_query,
        start=resolution.valid_from,
        end=resolution.expires_at,
        metered=resolution.metered,
        override=resolution.override_query,
        over=resolution.expired_url,
        robots=resolution.robots,
        spends=resolution.spends,
    )
    return b"%d|%s" % (resolution.version, _encoder.encode(entry))


def decode_resolution(slug: Slug, value: bytes) -> Resolution | None:
    """Return the resolution of *slug* in *value*; None, a miss, if it is unreadable."""
    version, separator, body = value.partition(b"|")
    if not separator or not version.isdigit() or len(version) > 16 or int(version) > MAX_VERSION:
        return None
    try:
        entry = _entry_decoder.decode(body)
    except _UNREADABLE:
        return None
    if entry.code not in REDIRECT_CODES:
        return None
    return Resolution(
        slug=slug,
        version=int(version),
        long_url=entry.url,
        redirect_code=entry.code,
        forward_query=entry.query,
        valid_from=entry.start,
        expires_at=entry.end,
        metered=entry.metered,
        epoch=entry.epoch,
        override_query=entry.override,
        expired_url=entry.over,
        robots=entry.robots,
        spends=None if entry.spends is None else Slug(entry.spends),
    )
