"""Pages for browsers: one file each, which runs and fetches nothing but what it came with."""

from __future__ import annotations

import base64
import hashlib
import re

from app.web.response import NO_SNIFFING, Response


def page(html: bytes, *, caching: str = "no-store", connects: bool = False) -> Response:
    """
    Return *html*, whose style and script the policy of its own headers names by their digests.

    Args:
        html: UTF-8, with at most one `style` and one `script` element, both without attributes.
        caching: the value of `Cache-Control`.
        connects: may the page's script send requests to this gateway?
    """
    policy = [
        "default-src 'none'",
        *(f"{tag}-src '{digest}'" for tag in ("style", "script") if (digest := _digest(html, tag))),
        *(["connect-src 'self'"] if connects else []),
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    headers = [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", caching),
        ("content-security-policy", "; ".join(policy)),
        ("referrer-policy", "no-referrer"),
        NO_SNIFFING,
    ]
    return Response(200, headers, html)


def _digest(html: bytes, tag: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>".encode(), html, re.DOTALL)
    if found is None:
        return ""
    return f"sha256-{base64.b64encode(hashlib.sha256(found[1]).digest()).decode()}"
