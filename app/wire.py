"""
Events and cache entries as bytes, and the names of exchanges, queues and keys.

Shared by whoever writes and whoever reads, so the two cannot drift apart. Every message
names its format (`"v":1`); an unknown format is poison, not a guess.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec

from app.domain.errors import PoisonMessage
from app.domain.events import ClicksCounted, Event, LinkChanged, LinksMissed
from app.domain.link import Resolution, Slug
from app.domain.slug import MAX_LENGTH

# --- names -----------------------------------------------------------------------------

EVENTS_EXCHANGE = "hopgate.events"  # direct: routes to the work queues and their companions
CACHE_QUEUE = "hopgate.cache"  # quorum: what the caches have to hear of, for the workers
# quorum: counted clicks, for the workers. A queue of its own: adding up is slower than a cache
# write and may pile up for hours, and an edit must not wait behind it.
CLICKS_QUEUE = "hopgate.clicks"
WORK_QUEUES = (CACHE_QUEUE, CLICKS_QUEUE)
INVALIDATIONS_EXCHANGE = "hopgate.invalidations"  # fanout: one exclusive queue per gateway
RETRY_DELAYS_S = (1, 10, 60)  # queues <work queue>.retry.<n>s dead-letter back after n seconds
ATTEMPT_HEADER = "x-hopgate-attempt"


def work_queue(event: Event) -> str:
    """Return the name of the queue that *event* belongs in."""
    return CLICKS_QUEUE if isinstance(event, ClicksCounted) else CACHE_QUEUE


def retry_queue(delay_s: int, queue: str = CACHE_QUEUE) -> str:
    """Return the name of the queue that holds messages of *queue* back for *delay_s* seconds."""
    return f"{queue}.retry.{delay_s}s"


def dead_queue(queue: str = CACHE_QUEUE) -> str:
    """Return the name of the queue that holds what *queue* parked; replayable."""
    return f"{queue}.dead"


DEAD_QUEUE = dead_queue()


def cache_key(slug: Slug) -> str:
    """Return the Redis key of *slug*; the braces keep its companions on the same shard."""
    return f"hg:link:{{{slug}}}"


def limit_prefix(policy: str) -> str:
    """Return what the Redis keys of the clients that *policy* limits begin with."""
    return f"hg:limit:{policy}:"


def slug_of_key(key: bytes) -> Slug:
    """Return the slug whose Redis key *key* is."""
    return Slug(key.decode("utf-8", "replace").removeprefix("hg:link:{").removesuffix("}"))


# --- events ----------------------------------------------------------------------------

MAX_SLUGS_A_MESSAGE = 1000
MAX_CLICKED_SLUGS_A_MESSAGE = 5000
# Lua numbers are doubles: beyond 2^53 two versions would compare equal.
MAX_VERSION = 2**53 - 1
_LAST_HOUR = 253_402_297_200  # of the year 9999

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


_encoder = msgspec.json.Encoder()
# What a decoder raises, invalid UTF-8 inside a string included.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_event_decoder = msgspec.json.Decoder(_Changed | _Missed | _Counted)
_changes_decoder = msgspec.json.Decoder(list[_Changed])


def encode_event(event: Event) -> bytes:
    """Return *event* as JSON."""
    if isinstance(event, LinkChanged):
        return _encoder.encode(_Changed(1, event.slug, event.version))
    if isinstance(event, ClicksCounted):
        clicks = {str(slug): n for slug, n in event.clicks.items()}
        return _encoder.encode(_Counted(1, event.batch, int(event.hour.timestamp()), clicks))
    return _encoder.encode(_Missed(1, event.slugs))


def decode_event(body: bytes) -> Event:
    """
    Return the event in *body*.

    Raises:
        PoisonMessage: it is none, or of a format this code does not know.
    """
    try:
        message = _event_decoder.decode(body)
    except _UNREADABLE as error:
        raise PoisonMessage(str(error)) from error
    if isinstance(message, _Changed):
        return LinkChanged(Slug(message.slug), message.version)
    if isinstance(message, _Counted):
        hour = datetime.fromtimestamp(message.hour, UTC)
        return ClicksCounted(message.batch, hour, {Slug(slug): n for slug, n in message.clicks.items()})
    return LinksMissed(tuple(Slug(slug) for slug in message.slugs))


def encode_changes(changes: list[LinkChanged]) -> bytes:
    """Return *changes* as one fan-out message."""
    return _encoder.encode([_Changed(1, change.slug, change.version) for change in changes])


def decode_changes(body: bytes) -> list[LinkChanged]:
    """
    Return the changes in a fan-out message.

    Raises:
        PoisonMessage: it is none, or of a format this code does not know.
    """
    try:
        return [LinkChanged(Slug(c.slug), c.version) for c in _changes_decoder.decode(body)]
    except _UNREADABLE as error:
        raise PoisonMessage(str(error)) from error


# --- cache entries ---------------------------------------------------------------------


class _Entry(msgspec.Struct, omit_defaults=True):
    url: str | None = None
    code: int = 302
    query: bool = False
    start: float | None = None
    end: float | None = None
    metered: bool = False  # what was written before there were limits has none


_entry_decoder = msgspec.json.Decoder(_Entry)


def encode_resolution(resolution: Resolution) -> bytes:
    """Return *resolution* without its slug; the version stands before the first `|`, where Lua reads it."""
    entry = _Entry(
        resolution.long_url,
        resolution.redirect_code,
        resolution.forward_query,
        resolution.valid_from,
        resolution.expires_at,
        resolution.metered,
    )
    return b"%d|%s" % (resolution.version, _encoder.encode(entry))


def decode_resolution(slug: Slug, value: bytes) -> Resolution | None:
    """Return the resolution of *slug* in *value*; None if it cannot be read, which is a miss."""
    version, separator, body = value.partition(b"|")
    if not separator or not version.isdigit() or len(version) > 16 or int(version) > MAX_VERSION:
        return None
    try:
        entry = _entry_decoder.decode(body)
    except _UNREADABLE:
        return None
    return Resolution(
        slug,
        int(version),
        entry.url,
        entry.code,
        entry.query,
        entry.start,
        entry.end,
        entry.metered,
    )
