"""What a refused client gets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Any

from hopgate_limiter import Decision
from hopgate_limiter.contrib import _arguments
from hopgate_limiter.contrib._call import Call

# Of draft-ietf-httpapi-ratelimit-headers, which defines the member "violated-policies", too.
_QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
_LEAST_STATUS, _MOST_STATUS = 100, 999


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; rate-limit headers and Retry-After are added unless it has them."""

    status: int = 429
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __post_init__(self) -> None:
        """Refuse what no server can send, before a client waits for it."""
        _arguments.of_type("status", "int", self.status, int)
        if not _LEAST_STATUS <= self.status <= _MOST_STATUS:
            raise ValueError(f"status must be 100 to 999, got {self.status}")
        _arguments.mapping("headers", "a mapping of names to values", self.headers)
        _arguments.of_type("body", "bytes", self.body, bytes)

    @staticmethod
    def json(
        content: Any,
        *,
        status: int = 429,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> Answer:
        """Answer with JSON."""
        _headers_or_none(headers)
        _arguments.text("media_type", media_type)
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        return Answer(status, {"Content-Type": media_type, **(headers or {})}, body)

    @staticmethod
    def text(content: str, *, status: int = 429, headers: Mapping[str, str] | None = None) -> Answer:
        """Answer with plain text."""
        _arguments.text("content", content)
        _headers_or_none(headers)
        kind = {"Content-Type": "text/plain; charset=utf-8"}
        return Answer(status, {**kind, **(headers or {})}, content.encode())


def _headers_or_none(headers: object) -> None:
    if headers is not None:
        _arguments.mapping("headers", "a mapping of names to values, or None", headers)


def detail(decision: Decision) -> str:
    """Say in one sentence why a call is refused and when it would be admitted."""
    if decision.retry_after == inf:
        return f"A cost of {decision.cost} is more than the rate {decision.policy} ever admits at once."
    seconds = max(1, ceil(decision.retry_after))
    return f"The rate {decision.policy} is exhausted. Retry in {seconds} s."


def problem(_: Call, decision: Decision) -> Answer:
    """Answer with 429 and a problem document (RFC 9457)."""
    document = {
        "type": _QUOTA_EXCEEDED,
        "title": "Too Many Requests",
        "status": 429,
        "detail": detail(decision),
        "violated-policies": [decision.policy],
    }
    return Answer.json(document, media_type="application/problem+json")
