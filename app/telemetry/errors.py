"""Errors that requests and batches of events ended with, by kind."""

from __future__ import annotations

from app.domain import errors
from app.telemetry.families import ERRORS
from app.telemetry.samples import Samples

# A deadline that passed; the answer is the one of `Unavailable`.
_LATE = TimeoutError.__name__
# A fault of Hopgate: what its errors do not describe.
UNEXPECTED = "unexpected"
_TREE = (
    errors.InvalidInput,
    errors.PoisonMessage,
    errors.UnexpectedEvent,
    errors.Unavailable,
    errors.Contended,
    errors.Refused,
    errors.NotStarted,
    errors.Overloaded,
)
_NAMES = {error: error.__name__ for error in _TREE}
KINDS = (*_NAMES.values(), _LATE, UNEXPECTED)


def kind_of(error: BaseException) -> str:
    """Return the nearest class of the tree above *error*, by name: there are few, so a label may hold it."""
    if isinstance(error, TimeoutError):
        return _LATE
    return next((_NAMES[one] for one in type(error).__mro__ if one in _NAMES), UNEXPECTED)


class ErrorCounts:
    """Counts the errors of one process."""

    def __init__(self) -> None:
        # All kinds from the start: a series that appears with its first error hides that one from `rate`.
        self._counts = dict.fromkeys(KINDS, 0)

    def add(self, error: BaseException) -> None:
        """Count *error*."""
        self._counts[kind_of(error)] += 1

    def samples(self) -> Samples:
        """Report the errors so far."""
        return {ERRORS.of(kind): [count] for kind, count in self._counts.items()}
