"""Arguments that are kept for later: what cannot be used is refused when it is given, and by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hopgate_limiter._waiting import longest_wait

_MOST_UNITS = 2**63


def wrong(name: str, expected: str, value: Any) -> TypeError:
    """Return the error for a value of a wrong type."""
    return TypeError(f"{name} must be {expected}, not {type(value).__name__}")


def of_type(name: str, expected: str, value: Any, *types: type) -> None:
    """Refuse what is of none of these types."""
    if not isinstance(value, types):
        raise wrong(name, expected, value)


def text(name: str, value: Any) -> None:
    """Refuse what is no text."""
    of_type(name, "str", value, str)


def text_or_none(name: str, value: Any) -> None:
    """Refuse what is neither text nor None."""
    of_type(name, "str or None", value, str, type(None))


def flag(name: str, value: Any) -> None:
    """Refuse what is not a bool."""
    of_type(name, "bool", value, bool)


def function(name: str, value: Any) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise wrong(name, "callable", value)


def function_or_none(name: str, value: Any) -> None:
    """Refuse what is neither None nor can be called."""
    if value is not None and not callable(value):
        raise wrong(name, "callable or None", value)


def word(name: str, value: Any, *words: str | None) -> None:
    """Refuse what is none of these words."""
    expected = "one of " + ", ".join(map(repr, words))
    if value is not None or None not in words:
        of_type(name, expected, value, str)
    if value not in words:
        raise ValueError(f"{name} must be {expected}, got {value!a}")


def texts(name: str, example: str, value: Any) -> None:
    """Refuse what is not several texts; one text alone would be taken for its characters."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise wrong(name, f"several texts, as {example}", value)


def mapping(name: str, expected: str, value: Any) -> None:
    """Refuse what is no mapping."""
    of_type(name, expected, value, Mapping)


def cost(value: Any) -> None:
    """Refuse what is neither a number of units nor a function that tells."""
    if callable(value):
        return
    of_type("cost", "int or callable", value, int)
    if value < 0:
        raise ValueError(f"cost must be at least 0, got {value}")
    if value >= _MOST_UNITS:
        raise OverflowError(f"cost must be below 2**63, got {value}")


def seconds_or_none(name: str, value: Any) -> None:
    """Refuse what is no duration."""
    longest_wait(name, value)


def has_method(name: str, expected: str, value: Any, method: str) -> None:
    """Refuse what lacks a method."""
    if not callable(getattr(value, method, None)):
        raise wrong(name, expected, value)
