"""
The API of YOURLS: one path, an action in its parameters, GET or a form.

A key stands in `signature`, or in `password` beside any user name. YOURLS also takes a hash of its
signature and the time; that needs the key itself on the server, and this service has only its hash.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, NamedTuple, assert_never
from urllib.parse import parse_qsl

from app.concurrency.actors import reach
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link, LinkFields
from app.domain.link_key import name_of
from app.domain.reach import EVERYTHING
from app.domain.slug import MOVED, ORDINARY
from app.ports import ExternalIdTaken, LinkQuery, LinkSort, Policy, RequestMismatch, Totals
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.find import Filters
from app.service.keys import Scope
from app.service.links import Created, SlugTaken
from app.web import errors
from app.web.dialects.lookup import idempotent_request, key_at, reusable, shown, window
from app.web.dialects.problems import is_plain, kept_headers, message_of, problem_in
from app.web.dialects.yourls_output import DEFAULT_FORMAT, FORMATS, is_callback, output
from app.web.endpoint import Dialect, Endpoint, Operation
from app.web.middleware import ApiMiddleware, Call
from app.web.request import Request
from app.web.response import Response
from app.web.robyn_app import Router, for_robyn
from app.web.services import Services

PATH = "/yourls-api.php"
# The release whose API this is: clients ask for it to know what they may use.
VERSION = "1.9.2"
_MAX_FIELDS, _MAX_LISTED = 100, 1000
_FORM = "application/x-www-form-urlencoded"
_TIME = "%Y-%m-%d %H:%M:%S"
_NO_STATS = "Need either XML or JSON format for stats"
_SORTS = {
    "top": (LinkSort.CLICKS, True),
    "bottom": (LinkSort.CLICKS, False),
    "last": (LinkSort.STORED, True),
}


class _Said(NamedTuple):
    """An answer of YOURLS: its document, and the text that stands for it in the format `simple`."""

    document: Mapping[str, Any]
    simple: str
    status: int = 200


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request asks for: the parameters of its query and of its form, which win."""

    parameters: Mapping[str, str]

    @staticmethod
    def of(request: Request) -> _Asked:
        """Read *request*; raises ValueError."""
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not request.body:
            return _Asked(request.query)
        if content_type != _FORM:
            message = f"The body must be a form, sent as {_FORM}."
            raise ValueError(message)
        if not is_plain(request):
            message = "The body must be sent without Content-Encoding."
            raise ValueError(message)
        text = request.body.decode("utf-8")
        form = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
        return _Asked({**request.query, **dict(form)})

    def get(self, name: str) -> str:
        """Return the parameter *name*; nothing if it is not sent."""
        return self.parameters.get(name, "")

    @property
    def key(self) -> str:
        """The API key."""
        return self.get("signature") or self.get("password")

    def said(self, said: _Said, headers: Any = ()) -> Response:
        """Return *said* in the format that is asked for."""
        shape = self.get("format") or DEFAULT_FORMAT
        return output(
            said.document,
            said.simple,
            status=said.status,
            shape=shape if shape in FORMATS else "simple",
            callback=self.get("callback"),
            headers=headers,
        )


class _Action(NamedTuple):
    operation: Operation
    handle: Callable[[_Asked, Call[None]], Awaitable[_Said]]


def register(app: Router, middleware: ApiMiddleware, services: Services) -> None:
    """Declare the endpoint of YOURLS on *app*."""
    actions = _Actions(services).table

    async def speak(request: Request) -> Response:
        try:
            asked = _Asked.of(request)
        except ValueError as error:
            return _in_json(errors.unreadable(str(error)))
        wrong = _unreadable(asked, request)
        if wrong is not None:
            # JSONP without a function that it may call has no shape.
            shaped = asked if asked.get("format") != "jsonp" else _Asked({"format": "json"})
            return shaped.said(wrong)
        action = actions.get(asked.get("action"), _UNKNOWN)
        dialect = Dialect(lambda _: asked.key, lambda response, _: _problem(response, asked))

        async def handle(call: Call[None]) -> Response:
            return asked.said(await action.handle(asked, call))

        return await middleware.run(action.operation, handle, request, dialect)

    # The heaviest action stands for all where a request is refused before it is read.
    shared = Dialect(
        lambda _: "", lambda response, _: _in_json(response), frozenset({"content-type", "content-encoding"})
    )
    endpoint = for_robyn(Endpoint("yourls", speak, actions["shorturl"].operation, dialect=shared))
    app.get(PATH)(endpoint)
    app.post(PATH)(endpoint)


def _unreadable(asked: _Asked, request: Request) -> _Said | None:
    """Return what is wrong with the request whatever it asks for."""
    shape = asked.get("format") or DEFAULT_FORMAT
    if shape not in FORMATS:
        return _failure(400, f"The format must be one of {', '.join(FORMATS)}.")
    if shape == "jsonp" and not is_callback(asked.get("callback")):
        return _failure(400, "JSONP needs a callback that is the name of a function.")
    if asked.get("timestamp"):
        return _failure(
            403,
            "A signature with a timestamp cannot be checked: this service stores hashes of its keys alone."
            " Send the key as signature, without timestamp and hash, over HTTPS.",
        )
    if request.method == "HEAD" and asked.get("action") == "shorturl":
        return _failure(405, "A HEAD makes no short URL: send GET or POST.")
    return None


def _failure(status: int, message: str, *, simple: str | None = None, **more: Any) -> _Said:
    """Return what YOURLS says of a failure, with *more* members."""
    document = {**more, "message": message, "errorCode": str(status), "statusCode": str(status)}
    return _Said(document, message if simple is None else simple, status)


def _not_made(status: int, message: str, *, simple: str = "", **more: Any) -> _Said:
    """Return why there is no new short URL. In the format `simple` no text may pass for one."""
    said = _failure(status, message, simple=simple, **more)
    return said._replace(document={"status": "fail", **said.document})


def _problem(response: Response, asked: _Asked) -> Response:
    problem = problem_in(response)
    if problem is None:
        return response
    # YOURLS has no 401.
    status = 403 if problem.status == 401 else problem.status
    kept = [pair for pair in kept_headers(response) if pair[0] != "www-authenticate"]
    fail = _not_made if asked.get("action") == "shorturl" else _failure
    return asked.said(fail(status, message_of(problem)), kept)


def _in_json(response: Response) -> Response:
    return _problem(response, _Asked({"format": "json"}))


def _shorturl_problem(error: InvalidInput) -> _Said:
    """Return what YOURLS says of a URL, a keyword or a title that breaks a rule."""
    first = error.errors[0]
    code = {"long_url": "error:nourl", "slug": "error:keyword"}.get(first.field, f"error:{first.field}")
    if first.code == "url_own_host":
        code = "error:noloop"
    subject = {"long_url": "The URL", "slug": "The keyword"}.get(first.field, f"The {first.field}")
    return _not_made(400, f"{subject} {first.message}", code=code)


async def _no_action(_asked: _Asked, _call: Call[None]) -> _Said:
    return _failure(400, 'Unknown or missing "action" parameter')


def _operation(scope: Scope | None, work: WorkKind, deadline_s: float, **more: Any) -> Operation:
    return Operation(summary="", scope=scope, work=work, deadline_s=deadline_s, success=(200, None), **more)


_UNKNOWN = _Action(_operation(None, WorkKind.LIST, WRITE_S), _no_action)


class _Actions:
    """The actions of YOURLS over the services of this one."""

    def __init__(self, services: Services) -> None:
        self._links, self._listings, self._domains = services.links, services.listings, services.domains
        reading = _operation(Scope.LINKS_READ, WorkKind.LIST, WRITE_S)
        listing = _operation(Scope.LINKS_READ, WorkKind.LIST, ADMIN_S)
        writing = _operation(
            Scope.LINKS_WRITE, WorkKind.WRITE, WRITE_S, limit=Policy.CREATE, problems=(404, 405, 411, 413)
        )
        self.table = {
            "shorturl": _Action(writing, self._shorturl),
            "expand": _Action(reading, self._expand),
            "url-stats": _Action(reading, self._url_stats),
            "stats": _Action(listing, self._stats),
            "db-stats": _Action(listing, self._db_stats),
            "version": _Action(_UNKNOWN.operation, self._version),
        }

    async def _shorturl(self, asked: _Asked, call: Call[None]) -> _Said:
        request = idempotent_request(call.request, call.principal.key_id)
        url, keyword = asked.get("url"), asked.get("keyword")
        sent = LinkFields(long_url=url, title=asked.get("title"))
        try:
            # A request that is repeated must not find the link that it made itself.
            if request is None and call.principal.may(Scope.LINKS_READ):
                query = Filters(long_url=url, domain=self._domains.index.default.domain_id).query()
                found = await reusable(query, self._listings)
                if found:
                    return self._url_exists(found[0])
            outcome = await self._links.create(
                sent,
                domain=self._domains.index.default,
                custom_slug=keyword or None,
                lengths=MOVED if call.principal.may(Scope.ADMIN) else ORDINARY,
                request=request,
            )
        except InvalidInput as error:
            return _shorturl_problem(error)
        match outcome:
            case Created():
                return self._stored(shown(outcome, sent, call.principal))
            case SlugTaken():
                message = f"The keyword {keyword} is in use, or was: keywords are given out once."
                return _not_made(400, message, code="error:keyword")
            case RequestMismatch():
                message = "This Idempotency-Key was used before with another request."
                return _not_made(422, message)
            case ExternalIdTaken():
                raise AssertionError("no external id was sent")
            case _:
                assert_never(outcome)

    def _stored(self, link: Link) -> _Said:
        short = self._domains.index.short_url(link.slug)
        document = {
            "url": self._described(link, "date"),
            "status": "success",
            "message": f"{link.fields.long_url} added to database",
            "title": link.fields.title,
            "shorturl": short,
            "statusCode": "200",
        }
        return _Said(document, short)

    def _url_exists(self, link: Link) -> _Said:
        short = self._domains.index.short_url(link.slug)
        message = f"{link.fields.long_url} already exists in database (short URL: {short})"
        return _not_made(
            400,
            message,
            simple=short,
            code="error:url",
            url={**self._described(link, "date"), "clicks": str(link.visits)},
            title=link.fields.title,
            shorturl=short,
        )

    def _described(self, link: Link, time: str) -> dict[str, str]:
        """Return what YOURLS says of a link. The address that made it is not stored."""
        return {
            "keyword": name_of(link.slug),
            "url": link.fields.long_url,
            "title": link.fields.title,
            time: link.created_at.astimezone(UTC).strftime(_TIME),
            "ip": "",
        }

    async def _found(self, asked: _Asked) -> Link | None:
        key = await key_at(asked.get("shorturl"), self._domains)
        outcome = None if key is None else await self._links.get(key)
        return outcome if isinstance(outcome, Link) else None

    async def _expand(self, asked: _Asked, _call: Call[None]) -> _Said:
        link = await self._found(asked)
        if link is None:
            return _not_found()
        url = link.fields.long_url
        document = {
            "keyword": name_of(link.slug),
            "shorturl": self._domains.index.short_url(link.slug),
            "longurl": url,
            "title": link.fields.title,
            "message": "success",
            "statusCode": "200",
        }
        return _Said(document, url)

    async def _url_stats(self, asked: _Asked, _call: Call[None]) -> _Said:
        link = await self._found(asked)
        if link is None:
            return _not_found()
        return _Said({"statusCode": "200", "message": "success", "link": self._counted(link)}, _NO_STATS)

    def _counted(self, link: Link) -> dict[str, str]:
        described = self._described(link, "timestamp")
        del described["keyword"]
        short = {"shorturl": self._domains.index.short_url(link.slug)}
        return {**short, **described, "clicks": str(link.visits)}

    async def _stats(self, asked: _Asked, _call: Call[None]) -> _Said:
        sort, limit, start = asked.get("filter") or "top", _number(asked, "limit"), _number(asked, "start")
        if limit and sort not in _SORTS:
            return _failure(400, f"The filter must be one of {', '.join(_SORTS)}; rand is not available.")
        if limit > _MAX_LISTED:
            return _failure(400, f"The limit is at most {_MAX_LISTED}.")
        links = []
        if limit:
            by, descending = _SORTS[sort]
            query = LinkQuery(sort=by, descending=descending, domain=self._domains.index.default.domain_id)
            links = list(await window(query, self._listings, first=start, limit=limit))
        totals = await self._totals()
        if not isinstance(totals, Totals):
            return totals
        listed = {f"link_{place}": self._counted(link) for place, link in enumerate(links, 1)}
        document = {
            **({"links": listed} if listed else {}),
            "stats": _of_all(totals),
            "statusCode": "200",
            "message": "success",
        }
        return _Said(document, _NO_STATS)

    async def _db_stats(self, _asked: _Asked, _call: Call[None]) -> _Said:
        totals = await self._totals()
        if not isinstance(totals, Totals):
            return totals
        return _Said({"db-stats": _of_all(totals), "statusCode": "200", "message": "success"}, _NO_STATS)

    async def _totals(self) -> Totals | _Said:
        if reach() != EVERYTHING:
            return _failure(403, "This key is restricted, and the answer is about all links.")
        totals = await self._listings.totals()
        return totals or _failure(503, "Adding up all links takes too long.")

    async def _version(self, _asked: _Asked, _call: Call[None]) -> _Said:
        return _Said({"version": VERSION}, VERSION)


def _not_found() -> _Said:
    document = {"message": "Error: short URL not found", "errorCode": "404", "statusCode": "404"}
    return _Said(document, "not found", 404)


def _of_all(totals: Totals) -> dict[str, str]:
    return {"total_links": str(totals.links), "total_clicks": str(totals.clicks)}


def _number(asked: _Asked, name: str) -> int:
    text = asked.get(name)
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InvalidInput([FieldError(name, f"{name}_invalid", "must be a number from 0 on")])
    return int(text)
