"""QR codes as answers: drawn beside the event loop, one at a time, and kept for a while."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict

from app.domain.errors import Overloaded
from app.web import qr
from app.web.qr import Format, Style
from app.web.response import NO_SNIFFING, Response, shown_as

# Most are of a few kB.
_MAX_KEPT = 128
# That wait while one is drawn: 32 of them take some tenths of a second.
_MAX_WAITING = 32
# A short URL never changes, and neither does its code. A link may go, so caches ask once a day.
_CACHING = "max-age=86400"
# Grows with each change of what is drawn.
_DRAWING = 2
_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e]*")')
# A logo stands in an SVG as data.
_POLICY = ("content-security-policy", "default-src 'none'; img-src data:; frame-ancestors 'none'")

_Key = tuple[str, Format, Style]


class QrCodes:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._turn = asyncio.Lock()
        self._waiting = 0
        self.drawn = 0

    def has(self, text: str, wanted: Format, style: Style) -> bool:
        """Is this code kept, so that it costs nothing?"""
        return (text, wanted, style) in self._kept

    async def image(self, text: str, wanted: Format, style: Style) -> bytes:
        """
        Return the QR code of *text* in *style*, which was checked.

        Raises:
            InvalidInput: as `app.web.qr.draw` says.
            Overloaded: too many wait.
        """
        key = (text, wanted, style)
        if key not in self._kept:
            if self._waiting >= _MAX_WAITING:
                raise Overloaded
            self._waiting += 1
            try:
                async with self._turn:
                    if key not in self._kept:
                        await self._draw(key)
            finally:
                self._waiting -= 1
        self._kept.move_to_end(key)
        return self._kept[key]

    async def _draw(self, key: _Key) -> None:
        image = await asyncio.to_thread(qr.draw, *key)
        self.drawn += 1
        self._kept[key] = image
        if len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)


def etag(text: str, wanted: Format, style: Style) -> str:
    """Return the tag of a code, which is not drawn for it."""
    return f'"{hashlib.sha256(repr((_DRAWING, text, wanted, style)).encode()).hexdigest()[:32]}"'


def is_held(tag: str, if_none_match: str | None) -> bool:
    """Does the client hold the code *tag*, by what it sent in If-None-Match?"""
    if if_none_match is None:
        return False
    return if_none_match.strip(" \t") == "*" or tag in _TAG.findall(if_none_match)


def answer(image: bytes | None, wanted: Format, tag: str, *, name: str, is_public: bool) -> Response:
    """
    Return *image* as the file *name*; None: the client holds it.

    Args:
        is_public: shared caches may keep it.
    """
    headers = [
        ("cache-control", f"{'public' if is_public else 'private'}, {_CACHING}"),
        ("etag", tag),
        NO_SNIFFING,
        _POLICY,
    ]
    if image is None:
        return Response(304, headers)
    of_image = ("content-type", qr.MEDIA_TYPES[wanted]), shown_as(f"{name}.{wanted}")
    return Response(200, [*of_image, *headers], image)
