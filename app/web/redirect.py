"""
Redirects: the answer of a link, and the lane that gives it.

The lane answers from the first cache without awaiting anything: no I/O, no task, no lock.
What it does not find there takes the slow way, which is the same for the lane and for the
Robyn handler.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote

from msgspec.structs import replace

from app.domain import slug as slugs
from app.domain.errors import Overloaded, Unavailable
from app.domain.link import Resolution, Slug, State
from app.ports import Gate, Policy
from app.resilience.deadline import REDIRECT_S, within
from app.service.clicks import ClickCounter
from app.service.hot_links import HotLinks
from app.service.redirects import Redirects
from app.service.visits import Visits
from app.web import errors
from app.web.answer import Answer, check_value

log = logging.getLogger(__name__)

# Why visits fail is said this often at most: in an outage it is the same reason again and again.
_SAY_AGAIN_S = 5.0
# A browser keeps a permanent redirect for ever unless told otherwise, and links change.
_TEMPORARY = ("cache-control", "private, no-cache, max-age=0")
_PERMANENT = ("cache-control", "private, max-age=60")
_NOT_FOUND, _GONE = errors.not_found(), errors.gone()
# Looking a member up in its class costs as much as the rest of a decision.
_REDIRECT, _MISS = Policy.REDIRECT, Policy.NOT_FOUND


def render(resolution: Resolution, now: float) -> Answer:
    """
    Return the answer for *resolution* at *now* (unix seconds).

    Raises:
        UnsendableHeader: the stored target could not be sent as it is.
    """
    state = resolution.state(now)
    if state is State.ABSENT:
        return _NOT_FOUND
    if state is State.GONE or resolution.long_url is None:
        return _GONE
    caching = _PERMANENT if resolution.redirect_code in {301, 308} else _TEMPORARY
    check_value("location", resolution.long_url)
    return Answer(
        resolution.redirect_code,
        (("location", resolution.long_url), caching),
        forward_query=resolution.forward_query,
        is_visit=True,
        metered_version=resolution.version if resolution.metered else 0,
    )


def with_query(answer: Answer, query: str) -> Answer:
    """Return *answer* with the request's query string appended to its target, if the link wants that."""
    if not query or not answer.forward_query:
        return answer
    (name, location), *rest = answer.headers
    target, hash_mark, fragment = location.partition("#")
    # What is not allowed in a URL is escaped; what is escaped already stays as it is.
    safe = quote(query, safe="!$%&'()*+,-./:;=?@_~[]|^{}`")
    joined = f"{target}{'&' if '?' in target else '?'}{safe}{hash_mark}{fragment}"
    return replace(answer, headers=((name, joined), *rest))


class RedirectLane:
    """
    Answers `GET` and `HEAD` of `/{slug}`, but for the query string (see `with_query`).

    Every redirect that answers a GET is one click. A HEAD is none: who asks for headers alone is
    a program that looks, not a visitor.

    Counts what it answers, but not redirects from the first cache: those are what the gate has
    admitted and is counted nowhere here (see `app.web.metrics`).

    Args:
        clicks: is told of those that the first cache does not count itself.
        visits: gives the visits of links that have a limit.
        monotonic: the clock that `hot` runs on.
    """

    def __init__(
        self,
        hot: HotLinks[Answer],
        redirects: Redirects[Answer],
        gate: Gate,
        clicks: ClickCounter,
        visits: Visits,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._hot = hot
        self._peek = hot.peek
        self._redirects = redirects
        self._gate = gate
        self._admit = gate.admit
        self._count = clicks.count
        self._visits = visits
        self._monotonic = monotonic
        self._quiet_until = -math.inf
        # Admitted visits: what the first cache said other than a redirect, how many it could
        # not answer, and what became of those; all by status.
        self.hot_errors: Counter[int] = Counter()
        self.missed = 0
        self.answered: Counter[int] = Counter()

    def answer_hot(self, slug: str, client: str) -> Answer | None:
        """Answer a GET at once if *slug* is in the first cache; None if somebody has to be asked."""
        entry = self._peek(slug)
        if entry is None or self._monotonic() >= entry.free_until:
            return None
        if not self._admit(_REDIRECT, client):
            return self._refuse(_REDIRECT, client)
        answer = entry.answer
        if answer.is_visit:
            entry.clicks += 1
            return answer
        return self._hot_error(answer, client)

    async def answer(self, slug: str, client: str, *, is_head: bool = False) -> Answer:
        """Answer, looking *slug* up where needed. Never raises for a dependency that is away."""
        hot = None if is_head else self.answer_hot(slug, client)
        if hot is not None:
            return hot
        if not self._admit(_REDIRECT, client):
            return self._refuse(_REDIRECT, client)
        # Only a HEAD, or a link with a limit, comes here though it is known.
        held = self._hot.get(slug)
        if held is not None:
            answer = await self._spend(Slug(slug), held.answer, is_head=is_head)
            if not answer.is_visit:
                return self._hot_error(answer, client)
        else:
            self.missed += 1
            if slugs.is_well_formed(slug):
                found = await self._look_up(Slug(slug), client)
                answer = await self._spend(Slug(slug), found, is_head=is_head)
            else:
                answer = self._counted(_NOT_FOUND, client)
            self.answered[answer.status] += 1
        if answer.is_visit and not is_head:
            self._count(Slug(slug))
        return answer

    async def _spend(self, slug: Slug, answer: Answer, *, is_head: bool) -> Answer:
        """Return *answer* if no visit is needed for it, or there was one; a HEAD leaves it to others."""
        if not answer.metered_version:
            return answer
        try:
            async with within(REDIRECT_S):
                has_one = await self._visits.take(slug, answer.metered_version, spend=not is_head)
        except (Unavailable, TimeoutError) as error:
            return self._unavailable(error)
        return answer if has_one else _GONE

    def _hot_error(self, answer: Answer, client: str) -> Answer:
        if answer.status == 404:
            answer = self._counted(answer, client)
        self.hot_errors[answer.status] += 1
        return answer

    async def _look_up(self, slug: Slug, client: str) -> Answer:
        # Who found nothing too often looks nothing up: or a hit would still show among misses.
        if self._redirects.is_known(slug):
            refusal = self._gate.refusal(_MISS, client)
            if refusal.retry_after_s > 0:
                return errors.too_many_requests(refusal)
            found = await self._resolve(slug)
            return self._counted(found, client) if found.status == 404 else found
        # A look-up is paid for before it is made, or any number could be under way at once; who
        # found something gets it back. Who hangs up does not: a scan would be free that way.
        if not self._admit(_MISS, client):
            return self._refuse(_MISS, client)
        found = await self._resolve(slug)
        if found.status != 404:
            self._gate.refund(_MISS, client)
        return found

    async def _resolve(self, slug: Slug) -> Answer:
        try:
            return await self._redirects.resolve(slug)
        except Unavailable as error:
            return self._redirects.stale(slug) or self._unavailable(error)
        except Overloaded:
            return self._redirects.stale(slug) or errors.overloaded()

    def _unavailable(self, error: Unavailable | TimeoutError) -> Answer:
        """503. The visitor hears who did not answer, the log also why."""
        now = self._monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _SAY_AGAIN_S
            log.warning("a visit was answered 503: %s", str(error) or type(error).__name__)
        return errors.unavailable(error)

    def _counted(self, not_found: Answer, client: str) -> Answer:
        """Let a client find nothing only so often: a scan of slugs is slowed down to guessing."""
        return not_found if self._admit(_MISS, client) else self._refuse(_MISS, client)

    def _refuse(self, policy: Policy, client: str) -> Answer:
        return errors.too_many_requests(self._gate.refusal(policy, client))
