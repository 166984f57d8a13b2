"""Reads the body of a request: whole, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

from app.resilience.deadline import BODY_S
from app.web import errors
from app.web import headers as fields
from app.web.endpoint import Upload
from app.web.response import Response

MAX_BODY_BYTES = 64 * 1024


async def read_body(
    headers: Any,
    protocol: Any,
    *,
    max_bytes: int = MAX_BODY_BYTES,
    body_s: float = BODY_S,
    shows_its_end: bool = False,
) -> bytes | Response:
    """
    Return the body, of *max_bytes* within *body_s* at most, or the answer that refuses it.

    granian ends a body that breaks off like a complete one. Only Content-Length shows the difference,
    so a body without one is refused (RFC 9112 §6.3 allows that), unless its content *shows_its_end*.
    """
    is_chunked = "transfer-encoding" in headers
    if is_chunked and not shows_its_end:
        return errors.length_required()
    declared = headers.get("content-length", "0")
    if len(declared) > 18 or int(declared) > max_bytes:
        return errors.body_too_large(max_bytes)
    content = bytearray()
    try:
        async with asyncio.timeout(body_s):
            async for chunk in protocol:
                content += chunk
                if len(content) > max_bytes:
                    return errors.body_too_large(max_bytes)
    except TimeoutError:
        return errors.body_timeout()
    if len(content) != int(declared) and not is_chunked:
        return errors.body_cut_off(len(content), int(declared))
    return bytes(content)


class LargeBody:
    """A body that its handler reads, once it knows that the client may send it."""

    def __init__(self, headers: Any, protocol: Any, upload: Upload) -> None:
        self._headers = headers
        self._protocol = protocol
        self._upload = upload
        # Until then the connection has no place for another request.
        self.is_read = False

    async def load(self) -> bytes | Response:
        """Return the body, or the answer that refuses it."""
        upload = self._upload
        body = await read_body(
            self._headers, self._protocol, max_bytes=upload.max_bytes, body_s=upload.body_s
        )
        self.is_read = isinstance(body, bytes)
        return body

    async def spool(self, file: BinaryIO) -> Response | None:
        """
        Write the body to *file*; return the answer that refuses it.

        Each chunk has the time of the upload.
        """
        upload, length = self._upload, self.length
        if length is None:
            return errors.length_required()
        if length > upload.max_bytes:
            return errors.body_too_large(upload.max_bytes)
        received, chunks = 0, self.chunks()
        while True:
            try:
                async with asyncio.timeout(upload.body_s):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                return errors.body_timeout()
            if chunk is None:
                break
            received += len(chunk)
            if received > length:
                return errors.body_too_large(length)
            await asyncio.to_thread(file.write, chunk)
        if received != length:
            return errors.body_cut_off(received, length)
        self.is_read = True
        return None

    @property
    def length(self) -> int | None:
        """The bytes that the head announces; None if it does not."""
        declared = self._headers.get("content-length", "")
        return int(declared) if declared and "transfer-encoding" not in self._headers else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, however long it is."""
        async for chunk in self._protocol:
            yield chunk


def is_small(headers: Any) -> bool:
    """Return whether the body can be read before the client is known."""
    declared = headers.get("content-length", "0")
    if fields.is_lines(headers.get("content-type", "")):
        return False  # they are answered while they arrive
    return "transfer-encoding" not in headers and len(declared) <= 18 and int(declared) <= MAX_BODY_BYTES
