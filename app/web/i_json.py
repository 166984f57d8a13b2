"""Reads documents as strictly as I-JSON (RFC 7493) wants it, and as what a schema says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import msgspec

from app.domain.errors import FieldError, HopgateError, InvalidInput

TIME_EXAMPLE = "2030-01-31T12:00:00Z"


class UnreadableBody(HopgateError):
    """The body is not one JSON object; the message names the place."""


T = TypeVar("T")


def read(body: bytes, schema: type[T]) -> T:
    """
    Return *body* as *schema*.

    Strict as I-JSON (RFC 7493): a duplicate name, NaN, Infinity or an unpaired surrogate make a body
    unreadable. Parsers disagree on duplicate names, and an unpaired surrogate has no UTF-8 form to
    return to the client.

    Raises:
        UnreadableBody: *body* is not I-JSON.
        InvalidInput: *body* does not match *schema*.
    """
    return converted(document_of(body), schema)


def document_of(body: bytes) -> Any:
    """Return what *body* says, read as strictly as by `read`; raises UnreadableBody."""
    with readable():
        document = json.loads(body.decode("utf-8"), **STRICT)
        if b"\\u" in body:
            check_surrogates(document)
    return document


@contextmanager
def readable() -> Iterator[None]:
    """Turn what a JSON parser raises into UnreadableBody."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UnreadableBody(reason) from None


def check_surrogates(document: object) -> None:
    """Raise ValueError if *document* has a surrogate without its other half."""
    json.dumps(document, ensure_ascii=False).encode("utf-8")


def converted(document: object, schema: type[T]) -> T:
    """Return *document*, as JSON has it, as *schema*; raises InvalidInput."""
    try:
        return msgspec.convert(document, schema)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`") or "body"
        raise InvalidInput([FieldError(field, "schema", _explained(message))]) from None


def _explained(message: str) -> str:
    """Return what the decoder says of a time in words that help: it names a standard, or its own types."""
    if not message.startswith(("Invalid RFC3339", "Expected `datetime")):
        return message
    null = ", or null" if "null" in message else ""
    return f"must be a date that exists, with time and offset, such as {TIME_EXAMPLE}{null}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        message = "a name occurs twice in an object"
        raise ValueError(message)
    return document


def _refuse(constant: str) -> None:
    message = f"{constant} is not JSON"
    raise ValueError(message)


def _number(text: str) -> int | float:
    """Return the number *text*, which has a point or an exponent; 7.0 is an integer to JSON Schema."""
    value = float(text)
    if not math.isfinite(value):
        message = "a number is too large"
        raise ValueError(message)
    # Beyond, and between two floats, the integer is not the number that was sent.
    if abs(value) >= 2**53 or not value.is_integer():
        return value
    try:
        return int(value) if Decimal(text) == int(value) else value
    except InvalidOperation:  # an exponent of twenty digits
        return value


# Arguments of a decoder of `json` that takes I-JSON alone.
STRICT: dict[str, Any] = {
    "object_pairs_hook": _unique,
    "parse_constant": _refuse,
    "parse_float": _number,
}
