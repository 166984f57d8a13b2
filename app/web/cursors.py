"""
Cursors: a position in a listing, with a digest of both, so that a cursor of another listing is refused.

The digest is no secret. What a cursor says is checked as any other input, and shows nothing that the page
before did not.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import fields
from hashlib import blake2b
from typing import Any

import msgspec

from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Slug
from app.domain.link_key import is_key
from app.domain.rules import MAX_TITLE_LENGTH
from app.ports import LinkQuery, LinkSort, Position
from app.web import patterns

_DIGEST_BYTES = 9
_LEGACY = re.compile(patterns.CURSOR)
_LONG = 2**63
# What `datetime` can hold, in microseconds since 1970.
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
_UNFILTERED = LinkQuery()
_MARK = "q"


def of_links(query: LinkQuery, position: Position | None) -> str | None:
    """Return the cursor of *position* in the listing of *query*; None at the end."""
    if position is None:
        return None
    if query == _UNFILTERED:
        # The form of earlier releases, whose pages may be continued by this one and the other way around.
        return base64.urlsafe_b64encode(b"%d" % int(position.tie)).decode().rstrip("=")
    return _encoded(_listing(query), position)


def position_in(query: LinkQuery, cursor: str | None) -> Position | None:
    """
    Return the position that *cursor* has in the listing of *query*.

    Raises:
        InvalidInput: it is none of this listing.
    """
    if cursor is None:
        return None
    if query == _UNFILTERED and _LEGACY.fullmatch(cursor) is not None:
        number = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return Position(number, number)
    match _decoded(_listing(query), cursor):
        case [key, tie] if _is_position(query.sort, key, tie):
            return Position(key, tie)
    raise _refusal()


def of_tags(tag: str) -> str:
    """Return the cursor after *tag* in the listing of tags."""
    return _encoded("tags", [tag])


def tag_of(cursor: str | None) -> str | None:
    """
    Return the tag that *cursor* continues after.

    Raises:
        InvalidInput: it is no cursor of the tags.
    """
    if cursor is None:
        return None
    match _decoded("tags", cursor):
        case [str() as tag] if "\0" not in tag:
            return tag
    raise _refusal()


def of_deliveries(webhook_id: str, position: int | None) -> str | None:
    """Return the cursor before *position* in the deliveries of a webhook; None at the end."""
    return None if position is None else _encoded(f"deliveries {webhook_id}", [position])


def delivery_in(webhook_id: str, cursor: str | None) -> int | None:
    """
    Return the position before which *cursor* continues the deliveries of a webhook.

    Raises:
        InvalidInput: it is no cursor of these deliveries.
    """
    return _number(f"deliveries {webhook_id}", cursor)


def of_history(slug: Slug, number: int | None) -> str | None:
    """Return the cursor before the change *number* in the history of *slug*; None at the end."""
    return None if number is None else _encoded(f"history {slug}", [number])


def number_in(slug: Slug, cursor: str | None) -> int | None:
    """
    Return the change before which *cursor* continues the history of *slug*.

    Raises:
        InvalidInput: it is no cursor of this history.
    """
    return _number(f"history {slug}", cursor)


def _number(listing: str, cursor: str | None) -> int | None:
    if cursor is None:
        return None
    match _decoded(listing, cursor):
        case [int() as number] if type(number) is int and 0 < number < _LONG:
            return number
    raise _refusal()


def _listing(query: LinkQuery) -> str:
    """Return what tells *query* from others; filters that it leaves out play no part."""
    asked = {one.name: getattr(query, one.name) for one in fields(query)}
    given = {name: value for name, value in asked.items() if value != getattr(_UNFILTERED, name)}
    return msgspec.json.encode(given, order="sorted").decode()


def _encoded(listing: str, position: Sequence[str | int]) -> str:
    body = msgspec.json.encode(list(position))
    return _written(_digest(listing, body) + body)


def _written(content: bytes) -> str:
    return _MARK + base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(listing: str, cursor: str) -> Any:
    """Return what *cursor* says of its position; None if it is none of *listing*."""
    if not cursor.startswith(_MARK) or re.fullmatch(patterns.LISTING_CURSOR, cursor) is None:
        return None
    text = cursor.removeprefix(_MARK)
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        # The last character may have bits that play no part.
        is_own = digest == _digest(listing, body) and cursor == _written(content)
        return msgspec.json.decode(body) if is_own else None
    except (binascii.Error, msgspec.DecodeError):
        return None


def _digest(listing: str, body: bytes) -> bytes:
    return blake2b(b"%b\n%b" % (listing.encode(), body), digest_size=_DIGEST_BYTES).digest()


def _is_position(sort: LinkSort, key: object, tie: object) -> bool:
    is_slug = isinstance(tie, str) and is_key(tie)
    is_id = type(tie) is int and 0 <= tie < _LONG
    match sort:
        case LinkSort.STORED:
            return is_id and key == tie
        case LinkSort.CREATED | LinkSort.UPDATED:
            return is_id and type(key) is int and _FIRST_US <= key <= _LAST_US
        case LinkSort.CLICKS:
            return is_slug and type(key) is int and 0 <= key < _LONG
        case LinkSort.TITLE:
            return is_id and isinstance(key, str) and "\0" not in key and len(key) <= MAX_TITLE_LENGTH
        case LinkSort.SLUG:
            return is_slug and key == tie


def _refusal() -> InvalidInput:
    message = "is not a cursor of this listing, with these filters and this order"
    return InvalidInput([FieldError("cursor", "cursor_invalid", message)])
