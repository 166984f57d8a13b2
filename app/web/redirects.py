"""
Redirects: the response to a visit of a link, and the handler that finds it.

The fast path answers from the L1 cache without awaiting anything: no I/O, no task, no timer, no
lock. A miss takes the slow path, which `REDIRECT_S` bounds as a whole: look-up and visit quota
together.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from urllib.parse import quote, unquote_to_bytes

from msgspec.structs import replace

from app.concurrency.expiry import Expiry
from app.domain import slug as slugs
from app.domain.domains import DomainIndex
from app.domain.errors import Overloaded, Unavailable
from app.domain.link import REDIRECT_CODES, LinkState, Resolution, Slug
from app.domain.link_key import is_key
from app.domain.target import escaped, is_plain, uri_reference
from app.ports import Policy, RateLimiter
from app.resilience.deadline import REDIRECT_S
from app.service.clicks import ClickCounter
from app.service.l1_cache import L1
from app.service.resolver import Crowd, Resolver
from app.service.visit_quota import VisitQuota
from app.web import errors
from app.web.intent import Intent
from app.web.response import NO_SNIFFING, ROBOTS, Headers, Response, check_value

log = logging.getLogger(__name__)

# At most one log line in this time: during an outage, every redirect fails for the same reason.
_LOG_INTERVAL_S = 5.0
# Without max-age, browsers keep a permanent redirect for ever, and links change.
_TEMPORARY = ("cache-control", "private, no-cache, max-age=0")
_PERMANENT = ("cache-control", "private, max-age=60")
# What RFC 3986 allows in a query, and %, which may begin an escape.
_SAFE = "!$&'()*+,-./:;=?@_~%"
# Of a process that has no other domain.
DEFAULT_ONLY = DomainIndex("")
_NOT_PREFETCHED = errors.not_prefetched()
_NOT_FOUND, _GONE = errors.not_found(), errors.gone()
# Module constants: a look-up in the enum class costs as much as the rest of a decision.
_REDIRECT, _MISS = Policy.REDIRECT, Policy.NOT_FOUND


def render(resolution: Resolution, now: float) -> Response:
    """
    Return the response for *resolution* at *now* (unix seconds).

    Raises:
        UnsendableHeader: the stored target does not fit into a header.
    """
    state = resolution.state(now)
    if state is LinkState.ABSENT:
        return _NOT_FOUND
    robots: Headers = () if resolution.robots is None else _checked((ROBOTS, resolution.robots))
    expired = resolution.expired_url
    over = None if expired is None else _to_page(_location(expired), 410, robots)
    if state is LinkState.GONE or resolution.long_url is None:
        return over or _GONE
    caching = _PERMANENT if resolution.redirect_code in {301, 308} else _TEMPORARY
    return Response(
        resolution.redirect_code,
        (("location", _location(resolution.long_url)), caching, NO_SNIFFING, *robots),
        forward_query=resolution.forward_query,
        override_query=resolution.override_query,
        is_visit=True,
        metered_version=resolution.version if resolution.metered else 0,
        exhausted=over if resolution.metered else None,
        spends=resolution.spends,
    )


def _location(url: str) -> str:
    if not is_plain(url):
        # Links of an earlier version hold characters that are only escaped here.
        url = uri_reference(url)
        check_value("location", url)
    return url


def _checked(pair: tuple[str, str]) -> Headers:
    check_value(*pair)
    return (pair,)


def with_query(response: Response, query: str) -> Response:
    """Return *response* with *query* added to its target, if the link forwards queries."""
    # An ampersand only separates two parameters: it makes no empty one.
    added = query.lstrip("&")
    if not added or not response.forward_query:
        return response
    (name, location), *rest = response.headers
    target, hash_mark, fragment = location.partition("#")
    path, _, own = target.partition("?")
    own = own.rstrip("&")
    if response.override_query:
        own = _without(own, added)
    # Existing escapes stay as they are.
    safe = escaped(quote(added, safe=_SAFE))
    joined = f"{path}?{own}{'&' if own else ''}{safe}{hash_mark}{fragment}"
    return replace(response, headers=((name, joined), *rest))


def _without(own: str, query: str) -> str:
    """Return the parameters of *own* whose names *query* does not have."""
    names = {_parameter_name(one) for one in query.split("&") if one}
    parameters = [one for one in own.split("&") if one]
    kept = [one for one in parameters if _parameter_name(one) not in names]
    return own if len(kept) == len(parameters) else "&".join(kept)


def _parameter_name(parameter: str) -> bytes:
    """Return the name of *parameter* as a server reads it: by that, `a%62` and `ab` are one."""
    return unquote_to_bytes(parameter.partition("=")[0].replace("+", " "))


def page_of(domains: DomainIndex, slug: str, response: Response) -> Response:
    """Return *response* to a visit of *slug*, or a redirect to the page that its domain has in its place."""
    url = domains.page(domains.of(slug), response.status)
    if url is None:
        return response
    return _to_page(url, response.status)


def _preview() -> Intent:
    return Intent.PREVIEW


def _look() -> Intent:
    return Intent.LOOK


def _to_page(url: str, status: int, more: Headers = ()) -> Response:
    return Response(302, (("location", url), _TEMPORARY, NO_SNIFFING, *more), stands_for=status)


def _status(response: Response) -> int:
    return response.stands_for or response.status


class RedirectHandler:
    """
    Handles `GET` and `HEAD` of `/{slug}`, except for the query string (see `with_query`).

    Every redirect sent in reply to a GET is one click. A HEAD is none: it comes from a program that
    checks a link, not from a visitor.

    Counts its responses by status, except for redirects from the L1 cache: the rate limiter has
    counted those already (see `app.telemetry.sources`).

    Args:
        clicks: counts the redirects that the L1 cache does not count itself.
        quota: leases the visits of links with `max_visits`.
        domains: which link a slug is depends on the host.
        monotonic: the clock of *l1*.
        limit_s: bound of a request that the L1 cache cannot answer, in seconds.
        on_error: is notified of each error that is answered by 503; a stale redirect hides its error.
    """

    def __init__(
        self,
        l1: L1[Response],
        resolver: Resolver[Response],
        limiter: RateLimiter,
        clicks: ClickCounter,
        quota: VisitQuota,
        *,
        domains: DomainIndex = DEFAULT_ONLY,
        monotonic: Callable[[], float],
        limit_s: float = REDIRECT_S,
        on_error: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._l1 = l1
        self._peek = l1.peek
        self._note_clicked = l1.note_clicked
        self._resolver = resolver
        self._limiter = limiter
        self._admit = limiter.admit
        self._count = clicks.count
        self._quota = quota
        self._domains = domains
        self._monotonic = monotonic
        self._limit_s = limit_s
        self._on_error = on_error
        self._expiry = Expiry(limit_s)
        self._quiet_until = -math.inf
        # Admitted visits by status: errors from the L1 cache, and the responses to L1 misses.
        self.l1_errors: Counter[int] = Counter()
        self.missed = 0
        self.answered: Counter[int] = Counter()

    def visited(self, host: str | None, text: str) -> Slug | None:
        """Return the link that a visit of *text* at *host* is for; None if no link can have that address."""
        name = slugs.as_pasted(text)
        if slugs.is_well_formed(name):
            if name != text and name.casefold() in slugs.RESERVED:
                return None
            return self._domains.at(host).key(name)
        domain = self._domains.at(host)
        return domain.known_key(name, domain.kinds)

    def root(self, host: str | None, client: str, page: Response | None) -> Response:
        """Answer a visit of *host* without a slug; *page* is that of the service, if it is wanted."""
        url = self._domains.root_page(self._domains.at(host))
        answer = page if url is None else _to_page(url, 0)
        return _NOT_FOUND if answer is None else self._no_link(answer, client)

    def unknown(self, host: str | None, client: str) -> Response:
        """Answer a visit of a path at *host* that no link can have."""
        url = self._domains.page(self._domains.at(host), 404)
        return self._no_link(_NOT_FOUND if url is None else _to_page(url, 404), client)

    def _no_link(self, response: Response, client: str) -> Response:
        if not self._admit(_REDIRECT, client):
            return self._refuse(_REDIRECT, client)
        if _status(response) == 404:
            response = self._charge_not_found(response, client)
        self.missed += 1
        self.answered[response.status] += 1
        return response

    def answer_from_l1(self, slug: str, client: str, now: float) -> Response | None:
        """
        Answer a GET from the L1 cache, without awaiting; None if it has to be looked up.

        Args:
            now: of the clock *monotonic*. The caller has read it: a second reading would cost as much as
                the look-up.
        """
        entry = self._peek(slug)
        if entry is None or now >= entry.free_until:
            return None
        if not self._admit(_REDIRECT, client):
            return self._refuse(_REDIRECT, client)
        response = entry.answer
        if response.is_visit:
            if not entry.clicks:
                self._note_clicked(entry)
            entry.clicks += 1
            return response
        return self._l1_error(response, client)

    def look_up(self, slugs: Sequence[Slug], crowd: Crowd) -> Sequence[Slug]:
        """
        Bring *slugs* into the L1 cache, or tell *crowd* why they cannot be.

        For a data plane, which has charged the limits and answers itself.

        Returns:
            Those that are there already: they are not looked up.
        """
        missing = self._l1.without_fresh(slugs)
        self._resolver.look_up(missing, crowd)
        if len(missing) == len(slugs):
            return ()
        return list(set(slugs).difference(missing))

    def call_on_room(self, call: Callable[[], None]) -> None:
        """Call *call* when there is room for further look-ups; see `room_from`."""
        self._resolver.on_room = call

    @property
    def room_from(self) -> int | None:
        """From how many slugs on `look_up` should be called; None: after the next `call_on_room`."""
        return self._resolver.room_from

    def renew(self, slugs: Sequence[Slug]) -> None:
        """Look *slugs* up before their entries in the L1 cache end."""
        self._resolver.renew(slugs)

    def stale(self, slug: Slug, requests: int) -> bool:
        """Bring the stale entry of *slug* into the L1 cache once more, for *requests*. Is there one?"""
        return self._resolver.stale(slug, requests) is not None

    async def lease(self, slug: Slug, version: int) -> bool:
        """Lease visits of *slug*, made for *version*; False if it has no limit. Raises Unavailable."""
        return await self._quota.lease(slug, version)

    def refusals(self, error: Unavailable | Overloaded) -> list[Response]:
        """Return the answers to requests that end with *error*, to be given in turn; see `note_refused`."""
        if isinstance(error, Overloaded):
            return [errors.overloaded() for _ in range(errors.OVERLOADED_ANSWERS)]
        return [errors.unavailable(error)]

    def note_refused(self, error: Unavailable | Overloaded, requests: int) -> None:
        """Note that *requests* ended with *error*."""
        for _ in range(requests):
            self._on_error(error)
        now = self._monotonic()
        if requests and isinstance(error, Unavailable) and now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL_S
            log.warning("redirect answered 503: %s", error)

    def note_late(self, stale: int, refused: int) -> None:
        """Note requests whose look-ups were late: they got stale redirects, or were *refused*."""
        self._resolver.stale_answers += stale
        self.note_refused(self.late(), refused)

    def late(self) -> Unavailable:
        """Return the error of a request that took too long."""
        return Unavailable("the service", f"no answer within {self._limit_s:g} s")

    async def answer(
        self,
        slug: str,
        client: str,
        *,
        is_head: bool = False,
        intent: Callable[[], Intent] = lambda: Intent.VISIT,
        cost: int = 1,
    ) -> Response:
        """
        Answer within `limit_s`, resolving *slug* if necessary.

        A dependency that is away becomes a 503, or a stale redirect: it is never raised.

        Args:
            intent: why the request was made; asked only for a link with a visit quota.
            cost: visits that it counts as, by the limit of visits.
        """
        from_l1 = None if is_head else self.answer_from_l1(slug, client, self._monotonic())
        if from_l1 is not None:
            return from_l1
        if not self._admit(_REDIRECT, client, cost):
            return self._refuse(_REDIRECT, client)
        if is_head and intent is not _look:
            intent = _preview
        # Fresh in the L1 cache all the same: a HEAD, or a link with a visit quota.
        held = self._l1.get(slug)
        if held is not None:
            response = held.answer
            if response.metered_version:
                response = await self._within_limit(Slug(slug), response, intent)
            if not response.is_visit:
                return self._l1_error(response, client)
        else:
            self.missed += 1
            if is_key(slug):
                response = await self._look_up(Slug(slug), client, intent)
            else:
                response = self._charge_not_found(_NOT_FOUND, client)
            self.answered[response.status] += 1
        if response.is_visit and not is_head:
            self._count(Slug(slug))
        return response

    async def look(self, slug: Slug, client: str, *, cost: int = 1) -> Response:
        """
        Return what a visit of *slug* would get; nothing of it is a visit.

        Charged to the limits as *cost* visits are. No click is counted, and nothing of a visit quota leased.
        """
        return await self.answer(slug, client, is_head=True, intent=_look, cost=cost)

    async def _look_up(self, slug: Slug, client: str, intent: Callable[[], Intent]) -> Response:
        # The not-found limit is checked before the look-up, and refuses hits as well: otherwise a
        # client over the limit could still tell which slugs exist.
        if self._resolver.is_known(slug):
            refusal = self._limiter.refusal(_MISS, client)
            if refusal.retry_after_s > 0:
                return errors.too_many_requests(refusal)
            found = await self._within_limit(slug, None, intent)
            return self._charge_not_found(found, client) if _status(found) == 404 else found
        # A look-up is charged before it starts, or any number could run at once, and refunded if it
        # finds a link. A client that hangs up gets no refund: it could scan for free.
        if not self._admit(_MISS, client):
            return self._refuse(_MISS, client)
        found = await self._within_limit(slug, None, intent)
        if _status(found) != 404:
            self._limiter.refund(_MISS, client)
        return found

    async def _within_limit(
        self, slug: Slug, known: Response | None, intent: Callable[[], Intent]
    ) -> Response:
        """Resolve *slug* unless its response is *known*, and spend a visit of its quota: in time, or 503."""
        response = known
        limit = self._expiry.start()
        try:
            if response is None:
                response = await self._resolve(slug)
            if response.metered_version:
                response = await self._spend(slug, response, intent())
        except BaseException as error:
            if not (self._expiry.stop(limit) and isinstance(error, asyncio.CancelledError)):
                raise
            late = self.late()
            # A look-up that is late leaves a stale redirect, but no time to spend a visit on one.
            stale = self._resolver.stale(slug) if response is None else None
            return self._unavailable(late) if stale is None or stale.metered_version else stale
        self._expiry.stop(limit)
        return response

    async def _resolve(self, slug: Slug) -> Response:
        try:
            return await self._resolver.resolve(slug)
        except Unavailable as error:
            return self._resolver.stale(slug) or self._unavailable(error)
        except Overloaded as error:
            stale = self._resolver.stale(slug)
            if stale is None:
                self._on_error(error)
                return errors.overloaded()
            return stale

    async def _spend(self, slug: Slug, redirect: Response, intent: Intent) -> Response:
        """
        Spend a visit on *redirect*; 410, or the page in its place, if none is left.

        A HEAD, a preview or a look checks for one and leaves it, and is no click. A prefetch is refused:
        the browser would show its answer to a visitor without asking again.
        """
        if intent is Intent.PREFETCH:
            return _NOT_PREFETCHED
        is_visit = intent is Intent.VISIT
        try:
            quota = slug if redirect.spends is None else Slug(redirect.spends)
            if intent is Intent.LOOK:
                has_visit = await self._quota.is_left(quota, redirect.metered_version)
            else:
                has_visit = await self._quota.take(quota, redirect.metered_version, spend=is_visit)
        except Unavailable as error:
            return self._unavailable(error)
        if not has_visit:
            return redirect.exhausted or page_of(self._domains, slug, _GONE)
        return redirect if is_visit else replace(redirect, is_visit=False)

    def _l1_error(self, response: Response, client: str) -> Response:
        if _status(response) == 404:
            response = self._charge_not_found(response, client)
        if response.status not in REDIRECT_CODES:
            self.l1_errors[response.status] += 1
        return response

    def _unavailable(self, error: Unavailable) -> Response:
        """503. The response names the dependency, the log also the reason."""
        self.note_refused(error, 1)
        return errors.unavailable(error)

    def _charge_not_found(self, not_found: Response, client: str) -> Response:
        """Charge the client's not-found limit, which makes scanning for slugs as slow as guessing."""
        return not_found if self._admit(_MISS, client) else self._refuse(_MISS, client)

    def _refuse(self, policy: Policy, client: str) -> Response:
        return errors.too_many_requests(self._limiter.refusal(policy, client))
