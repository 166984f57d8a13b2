"""The gateway that a client speaks to: its URL, its key, and the head of a file that is sent to it."""

from __future__ import annotations

import os
from typing import IO
from urllib.parse import urlsplit


def checked_url(url: str) -> str:
    """
    Return *url* without a slash at its end.

    Raises:
        ValueError: it is no URL of a gateway. The message does not quote it: it may hold a password.
    """
    parts = urlsplit(url)
    try:
        has_port = parts.port != 0
    except ValueError:
        has_port = False
    if parts.scheme not in {"http", "https"} or not parts.hostname or not has_port:
        raise ValueError("the gateway's URL must begin with http:// or https:// and name a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("the gateway's URL must have no user, query or fragment: pass the key as key")
    return url.rstrip("/")


def checked_key(key: str) -> str:
    """Return *key*; raises ValueError, without quoting it, if no API key can be like it."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key must be printable ASCII characters without spaces")
    return key


def file_headers(file: IO[bytes]) -> dict[str, str]:
    """Return what announces *file*, which is sent from its start."""
    length = file.seek(0, os.SEEK_END)
    return {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
