"""Pages for browsers: one file each, which runs and fetches nothing but what it came with."""

from __future__ import annotations

import base64
import hashlib
import re

from app.web.response import NO_SNIFFING, Headers, Response

_SCRIPTS = ("script", rb"<script>(.*?)</script>")


def page(
    html: bytes,
    *,
    status: int = 200,
    headers: Headers = (),
    caching: str = "no-store",
    runs: bool = False,
    connects: bool = False,
) -> Response:
    """
    Return *html*, whose styles and scripts the policy of its own headers names by their digests.

    Args:
        html: UTF-8; scripts are elements without attributes.
        headers: more of them.
        caching: the value of `Cache-Control`.
        runs: do the page's scripts run?
        connects: may they send requests to this gateway?
    """
    sources = [("style", rb"<style\b[^>]*>(.*?)</style\s*>"), *([_SCRIPTS] if runs else [])]
    policy = [
        "default-src 'none'",
        *(f"{name}-src {digests}" for name, pattern in sources if (digests := _digests(html, pattern))),
        *(["connect-src 'self'"] if connects else []),
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    own = [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", caching),
        ("content-security-policy", "; ".join(policy)),
        ("referrer-policy", "no-referrer"),
        NO_SNIFFING,
    ]
    return Response(status, [*own, *headers], html)


def _digests(html: bytes, pattern: bytes) -> str:
    contents = dict.fromkeys(re.findall(pattern, html, re.DOTALL | re.IGNORECASE))
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one).digest()).decode()}'" for one in contents)
