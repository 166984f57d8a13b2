"""The minimum on granian: a constant 302."""

from __future__ import annotations

from typing import Any

HEADERS = [
    ("location", "https://example.com/a/long/path?with=query"),
    ("cache-control", "private, no-cache, max-age=0"),
]


async def app(_scope: Any, protocol: Any) -> None:
    """Answer every request with the same redirect."""
    protocol.response_empty(302, HEADERS)
