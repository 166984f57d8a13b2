"""
The errors that Hopgate raises on purpose.

    HopgateError
    ├── InvalidInput        a value breaks a rule; carries every broken rule
    ├── PoisonMessage       bytes that are no event, and never will be
    ├── UnexpectedEvent     an event in a queue whose handler does not handle it
    ├── Unavailable         a dependency did not answer; a later attempt may succeed
    │   ├── Contended       other writers were faster each time; nothing was stored
    │   ├── Refused         the dependency answered that it takes no writes; nothing was stored
    │   └── NotStarted      a guard refused the call; nothing was stored
    ├── Overloaded          admission control refused the work; nothing was started
    ├── SettingsError       the environment does not describe a service
    ├── Undeliverable       app.ports: a webhook's server did not take a message
    ├── FileRefused         app.interchange: a file that cannot be read as links
    ├── UnreadableBody      app.web: a request body that is no JSON object
    ├── UnsendableHeader    app.web: a header that granian would drop
    ├── AddressInUse        app.commands: another process listens on the address
    ├── DataInUse           app.commands: another gateway uses the data directory
    ├── NotInstalled        app.bootstrap: traces or reports are asked for, and what sends them is missing
    ├── WrongRole           app.migrations: the database answers and refuses the role
    ├── NoDatabase          app.commands: the data folder holds no database
    ├── NoAnswer            app.commands: no gateway answers on the URL to read figures from
    ├── NoDeadLetters       app.commands: there is no broker, so no dead-letter queue
    ├── NoSharedCache       app.commands: there is no cache outside the gateway process
    ├── UnreadableFile      app.commands: the file to import cannot be read
    └── UnwritableFile      app.commands: the file to export to cannot be written

Expected outcomes (a taken slug, a version that moved on, a missing link) are
values, not errors: see `app.ports`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


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
    """Bytes that are no event. Retrying does not help."""


class UnexpectedEvent(HopgateError):
    """The handler of a queue does not handle this kind of event. Nothing was applied."""

    def __init__(self, queue: str, event: object) -> None:
        super().__init__(f"the handler of {queue} does not handle {type(event).__name__}")


class Unavailable(HopgateError):
    """
    *dependency* did not answer in time, or refused.

    The call may or may not have taken effect. `was_lost`: the connection broke during the call, so
    a read may be retried at once on another connection. `stored_nothing`: a write certainly had no effect.
    """

    stored_nothing: ClassVar[bool] = False

    def __init__(self, dependency: str, reason: str, *, was_lost: bool = False) -> None:
        self.dependency = dependency
        self.reason = reason
        self.was_lost = was_lost
        super().__init__(f"{dependency} is unavailable: {reason}")


class Contended(Unavailable):
    """Other writers were faster at every attempt. Nothing was stored; trying again may succeed."""

    stored_nothing = True


class Refused(Unavailable):
    """The dependency answered, and takes no writes: its disk is full, or it is read-only."""

    stored_nothing = True


class NotStarted(Unavailable):
    """A bulkhead or a circuit breaker refused the call, which was not made."""

    stored_nothing = True


class Overloaded(HopgateError):
    """This process has more work than it can finish in time. Nothing was started."""


class SettingsError(HopgateError):
    """The environment does not describe a service; the message is one line."""
