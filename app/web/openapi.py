"""The API described for programs: OpenAPI 3.1, its schemas made from what the handlers read and write."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from app import __version__
from app.service.keys import Scope
from app.web import schemas
from app.web.answer import Answer, json_answer

_SCHEMAS = (
    schemas.CreateLink,
    schemas.PatchLink,
    schemas.Invalidate,
    schemas.Invalidated,
    schemas.LinkDocument,
    schemas.LinkPage,
    schemas.LinkStats,
    schemas.Problem,
)
_REF = "#/components/schemas/{name}"

# What may go wrong with any request that needs a key.
_ALWAYS = (400, 401, 403, 429, 503)
_TITLES = {
    400: "The body, the query or a header cannot be read",
    401: "No valid API key",
    403: "The key lacks the scope",
    404: "There is nothing here",
    409: "The slug is taken; `link` has it, unless it was removed",
    410: "The link is gone",
    412: "The link is at another version; `link` is as it is now",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    422: "A rule is broken; `errors` says which",
    429: "Over the limit; Retry-After says until when",
    503: "Too much to do, or a dependency does not answer; a write may or may not have taken place",
}

_SLUG = {"name": "slug", "in": "path", "required": True, "schema": {"type": "string"}}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": 'Change only this version, as in "3".',
    "schema": {"type": "string"},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same body makes one link, however often it is sent (24 hours).",
    "schema": {"type": "string", "maxLength": 255},
}
_LIMIT = {
    "name": "limit",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
}
_CURSOR = {
    "name": "cursor",
    "in": "query",
    "description": "`next_cursor` of the page before.",
    "schema": {"type": "string"},
}

_SINCE = {
    "name": "since",
    "in": "query",
    "description": "The hour of this time is the first. Default: 24 hours before `until`.",
    "schema": {"type": "string", "format": "date-time"},
}
_UNTIL = {
    "name": "until",
    "in": "query",
    "description": "The first hour that begins then or later is left out. At most 31 days of whole hours."
    " Default: the end of the present hour.",
    "schema": {"type": "string", "format": "date-time"},
}


@functools.cache
def document(public_url: str) -> Answer:
    """Return the description of the API at *public_url*, as it is served."""
    _, components = msgspec.json.schema_components(_SCHEMAS, ref_template=_REF)
    one = "/api/v1/links/{slug}"
    stats = f"{one}/stats"
    names = ("/api/v1/links", one, stats, "/api/v1/cache/invalidate")
    paths: dict[str, dict[str, Any]] = {name: {} for name in names}
    paths["/api/v1/links"]["post"] = _operation(
        "createLink", "Make a link", Scope.LINKS_WRITE, (201, schemas.LinkDocument), 409, 413, 415, 422,
        body=schemas.CreateLink, parameters=[_IDEMPOTENCY_KEY],
    )  # fmt: skip
    paths["/api/v1/links"]["get"] = _operation(
        "listLinks", "List links, newest first", Scope.LINKS_READ, (200, schemas.LinkPage), 422,
        parameters=[_LIMIT, _CURSOR],
    )  # fmt: skip
    paths[one]["get"] = _operation(
        "getLink", "Read a link", Scope.LINKS_READ, (200, schemas.LinkDocument), 404, 410, parameters=[_SLUG]
    )
    paths[stats]["get"] = _operation(
        "getLinkStats", "Read how often a link was visited, by the hour", Scope.LINKS_READ,
        (200, schemas.LinkStats), 404, 410, 422, parameters=[_SLUG, _SINCE, _UNTIL],
    )  # fmt: skip
    paths[one]["patch"] = _operation(
        "changeLink", "Change what the body names", Scope.LINKS_WRITE, (200, schemas.LinkDocument),
        404, 410, 412, 413, 415, 422, body=schemas.PatchLink, parameters=[_SLUG, _IF_MATCH],
    )  # fmt: skip
    paths[one]["delete"] = _operation(
        "removeLink", "Remove a link for ever", Scope.LINKS_WRITE, (204, None), 404, 410, 412, 422,
        parameters=[_SLUG, _IF_MATCH],
    )  # fmt: skip
    paths["/api/v1/cache/invalidate"]["post"] = _operation(
        "invalidate", "Make every cache read links again", Scope.CACHE_WRITE, (202, schemas.Invalidated),
        413, 415, 422, body=schemas.Invalidate,
    )  # fmt: skip
    return json_answer(
        200,
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Hopgate",
                "version": __version__,
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": public_url}],
            "security": [{"key": []}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "hg_…"}},
            },
        },
    )


def _operation(
    name: str,
    summary: str,
    scope: Scope,
    success: tuple[int, type | None],
    *problems: int,
    body: type | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    status, schema = success
    responses: dict[str, Any] = {
        str(status): {"description": "Done", **(_content("application/json", schema) if schema else {})}
    }
    for problem in sorted({*problems, *_ALWAYS}):
        problem_content = _content("application/problem+json", schemas.Problem)
        responses[str(problem)] = {"description": _TITLES[problem], **problem_content}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "description": f"Needs the scope `{scope}`.",
        "parameters": parameters or [],
        "responses": responses,
    }
    if body is not None:
        operation["requestBody"] = {"required": True, **_content("application/json", body)}
    return operation


def _content(media_type: str, schema: type) -> dict[str, Any]:
    return {"content": {media_type: {"schema": {"$ref": _REF.format(name=schema.__name__)}}}}
