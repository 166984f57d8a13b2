"""
What a call raises.

    HopgateError
    ├── ConnectionFailed          no answer: the gateway is away, or the connection broke
    │   └── DeadlineExceeded      the time for the whole call is over
    ├── UnexpectedAnswer          an answer that is none of Hopgate's: a proxy, another server
    └── AnswerError               the gateway answered with a problem
        ├── InvalidRequest        400, 411, 413, 415, 422: `errors` has each broken rule
        ├── Unauthorized          401: no key, or one that is revoked or expired
        ├── Forbidden             403: the key lacks a scope
        ├── NotFound              404
        ├── Conflict              409: a slug, an external id or a domain is taken; `link` is what has it
        ├── Gone                  410: the link is removed
        ├── PreconditionFailed    412: the link is at another version; `link` is what it is now
        ├── RateLimited           429: `retry_after` is in seconds
        ├── Blocked               451: the operator blocks the link
        ├── Unavailable           408, 502, 503, 504: a later attempt may succeed
        └── ServerFailed          500: a fault of the gateway; `trace_id` names it in its log
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hopgate_client.models import ItemResult, Link


@dataclass(frozen=True, slots=True)
class FieldError:
    """One broken rule: which field, a stable code, and a sentence for a person."""

    field: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What an answer says is wrong (RFC 9457); `code` is stable, and empty if Hopgate did not answer."""

    status: int
    code: str = ""
    title: str = ""
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
    link: Link | None = None
    items: tuple[Mapping[str, Any], ...] = ()
    trace_id: str | None = None

    def __str__(self) -> str:
        if self.errors:
            return "; ".join(f"{one.field}: {one.message}" for one in self.errors)
        text = self.title or f"the answer is {self.status}"
        return f"{text}: {self.detail}" if self.detail else text


class HopgateError(Exception):
    """
    The root of the tree.

    `may_have_applied`: the call, or an attempt before the last one, may have changed something.
    `done`: of a call that sends several batches, the results of those that were stored before the failure.
    """

    def __init__(self, message: str, *, may_have_applied: bool = False) -> None:
        self.may_have_applied = may_have_applied
        self.done: tuple[ItemResult, ...] = ()
        super().__init__(message)


class ConnectionFailed(HopgateError):
    """The gateway did not answer, or not to the end."""


class DeadlineExceeded(ConnectionFailed):
    """The time for the whole call, attempts and pauses, is over."""


class UnexpectedAnswer(HopgateError):
    """The answer is not one of Hopgate's."""


class AnswerError(HopgateError):
    """The gateway answered with a problem."""

    def __init__(
        self, problem: Problem, *, retry_after: float | None = None, may_have_applied: bool = False
    ) -> None:
        self.problem = problem
        self.retry_after = retry_after
        super().__init__(str(problem), may_have_applied=may_have_applied)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def code(self) -> str:
        """The stable name of the problem."""
        return self.problem.code

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """Each broken rule."""
        return self.problem.errors

    @property
    def link(self) -> Link | None:
        """The link that is in the way, if the key may read it."""
        return self.problem.link

    @property
    def trace_id(self) -> str | None:
        """The name of the failure in the gateway's log."""
        return self.problem.trace_id


class InvalidRequest(AnswerError):
    """The request breaks a rule; nothing was done."""


class Unauthorized(AnswerError):
    """There is no valid API key."""


class Forbidden(AnswerError):
    """The key may not do this."""


class NotFound(AnswerError):
    """There is no such thing."""


class Conflict(AnswerError):
    """What was asked for is taken."""


class Gone(AnswerError):
    """The link is removed."""


class PreconditionFailed(AnswerError):
    """The link is at another version than the call names."""


class RateLimited(AnswerError):
    """Over the limit; `retry_after` is None if waiting does not help."""


class Blocked(AnswerError):
    """The operator blocks the link."""


class Unavailable(AnswerError):
    """The gateway, or what it depends on, is not available."""


class ServerFailed(AnswerError):
    """A fault of the gateway."""


_BY_STATUS: Mapping[int, type[AnswerError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    410: Gone,
    412: PreconditionFailed,
    429: RateLimited,
    451: Blocked,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def of(problem: Problem, *, retry_after: float | None = None, may_have_applied: bool = False) -> AnswerError:
    """Return the error that *problem* is."""
    other = InvalidRequest if problem.status < 500 else ServerFailed
    kind = _BY_STATUS.get(problem.status, other)
    return kind(problem, retry_after=retry_after, may_have_applied=may_have_applied)
