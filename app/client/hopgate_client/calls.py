"""One call: what is sent, and whether it may be sent again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import IO, Any
from urllib.parse import quote

Query = Sequence[tuple[str, str]]


class Repeat(Enum):
    """
    When a call is sent again after an attempt that may have been done: its answer was lost.

    Every call is sent again if the gateway certainly did nothing: it refused the connection, was
    over the limit (429), or had too much to do.
    """

    ALWAYS = auto()  # a repetition changes nothing
    BY_KEY = auto()  # the gateway knows the call by its Idempotency-Key, and answers as before
    BY_VERSION = auto()  # the gateway makes the change at that version alone, so once
    NEVER = auto()


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the gateway; *path* is below /api/v1."""

    method: str
    path: str
    query: Query = ()
    body: Mapping[str, Any] | None = None
    file: IO[bytes] | None = None
    repeat: Repeat = Repeat.NEVER
    if_version: int | None = None
    # Longer ones take this long at least; None: those of the client.
    deadline_s: float | None = None
    timeout_s: float | None = None

    @property
    def is_reading(self) -> bool:
        """Does the call change nothing?"""
        return self.method == "GET"


def segment(text: str) -> str:
    """Return *text* as a part of a path."""
    # A path drops "." and ".." however they are written; no link, host or key is called so.
    return quote(text, safe="") if text.strip(".") else "%2E"


def once_at(version: int | None) -> Repeat:
    """Return when a change of a link at *version* may be repeated."""
    return Repeat.NEVER if version is None else Repeat.BY_VERSION


def query(**values: Any) -> Query:
    """Return the parameters that are not None; a sequence is sent as several."""
    return [
        (name, _text(one))
        for name, value in values.items()
        if value is not None
        for one in (value if _is_several(value) else (value,))
    ]


def body(**values: Any) -> dict[str, Any]:
    """Return *values* as JSON has them."""
    return {name: jsonable(value) for name, value in values.items()}


def given(**values: Any) -> dict[str, Any]:
    """Return those of *values* that are not None, as JSON has them."""
    return body(**{name: value for name, value in values.items() if value is not None})


def jsonable(value: Any) -> Any:
    """Return *value*, of a field of a link, as JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: jsonable(one) for name, one in value.items()}
    return [jsonable(one) for one in value] if _is_several(value) else value


def _is_several(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)
