"""Lifetimes: how long a link lives from now on, as in `7d`."""

from __future__ import annotations

import re
from datetime import timedelta

from app.domain.errors import FieldError, InvalidInput

MAX_LIFETIME = timedelta(days=36_500)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SHAPE = re.compile(r"([1-9][0-9]{0,9})([smhdw])\Z")


def _up_to(most: int) -> str:
    """Return a regular expression of the numbers from 1 to *most*, which has more than one digit."""
    digits = str(most)
    shorter = f"[1-9][0-9]{{0,{len(digits) - 2}}}"
    # Those that agree with *most* in some digits, and are less in the next.
    less = [
        f"{digits[:place]}[{0 if place else 1}-{int(digit) - 1}][0-9]{{{len(digits) - place - 1}}}"
        for place, digit in enumerate(digits)
        if int(digit) > (0 if place else 1)
    ]
    return "|".join([shorter, *less, digits])


PATTERN = "^(?:{})$".format(
    "|".join(
        f"(?:{_up_to(int(MAX_LIFETIME.total_seconds()) // unit)}){name}" for name, unit in _UNITS.items()
    )
)


def parse(text: str, *, field: str = "expires_in") -> timedelta:
    """
    Return the lifetime that *text*, the value of *field*, says.

    Raises:
        InvalidInput: it is no number of seconds, minutes, hours, days or weeks, or too long.
    """
    match = _SHAPE.match(text)
    if match is None:
        message = "must be a number of s, m, h, d or w, as in 90m or 7d"
        raise InvalidInput([FieldError(field, "lifetime_invalid", message)])
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > MAX_LIFETIME.total_seconds():
        message = f"must be at most {MAX_LIFETIME.days}d"
        raise InvalidInput([FieldError(field, "lifetime_invalid", message)])
    return timedelta(seconds=seconds)
