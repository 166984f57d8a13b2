"""
Parameters of queries that say once what they take: the OpenAPI document and the reading of a request follow.

A parameter has a kind: its JSON Schema, and what it makes of a text. `QueryReader` reads a request and
collects what is wrong with it, so that one answer names everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Generic, TypeVar

from app.domain.errors import FieldError, InvalidInput
from app.domain.rules import UNPRINTABLE
from app.web import schemas
from app.web.endpoint import Parameter
from app.web.request import Request

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

# An offset without its sign: a query reads a plus as a space.
_LOST_PLUS = re.compile(r" [0-9]{2}:?[0-9]{2}\Z")


class WrongValue(ValueError):
    """A text is no value of a kind: a stable code, and the end of a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What a value may be: as a JSON Schema, and as *read*, which raises `WrongValue`."""

    schema: Mapping[str, Any]
    read: Callable[[str], T]


@dataclass(frozen=True, slots=True)
class QueryParameter(Parameter, Generic[T]):
    """A parameter of a query whose values are of one kind. Made by `one`, `several` and `listed`."""

    kind: Kind[T] = None  # type: ignore[assignment]


def one(name: str, kind: Kind[T], description: str = "", *, is_required: bool = False) -> QueryParameter[T]:
    """Return a parameter that is sent once."""
    return QueryParameter(name, "query", kind.schema, description, is_required=is_required, kind=kind)


def several(name: str, kind: Kind[T], most: int, description: str = "") -> QueryParameter[T]:
    """Return a parameter that is sent up to *most* times; a repeated value counts once."""
    schema = {"type": "array", "items": kind.schema, "minItems": 1, "maxItems": most}
    return QueryParameter(name, "query", schema, description, is_list=True, kind=kind)


def listed(name: str, kind: Kind[T], description: str = "") -> QueryParameter[T]:
    """Return a parameter that is sent once, with values that commas part."""
    schema = {"type": "array", "items": kind.schema, "minItems": 1}
    return QueryParameter(name, "query", schema, description, kind=kind)


# --- kinds ------------------------------------------------------------------------------


def choice(values: Sequence[str], code: str) -> Kind[str]:
    """Return the kind of one of *values*."""

    def read(text: str) -> str:
        if text not in values:
            raise WrongValue(code, f"must be one of {', '.join(values)}")
        return text

    return Kind({"type": "string", "enum": list(values)}, read)


def member(enum: type[E], code: str) -> Kind[E]:
    """Return the kind of a member of *enum*, by its value."""
    text = choice([one.value for one in enum], code)
    return Kind(text.schema, lambda value: enum(text.read(value)))


def printable(least: int, most: int, code: str, **schema: Any) -> Kind[str]:
    """Return the kind of a text of *least* to *most* characters without control characters."""

    def read(text: str) -> str:
        if not least <= len(text) <= most:
            length = f"is {len(text)} characters, must be {least} to {most}" if text else "is empty"
            raise WrongValue(code, length)
        if (wrong := UNPRINTABLE.search(text)) is not None:
            raise WrongValue(code, f"has the control character U+{ord(wrong[0]):04X}")
        return text

    return Kind({"type": "string", "minLength": least, "maxLength": most, **schema}, read)


def number(least: int, most: int, code: str, default: int) -> Kind[int]:
    """Return the kind of an integer from *least* to *most*."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
            raise WrongValue(code, f"must be {least} to {most}")
        return int(text)

    return Kind({"type": "integer", "minimum": least, "maximum": most, "default": default}, read)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise WrongValue("flag_invalid", "must be true or false")
    return text == "true"


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        lost = _LOST_PLUS.search(text) is not None
        message = (
            "has a space before its offset: write + as %2B in a query"
            if lost
            else "must be ISO 8601, as in 2030-01-31T12:00:00Z"
        )
        raise WrongValue("time_unreadable", message) from None


FLAG = Kind({"type": "boolean", "default": False}, _flag)
TIME = Kind({**schemas.TIME, "examples": ["2030-01-31T12:00:00Z"]}, _time)


# --- reading ----------------------------------------------------------------------------


class QueryReader:
    """Reads the parameters of one request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.errors: list[FieldError] = []

    def one(self, parameter: QueryParameter[T]) -> T | None:
        """Return the value of *parameter*; None if it is not sent, or wrong."""
        values = self.several(parameter)
        return values[0] if values else None

    def several(self, parameter: QueryParameter[T]) -> tuple[T, ...]:
        """Return the values of *parameter*, without those that are wrong."""
        return self._read(parameter, self._request.values(parameter.name))

    def listed(self, parameter: QueryParameter[T]) -> tuple[T, ...]:
        """Return the values of *parameter* between its commas, without those that are wrong."""
        text = self._request.query.get(parameter.name)
        return () if text is None else self._read(parameter, text.split(","))

    def check(self) -> None:
        """
        Check that nothing was wrong.

        Raises:
            InvalidInput: with everything that was.
        """
        if self.errors:
            raise InvalidInput(self.errors)

    def _read(self, parameter: QueryParameter[T], texts: Sequence[str]) -> tuple[T, ...]:
        values = []
        for text in dict.fromkeys(texts):
            try:
                values.append(parameter.kind.read(text))
            except WrongValue as error:
                self.errors.append(FieldError(parameter.name, error.code, error.message))
                break
        return tuple(values)
