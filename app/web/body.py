"""Reads the body of a request: whole, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

from app.resilience.deadline import BODY_S
from app.web import errors
from app.web.response import Response

MAX_BODY_BYTES = 64 * 1024


async def read_body(headers: Any, protocol: Any) -> bytes | Response:
    """
    Return the body, of `MAX_BODY_BYTES` within `BODY_S` at most, or the answer that refuses it.

    granian ends a body that breaks off like a complete one. Only Content-Length shows the difference,
    so a body without one is refused (RFC 9112 §6.3 allows that).
    """
    if "transfer-encoding" in headers:
        return errors.length_required()
    declared = headers.get("content-length", "0")
    if len(declared) > 18 or int(declared) > MAX_BODY_BYTES:
        return errors.body_too_large(MAX_BODY_BYTES)
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in protocol:
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    return errors.body_too_large(MAX_BODY_BYTES)
    except TimeoutError:
        return errors.body_timeout()
    if len(content) != int(declared):
        return errors.body_cut_off(len(content), int(declared))
    return bytes(content)
