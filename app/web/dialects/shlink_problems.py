"""Problems as Shlink says them: its types, its statuses, its names of fields."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from app.web.dialects.problems import PROBLEM_TYPE, kept_headers, problem_in
from app.web.endpoint import Dialect
from app.web.request import Request
from app.web.response import Response, json_response
from app.web.schemas import FieldProblem

KEY_HEADER = "x-api-key"
_TYPES = "https://shlink.io/api/error/"
# Names of this service, and those of Shlink for the same.
_FIELDS = {
    "long_url": "longUrl",
    "slug": "customSlug",
    "valid_from": "validSince",
    "expires_at": "validUntil",
    "max_visits": "maxVisits",
    "forward_query": "forwardQuery",
    "search": "searchTerm",
    "created_since": "startDate",
    "created_until": "endDate",
    "tag": "tags",
    "tags_all": "tags",
    "tags_none": "excludeTags",
}
_MISSING = re.compile(r"required field `(\w+)`")


def failure(
    status: int, kind: str, title: str, detail: str, headers: Iterable[tuple[str, str]] = (), **more: Any
) -> Response:
    """Return a problem of Shlink of the type *kind*, with *more* members."""
    document = {"type": f"{_TYPES}{kind}", "title": title, "status": status, "detail": detail, **more}
    return json_response(status, document, headers, media_type=PROBLEM_TYPE[1])


def invalid_data(faults: Iterable[tuple[str, str]]) -> Response:
    """Return what is wrong with the data of a request: the names of its fields, and why."""
    listed = list(faults)
    detail = "; ".join(f"{name} {why}" for name, why in listed) or "The request cannot be read."
    names = list(dict.fromkeys(name for name, _ in listed))
    return failure(400, "invalid-data", "Invalid data", detail, invalidElements=names)


def short_url_not_found(code: str) -> Response:
    """Return that no short URL has this *code*."""
    detail = f"There is no short URL with the short code {code}."
    return failure(404, "short-url-not-found", "Short URL not found", detail, shortCode=code)


def tag_not_found(tag: str) -> Response:
    """Return that no short URL has *tag*."""
    return failure(404, "tag-not-found", "Tag not found", f"No short URL has the tag {tag}.", tag=tag)


def tag_conflict(old: str, new: str) -> Response:
    """Return that the tag *new* is there already, so *old* is not renamed to it."""
    detail = f"The tag {new} is there already."
    return failure(409, "tag-conflict", "Tag conflict", detail, oldName=old, newName=new)


def not_available(what: str) -> Response:
    """Return that this service has no such thing: the answer of a Shlink that is older than it."""
    return failure(404, "not-found", "Not found", f"{what}: see docs/dialects.md.")


def _problem(response: Response, request: Request | None) -> Response:  # noqa: PLR0911 - one for each code
    problem = problem_in(response)
    if problem is None:
        return response
    headers = kept_headers(response)
    match problem.code:
        case "unauthorized" | "key_expired":
            is_missing = request is None or not request.headers.get(KEY_HEADER)
            kind = "missing-authentication" if is_missing else "invalid-api-key"
            detail = f"{problem.title}, in the header X-Api-Key."
            return failure(401, kind, "Invalid authorization", detail, headers)
        case "invalid":
            return invalid_data(_fault(one) for one in problem.errors)
        case "unreadable":
            return failure(400, "invalid-data", "Invalid data", problem.detail, headers, invalidElements=[])
        case "slug_taken":
            # The detail begins with the slug.
            slug = problem.detail.partition(" ")[0]
            return failure(
                400, "non-unique-slug", "Invalid custom slug", problem.detail, headers, customSlug=slug
            )
        case "not_found" | "gone":
            return short_url_not_found("" if request is None else request.path_params.get("slug", ""))
        case _:
            return response


def _fault(error: FieldProblem) -> tuple[str, str]:
    missing = _MISSING.search(error.message)
    name = missing[1] if missing else error.field
    return _FIELDS.get(name, name), error.message


DIALECT = Dialect(
    key=lambda request: request.headers.get(KEY_HEADER, ""),
    problem=_problem,
    headers=frozenset({KEY_HEADER, "content-type", "content-encoding"}),
    takes_chunks=True,
)
