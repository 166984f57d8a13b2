"""Where work comes from: the span of a distributed trace, as W3C Trace Context writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

# Longer values are dropped: they would grow rows and messages that have to stay small.
MAX_TRACESTATE, MAX_BAGGAGE = 512, 1024
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_VISIBLE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Origin:
    """
    A recorded span that work is done for; what is not recorded has no origin.

    `at`: when the request of the trace began, in unix seconds. `tracestate` and `baggage` are passed
    on as they came.
    """

    trace_id: int
    span_id: int
    at: float
    tracestate: str = ""
    baggage: str = ""

    @property
    def traceparent(self) -> str:
        """The header of this name."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


class Parent(NamedTuple):
    """The span that a caller names, and whether the caller records it."""

    trace_id: int
    span_id: int
    is_sampled: bool


class Trace(NamedTuple):
    """The trace of a request, and what its caller said of it; without a parent, the request begins it."""

    id: int
    parent: Parent | None = None
    tracestate: str = ""
    baggage: str = ""


def read_traceparent(value: str) -> Parent | None:
    """Return the parent in the header *value*; None if W3C Trace Context has it ignored."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    # A later version may append fields; version 255 is forbidden, and so are ids of zeros.
    if version == "ff" or (version == "00" and rest is not None) or not int(trace_id, 16):
        return None
    if not int(span_id, 16):
        return None
    return Parent(int(trace_id, 16), int(span_id, 16), is_sampled=bool(int(flags, 16) & 1))


def passed_on(value: str, limit: int) -> str:
    """Return *value* if it is visible ASCII of at most *limit* characters, else nothing."""
    return value if len(value) <= limit and _VISIBLE.fullmatch(value) else ""
