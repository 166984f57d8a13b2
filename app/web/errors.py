"""
The problems that clients see (RFC 9457): one function each, for the API, the bridge and redirects.

`code` is stable and short, for programs; `title` says the same in words, `detail` is about this case.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import assert_never

from app.domain.errors import Contended, FieldError, InvalidInput, Refused, Unavailable
from app.ports import Refusal
from app.web.response import Response, json_response
from app.web.schemas import FieldProblem, ItemProblem, LinkDocument, Problem

_RETRY_S = 1
# `overloaded` has as many answers, in turn.
OVERLOADED_ANSWERS = 3


def unreadable(detail: str) -> Response:
    """400: the request is not readable as HTTP or JSON."""
    return _problem(400, "unreadable", "The request cannot be read", detail=detail)


def unauthorized() -> Response:
    """401: no key, or an invalid one; the response does not reveal which."""
    challenge = [("www-authenticate", 'Bearer realm="hopgate"')]
    return _problem(401, "unauthorized", "A valid API key is required", headers=challenge)


def key_expired() -> Response:
    """401: the secret is that of a key whose time is over; only the client that has the secret learns it."""
    challenge = [("www-authenticate", 'Bearer realm="hopgate", error="invalid_token"')]
    return _problem(401, "key_expired", "The API key has expired", headers=challenge)


def forbidden(scope: str) -> Response:
    """403: the key lacks *scope*."""
    return _problem(403, "forbidden", "The key may not do this", detail=f"The scope {scope} is missing.")


def restricted() -> Response:
    """Return the 403 for a key that reaches some links alone, where the answer is about all."""
    detail = "The answer is about all links, and this key is restricted."
    return _problem(403, "key_restricted", "The key may not do this", detail=detail)


def address_forbidden() -> Response:
    """403: the key may not be used from the client's address."""
    detail = "The address of the client is none that the key may be used from."
    return _problem(403, "address_forbidden", "The key may not be used from here", detail=detail)


def not_found() -> Response:
    """404: no such link or path."""
    return _problem(404, "not_found", "There is nothing here")


def method_not_allowed(allow: str) -> Response:
    """405: the path exists, with the methods *allow*."""
    return _problem(405, "method_not_allowed", "The method is not allowed here", headers=[("allow", allow)])


def body_timeout() -> Response:
    """408: the body did not arrive in time."""
    return _problem(408, "body_timeout", "The request body took too long", headers=[("connection", "close")])


def slug_taken(slug: str, link: LinkDocument | None, *, removed: bool | None) -> Response:
    """409: the slug belongs to a link, or to a *removed* one; None and no *link*: the key may not see it."""
    why = "was in use, and slugs are never given out twice" if removed else "is in use"
    if removed is None:
        why = "is not free"
    return _problem(409, "slug_taken", "The slug is taken", detail=f"{slug} {why}.", link=link)


def is_alias(link: LinkDocument | None) -> Response:
    """409: the slug is an alias of *link*, if the key may read it; changes name a link by its own slug."""
    detail = "Name the link by its own slug. Nothing was changed."
    return _problem(409, "is_alias", "The slug is an alias", detail=detail, link=link)


def alias_not_found() -> Response:
    """404: the link has no such alias."""
    return _problem(404, "alias_not_found", "The link has no such alias")


def domain_taken(host: str) -> Response:
    """409: the host is served already."""
    return _problem(409, "domain_taken", "The domain is there already", detail=f"{host} is a domain.")


def domain_in_use(slug: str) -> Response:
    """409: the domain has links, such as *slug*."""
    detail = f"The domain has links, {slug} among them: remove them first."
    return _problem(409, "domain_in_use", "The domain has links", detail=detail)


def domain_is_target(host: str, slug: str) -> Response:
    """409: links lead to the host, such as *slug*."""
    detail = f"Links lead to {host}, {slug} among them: as a domain it would send their visitors in a circle."
    return _problem(409, "domain_is_target", "Links lead to the host", detail=detail)


def external_id_taken(external_id: str | None, link: LinkDocument | None) -> Response:
    """409: the external id is that of another link; *link* if the key may read it."""
    detail = f"{external_id} is the external id of another link."
    return _problem(409, "external_id_taken", "The external id is taken", detail=detail, link=link)


def nothing_to_undo() -> Response:
    """409: the link was never changed, or so long ago that it cannot be undone."""
    detail = "The link has no change that is recent enough to be undone."
    return _problem(409, "nothing_to_undo", "There is nothing to undo", detail=detail)


def undo_refused() -> Response:
    """409: what the link was before may not be restored; the key may not read what it is."""
    detail = "What the link was before breaks a rule of today, or is taken."
    return _problem(409, "undo_refused", "The change cannot be undone", detail=detail)


def slug_fixed(short_url: str, link: LinkDocument | None) -> Response:
    """409: the link to update has another slug or domain, and keeps it."""
    detail = f"The link of this external_id is {short_url}."
    return _problem(409, "slug_fixed", "A link keeps its slug and its domain", detail=detail, link=link)


def batch_refused(items: Sequence[ItemProblem]) -> Response:
    """422: an atomic batch has *items* that cannot be stored."""
    detail = f"{len(items)} of its items cannot be stored, so nothing was."
    return _problem(422, "batch_refused", "The batch was given up", detail=detail, items=items)


def gone() -> Response:
    """410: the link is removed, disabled, expired, or has no visit left."""
    return _problem(410, "gone", "The link is gone")


def version_mismatch(version: int, link: LinkDocument | None) -> Response:
    """412: the link is at *version*, not at one that If-Match names; *link* if the key may read it."""
    detail = f"The link is at version {version}."
    return _problem(412, "version_mismatch", "The link has changed meanwhile", detail=detail, link=link)


def length_required() -> Response:
    """411: the body has no Content-Length, so nothing tells whether it is complete."""
    detail = "A body needs Content-Length; Transfer-Encoding is not supported."
    headers = [("connection", "close")]
    return _problem(411, "length_required", "The length is missing", detail=detail, headers=headers)


def body_cut_off(received: int, declared: int) -> Response:
    """400: the connection ended before the body did."""
    detail = f"The body has {received} of {declared} bytes. Nothing was done."
    return _problem(
        400, "unreadable", "The request cannot be read", detail=detail, headers=[("connection", "close")]
    )


def body_incomplete() -> Response:
    """400: the body ended early or is malformed, and what reads it counts no bytes."""
    detail = "The body is not what its head announced. Nothing was done."
    return _problem(
        400, "unreadable", "The request cannot be read", detail=detail, headers=[("connection", "close")]
    )


def body_too_large(limit: int) -> Response:
    """413: more than *limit* bytes."""
    detail = f"The most is {limit} bytes."
    headers = [("connection", "close")]
    return _problem(413, "body_too_large", "The request body is too large", detail=detail, headers=headers)


def not_json() -> Response:
    """415: the body is not declared as JSON in UTF-8."""
    return _problem(415, "not_json", "The body must be sent as application/json in UTF-8")


def encoded() -> Response:
    """415: the body is compressed."""
    headers = [("accept-encoding", "identity")]
    return _problem(415, "encoded", "The body must be sent without Content-Encoding", headers=headers)


def neither_json_nor_lines() -> Response:
    """415: the body of a batch is declared as neither."""
    title = "The body must be sent as application/json or application/x-ndjson, in UTF-8"
    return _problem(415, "not_json", title)


def invalid(error: InvalidInput) -> Response:
    """422: the request is readable and breaks a rule."""
    return _problem(422, "invalid", "The request breaks a rule", detail=str(error), errors=error.errors)


def idempotency_key_reused() -> Response:
    """422: the idempotency key belongs to a request with another body."""
    detail = "This Idempotency-Key was used before with another body."
    return _problem(422, "idempotency_key_reused", "The idempotency key is taken", detail=detail)


def too_many_requests(refusal: Refusal) -> Response:
    """429: over the client's limit."""
    headers = {name.lower(): value for name, value in refusal.headers.items()}
    if math.isinf(refusal.retry_after_s):
        detail = "The limit never admits as much at once: ask for less."
        return _problem(429, "too_many_requests", "Over the limit", detail=detail, headers=headers.items())
    # RFC 9110: whole seconds; never zero, or refused clients retry at once.
    headers.setdefault("retry-after", str(max(1, math.ceil(min(refusal.retry_after_s, 86_400)))))
    return _problem(429, "too_many_requests", "Over the limit", headers=headers.items())


def blocked(by: str) -> Response:
    """451: the service at the URL *by* lets no link lead there, or lets this one lead nowhere (RFC 7725)."""
    return _problem(
        451,
        "blocked",
        "The link is blocked",
        detail="The operator of this service has blocked the link or the host that it leads to.",
        headers=[("link", f'<{by}>; rel="blocked-by"')],
    )


def server_error(trace_id: str) -> Response:
    """500: a bug; *trace_id* identifies the failure in the log."""
    return _problem(500, "server_error", "Something went wrong on our side", trace_id=trace_id)


def not_prefetched() -> Response:
    """503: a visit is spent only if a visitor asks for it; the browser asks again when that happens."""
    return _problem(
        503,
        "not_prefetched",
        "Not sent ahead of a visit",
        detail="Each visit of this link counts, so it is not prefetched.",
        headers=[("retry-after", str(_RETRY_S))],
    )


def unavailable(error: Unavailable | TimeoutError, *, may_have_written: bool = False) -> Response:
    """
    503: a dependency is not available, or the deadline of the request has passed.

    Args:
        may_have_written: the request may have changed something before it failed.
    """
    match error:
        case Contended():
            detail = "Other writers were faster each time."
        case Refused():
            detail = f"{error.dependency} takes no writes at present."
        case Unavailable():
            detail = f"{error.dependency} is not available."
        case TimeoutError():
            detail = "The request took too long."
        case _:
            assert_never(error)
    if isinstance(error, Contended) or (
        may_have_written and isinstance(error, Unavailable) and error.stored_nothing
    ):
        detail += " Nothing was stored."
    elif may_have_written:
        detail += " The write may or may not have taken place."
    return _problem(
        503,
        "unavailable",
        "Temporarily unavailable",
        detail=detail,
        headers=[("retry-after", str(_RETRY_S))],
    )


def overloaded() -> Response:
    """503: shed by admission control before anything was done (see `app.resilience.admission`)."""
    return next(_OVERLOADED)


def _problem(
    status: int,
    code: str,
    title: str,
    *,
    detail: str = "",
    errors: Sequence[FieldError] = (),
    headers: Iterable[tuple[str, str]] = (),
    link: LinkDocument | None = None,
    items: Sequence[ItemProblem] = (),
    trace_id: str | None = None,
) -> Response:
    document = Problem(
        type=f"urn:hopgate:problem:{code}",
        title=title,
        status=status,
        code=code,
        detail=detail,
        errors=[FieldProblem(e.field, e.code, e.message) for e in errors],
        link=link,
        items=list(items),
        trace_id=trace_id,
    )
    return json_response(status, document, headers, media_type="application/problem+json")


# Ready-made, and in turn: clients that are refused together do not retry together.
_OVERLOADED = itertools.cycle(
    _problem(
        503,
        "overloaded",
        "Too much to do",
        detail="Nothing was done.",
        headers=[("retry-after", str(seconds))],
    )
    for seconds in range(1, OVERLOADED_ANSWERS + 1)
)
