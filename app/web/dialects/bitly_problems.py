"""Problems as Bitly says them: a word for programs, a sentence, and the fields that are wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from app.web import headers as fields
from app.web.dialects.problems import kept_headers, message_of, problem_in
from app.web.endpoint import Dialect
from app.web.request import Request
from app.web.response import Response, json_response
from app.web.schemas import FieldProblem

# Statuses of this service, and those of Bitly for the same.
_STATUSES = {401: 403, 410: 404, 422: 400}
_WORDS = {
    400: "INVALID_ARG",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    413: "REQUEST_ENTITY_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "RATE_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}
_MISSING = re.compile(r"required field `(\w+)`")


def failure(
    status: int,
    description: str,
    *,
    faults: Iterable[FieldProblem] = (),
    headers: Iterable[tuple[str, str]] = (),
) -> Response:
    """Return what Bitly says of a request that fails with *status*, because of *faults*."""
    errors = [_fault(one) for one in faults]
    word = _WORDS.get(status, "BAD_REQUEST")
    if status == 400 and errors:
        word = f"{word}_{errors[0]['field'].upper()}"
    document = {"message": word, "description": description, "resource": "bitlinks", "errors": errors}
    return json_response(status, document, headers)


def _fault(error: FieldProblem) -> Mapping[str, str]:
    missing = _MISSING.search(error.message)
    field = missing[1] if missing else {"enabled": "archived"}.get(error.field, error.field)
    return {"field": field, "error_code": error.code, "message": error.message}


def _problem(response: Response, _request: Request | None) -> Response:
    problem = problem_in(response)
    if problem is None:
        return response
    status = _STATUSES.get(problem.status, problem.status)
    headers = [pair for pair in kept_headers(response) if pair[0] != "www-authenticate"]
    return failure(status, message_of(problem), faults=problem.errors, headers=headers)


def _key(request: Request) -> str:
    """Return the token; some clients send it without the word before it."""
    value = request.headers.get("authorization", "")
    scheme, token = fields.credentials(value)
    return token if scheme == "bearer" else value


DIALECT = Dialect(
    key=_key,
    problem=_problem,
    headers=frozenset({"content-type", "content-encoding"}),
    takes_chunks=True,
)
