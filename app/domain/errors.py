"""
Everything Hopgate raises on purpose.

    HopgateError
    ├── InvalidInput        a value breaks a rule; carries every broken rule at once
    ├── PoisonMessage       bytes from the broker that can never be understood
    ├── Unavailable         a dependency did not answer; trying later may help
    ├── Overloaded          there is more to do than can be done; nothing was begun
    ├── SettingsError       app.settings: the environment describes no service
    ├── UnreadableBody      app.web: a request body that is no JSON object
    └── UnsendableHeader    app.web: a bug caught before granian drops the header

Expected outcomes (a taken slug, a version that moved on, a missing link) are
values, not errors: see `app.ports`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class HopgateError(Exception):
    """The root of the tree."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One broken rule: which field, a stable code, and a sentence for a person."""

    field: str
    code: str
    message: str


class InvalidInput(HopgateError):
    """One or more fields break their rules."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{e.field}: {e.message}" for e in self.errors))


class PoisonMessage(HopgateError):
    """Bytes that no retry will turn into an event."""


class Unavailable(HopgateError):
    """
    *dependency* did not answer in time, or refused.

    What was asked may or may not have happened. `was_lost` if the connection broke under the
    call: a read may be asked again at once, on another one.
    """

    def __init__(self, dependency: str, reason: str, *, was_lost: bool = False) -> None:
        self.dependency = dependency
        self.reason = reason
        self.was_lost = was_lost
        super().__init__(f"{dependency} is unavailable: {reason}")


class Overloaded(HopgateError):
    """This process has more to do than it can do in time. Nothing was begun."""
