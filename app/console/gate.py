"""What stands before every page of the console: the session, the origin of forms, the rules of the API."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from app.console.rendering import Pages, Viewer
from app.domain.domains import DomainIndex
from app.ports import Policy
from app.resilience.admission import WorkKind
from app.service.keys import Claim, Credential, Scope
from app.service.sessions import SESSION_LIFETIME, SessionId, Sessions
from app.web import errors
from app.web import headers as fields
from app.web.endpoint import Dialect, Endpoint, Operation
from app.web.middleware import ApiMiddleware, Call
from app.web.request import Request
from app.web.response import Headers, Response
from app.web.robyn_app import RobynHandler, for_robyn

FORM = "application/x-www-form-urlencoded"
TOKEN = "form_token"  # noqa: S105 - the name of a field
_MAX_FIELDS = 100
_PROBLEM = "application/problem+json"
# Headers of a problem that describe its document; the page has its own.
_OF_DOCUMENT = frozenset(
    {"content-type", "cache-control", "content-security-policy", "x-content-type-options"}
)
Handler = Callable[[Call[Any], Viewer], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Cookie:
    """
    The cookie with the session.

    Args:
        is_secure: browsers send it by HTTPS alone, and take it from this host alone.
    """

    is_secure: bool
    path: str

    @property
    def name(self) -> str:
        """Its name; with the prefix, browsers enforce what it promises."""
        return "__Host-hopgate_session" if self.is_secure else "hopgate_session"

    def holding(self, session: SessionId) -> tuple[str, str]:
        """Return the header that keeps *session*."""
        return self._header(session.text, int(SESSION_LIFETIME.total_seconds()))

    def empty(self) -> tuple[str, str]:
        """Return the header that forgets it."""
        return self._header("", 0)

    def read(self, request: Request) -> SessionId | None:
        """Return the session that *request* has; None: it has none, or two."""
        # Browsers send one line; HTTP/2 lets them send several.
        pairs = [pair.strip().partition("=") for line in request.lines("cookie") for pair in line.split(";")]
        found = [value for name, _, value in pairs if name == self.name]
        return SessionId.of(found[0]) if len(found) == 1 else None

    def _header(self, value: str, seconds: int) -> tuple[str, str]:
        # What is bound to the host has the path of the whole host.
        place = "Path=/; Secure" if self.is_secure else f"Path={self.path}"
        return ("set-cookie", f"{self.name}={value}; {place}; Max-Age={seconds}; HttpOnly; SameSite=Lax")


class Gate:
    """
    Declares the pages.

    A page is an endpoint of the API in another dialect: the session is its key, and its problems are pages.
    So admission control, rate limits, scopes, reach and deadlines are those of the API.
    """

    def __init__(
        self,
        middleware: ApiMiddleware,
        pages: Pages,
        domains: DomainIndex,
        sessions: Sessions,
        *,
        public_url: str,
    ) -> None:
        self._middleware = middleware
        self._sessions = sessions
        self._domains = domains
        self._pages = pages
        url = urlsplit(public_url)
        self._own_host = url.netloc
        self.cookie = Cookie(url.scheme == "https", f"{url.path}/console")

    def page(
        self,
        scope: Scope | None,
        *,
        deadline_s: float,
        work: WorkKind = WorkKind.LIST,
        limit: Policy | None = None,
        is_form: bool = False,
        keeps_query: bool = False,
        asks_others: bool = False,
        stale_key_s: float = 0.0,
    ) -> Callable[[Handler], RobynHandler]:
        """
        Declare a page for keys with *scope*, or what *is_form* of one; goes below a decorator of Robyn.

        Args:
            keeps_query: it is the form for a new link, to which a sign-in leads back, as it was filled in.
            asks_others: as of `Operation`, and so is *stale_key_s*.
        """
        operation = self._operation(scope, work=work, deadline_s=deadline_s, limit=limit, is_form=is_form)
        operation = replace(operation, asks_others=asks_others, stale_key_s=stale_key_s)
        dialect = Dialect(
            key=self.credential,
            problem=lambda response, request: self._answer(
                response, request, is_form=is_form, keeps_query=keeps_query
            ),
        )

        def declare(handler: Handler) -> RobynHandler:
            async def answer(call: Call[Any]) -> Response:
                session = self.cookie.read(call.request)
                return await handler(call, Viewer(call.principal, session.form_token if session else ""))

            async def handle(request: Request) -> Response:
                if not self._is_here(request):
                    return errors.not_found()
                if is_form and (refusal := self._forged(request)) is not None:
                    return refusal
                return await self._middleware.run(operation, answer, request, dialect)

            return for_robyn(Endpoint(handler.__name__, handle, operation, dialect=dialect))

        return declare

    def entrance(
        self,
        claim: Callable[[Request], str | Claim],
        problem: Callable[[Response, Request | None], Response],
        *,
        deadline_s: float,
    ) -> Callable[[Callable[[Call[Any]], Awaitable[Response]]], RobynHandler]:
        """
        Declare the form that begins a session; goes below a decorator of Robyn.

        Args:
            claim: returns the key that the form holds, or what stands for one.
            problem: returns the page in place of a problem, and any other answer as it is.
        """
        operation = self._operation(
            None, work=WorkKind.WRITE, deadline_s=deadline_s, limit=None, is_form=True
        )
        dialect = Dialect(key=claim, problem=problem)

        def declare(handler: Callable[[Call[Any]], Awaitable[Response]]) -> RobynHandler:
            async def handle(request: Request) -> Response:
                if not self._is_here(request):
                    return errors.not_found()
                if not self._is_own(request):
                    return self.refused("forged")
                return await self._middleware.run(operation, handler, request, dialect)

            return for_robyn(Endpoint(handler.__name__, handle, operation, dialect=dialect))

        return declare

    def open(self, handler: Callable[[Request], Awaitable[Response]]) -> RobynHandler:
        """Declare a page without a session."""

        async def handle(request: Request) -> Response:
            return await handler(request) if self._is_here(request) else errors.not_found()

        return for_robyn(Endpoint(handler.__name__, handle, reads=frozenset({"host"})))

    def credential(self, request: Request) -> Credential:
        """Return what stands for a key in *request*; empty without a session."""
        session = self.cookie.read(request)
        return "" if session is None else self._sessions.reference(session)

    def refused(self, why: str) -> Response:
        """403: the page that says *why*."""
        return self._page(403, self._pages.text(why))

    def problem(self, response: Response) -> Response:
        """Return the page in place of the problem *response*, any other answer as it is."""
        if ("content-type", _PROBLEM) not in response.headers:
            return response
        document = json.loads(response.body)
        own = [pair for pair in response.headers if pair[0] not in _OF_DOCUMENT]
        return self._page(response.status, document.get("detail", ""), own, title=document["title"])

    def _answer(
        self, response: Response, request: Request | None, *, is_form: bool, keeps_query: bool
    ) -> Response:
        if response.status != 401:
            return self.problem(response)
        # Without a session there is nothing to say of one that is over.
        is_over = request is not None and any(self.cookie.name in line for line in request.lines("cookie"))
        why = "over" if is_over or is_form else None
        new = request.query_string if request is not None and keeps_query else ""
        return self._pages.redirect("/console/sign-in", [self.cookie.empty()], why=why, new=new)

    def _page(self, status: int, detail: str, headers: Headers = (), *, title: str = "") -> Response:
        return self._pages.page(
            "problem.html",
            None,
            status=status,
            headers=headers,
            heading=self._pages.text(f"problem_{status}", title or str(status)),
            detail=detail,
        )

    def _is_here(self, request: Request) -> bool:
        """Is the request for the host of the base URL? Hosts of other domains have no console."""
        return self._domains.at(request.headers.get("host")).is_default

    def _forged(self, request: Request) -> Response | None:
        """Return the answer to a form that another site may have sent; nothing was done yet."""
        session = self.cookie.read(request)
        if session is None:
            return None  # the request is refused for that
        sent = form_of(request).get(TOKEN, "") if is_form_of(request) else ""
        is_own = self._is_own(request) and hmac.compare_digest(sent.encode(), session.form_token.encode())
        return None if is_own else self.refused("forged")

    def _is_own(self, request: Request) -> bool:
        """Did a page of this origin send the form, as far as the browser says?"""
        origins, sites = request.lines("origin"), request.lines("sec-fetch-site")
        hosts = {self._own_host, request.headers.get("host")}
        return all(urlsplit(one).netloc in hosts for one in origins) and all(
            one in ("same-origin", "none") for one in sites
        )

    @staticmethod
    def _operation(
        scope: Scope | None, *, work: WorkKind, deadline_s: float, limit: Policy | None, is_form: bool
    ) -> Operation:
        return Operation(
            summary="",
            scope=scope,
            work=work,
            deadline_s=deadline_s,
            success=(200, None),
            alike=(303,) if is_form else (),
            problems=(404, 409, 410, 413, 415, 422),
            limit=limit,
            takes=(FORM,) if is_form else (),
        )


def is_form_of(request: Request) -> bool:
    """Is the body a form, in UTF-8?"""
    return fields.is_json(request.headers.get("content-type", ""), FORM)


def form_of(request: Request) -> dict[str, str]:
    """Return the fields of the form in the body; nothing if it cannot be read. The last of a name counts."""
    try:
        pairs = parse_qsl(
            request.body.decode("utf-8"),
            keep_blank_values=True,
            max_num_fields=_MAX_FIELDS,
            errors="strict",
        )
    except ValueError:
        return {}
    # Browsers send lines of a text as CR LF.
    return {name: value.replace("\r\n", "\n") for name, value in pairs}
