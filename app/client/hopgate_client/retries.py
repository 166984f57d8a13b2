"""Whether, and when, a call is sent again. Nothing here waits or reads a clock by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from hopgate_client import errors, models
from hopgate_client.calls import Call, Repeat
from hopgate_client.errors import AnswerError, ConnectionFailed, DeadlineExceeded, HopgateError, Problem

# The request was not sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# Answers that say that nothing was done.
_REFUSALS = {"too_many_requests", "overloaded", "body_timeout"}
# Answers that a later attempt may change; others are final.
_PASSING = {408, 429, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Retries:
    """
    How calls are repeated.

    Args:
        attempts: the most requests for one call.
        first_pause_s: the longest pause before the second attempt; it doubles with each.
        longest_pause_s: the longest pause; a longer `Retry-After` is waited for, if the deadline allows.
    """

    attempts: int = 5
    first_pause_s: float = 0.2
    longest_pause_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The status, the headers and the whole body of an answer."""

    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON has it; raises UnexpectedAnswer."""
        return _json(self)


class Attempts:
    """The attempts of one call: how much time is left, and whether there is another one."""

    def __init__(
        self,
        call: Call,
        retries: Retries,
        *,
        deadline_s: float,
        timeout_s: float,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._call, self._retries = call, retries
        self._clock, self._random = clock, random
        self._timeout_s = max(timeout_s, call.timeout_s or 0.0)
        self._deadline_s = max(deadline_s, call.deadline_s or 0.0)
        self._until = clock() + self._deadline_s
        self._made = 0
        self._may_have_applied = False

    def timeout(self) -> float:
        """Begin an attempt; return how long it may wait for each part of its answer."""
        self._made += 1
        return max(0.001, min(self._timeout_s, self._left()))

    def check_time(self) -> None:
        """Raise DeadlineExceeded if the time is over: an answer may come byte by byte."""
        if self._left() <= 0:
            raise DeadlineExceeded(
                f"no whole answer within {self._deadline_s:g} s", may_have_applied=self._is_unsure(sent=True)
            )

    def broken(self, error: httpx.RequestError) -> float:
        """
        Return the pause before the next attempt; this one ended without an answer.

        Raises:
            ConnectionFailed: there is no next one.
        """
        is_sent = not isinstance(error, _NOT_SENT)
        reason = str(error) or type(error).__name__
        may_have_applied = self._is_unsure(sent=is_sent)
        if self._left() <= 0:
            failed: HopgateError = DeadlineExceeded(
                f"no answer within {self._deadline_s:g} s: {reason}", may_have_applied=may_have_applied
            )
        else:
            failed = ConnectionFailed(
                f"the gateway does not answer: {reason}", may_have_applied=may_have_applied
            )
        return self._pause(failed, may_repeat=not is_sent or self._call.repeat is not Repeat.NEVER)

    def refused(self, answer: Answer) -> float:
        """
        Return the pause before the next attempt; this one was answered by a problem.

        Raises:
            HopgateError: there is no next one.
        """
        problem = _problem(answer)
        is_done = problem.status >= 500 and problem.code not in _REFUSALS
        failed = errors.of(
            problem,
            retry_after=_retry_after(answer.headers),
            may_have_applied=self._is_unsure(sent=is_done),
        )
        may_repeat = problem.status in _PASSING and (not is_done or self._call.repeat is not Repeat.NEVER)
        if problem.status == 429 and failed.retry_after is None:
            # The limit never admits as much at once.
            may_repeat = False
        return self._pause(failed, may_repeat=may_repeat)

    def cut_off(self, error: httpx.RequestError) -> ConnectionFailed:
        """Return what a call failed with whose answer has begun: it is not repeated."""
        reason = str(error) or type(error).__name__
        return ConnectionFailed(
            f"the answer breaks off: {reason}", may_have_applied=self._is_unsure(sent=True)
        )

    def _is_unsure(self, *, sent: bool) -> bool:
        if sent and not self._call.is_reading:
            self._may_have_applied = True
        return self._may_have_applied

    def _left(self) -> float:
        return self._until - self._clock()

    def _pause(self, failed: HopgateError, *, may_repeat: bool) -> float:
        if not may_repeat or self._made >= self._retries.attempts:
            raise failed
        longest = min(self._retries.first_pause_s * 2.0 ** (self._made - 1), self._retries.longest_pause_s)
        # From a half on: clients that fail together do not come back together.
        pause = longest * (1.0 + self._random()) / 2.0
        if isinstance(failed, AnswerError) and failed.retry_after is not None:
            pause += failed.retry_after
        if pause >= self._left():
            raise failed
        return pause


def _problem(answer: Answer) -> Problem:
    """
    Return what *answer* says; of other servers, such as a proxy, that they are in trouble.

    Raises:
        UnexpectedAnswer: another server says something else. Its 404 does not mean that there is no link.
    """
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
    if media_type == "application/problem+json":
        return replace(models.read(Problem, _json(answer)), status=answer.status)
    if answer.status in _PASSING or answer.status >= 500:
        return Problem(answer.status, detail="another server answers in place of the gateway")
    location = answer.headers.get("location")
    where = f" and points to {location}" if location else ""
    raise errors.UnexpectedAnswer(
        f"the answer is {answer.status}{where}, none of Hopgate's: is the gateway's URL right?"
    )


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        raise errors.UnexpectedAnswer(
            f"the answer {answer.status} is no JSON: is the gateway's URL right?"
        ) from None


def _retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds that the answer asks to wait for; a time is compared with that of the answer."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return float(text)
    try:
        waited = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError):
        return None
    return max(0.0, waited.total_seconds())
