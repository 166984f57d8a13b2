"""The OpenAPI 3.1 document, made from the declarations of the endpoints (see `app.web.endpoint`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from app import __version__
from app.domain.policy import WEB
from app.web import patterns, schemas
from app.web.endpoint import ALWAYS, Operation, Parameter, Route, template

_REF = "#/components/schemas/{name}"
_TEXT = {"type": "string"}

_TITLES = {
    200: "The link was there already",
    202: "Not all is done: send the request again",
    204: "Done; the key may not read links",
    304: "If-None-Match names what would be sent",
    400: "The body, the query or a header cannot be read",
    401: "No valid API key",
    403: "The key lacks the scope, or may not be used from the address of the client",
    404: "There is nothing here",
    409: "The slug is taken; `link` has it, unless it was removed or the key may not read it",
    410: "The link is gone",
    412: "If-Match or If-None-Match excludes the version of the link; `link` is it, if the key may read",
    411: "The body has no Content-Length",
    413: "The body is too large",
    415: "The body is not declared as JSON in UTF-8, or is compressed",
    422: "A rule is broken; `errors` says which",
    429: "Over the limit; Retry-After says until when",
    503: "Too much to do, or a dependency does not answer; a write may or may not have taken place",
}


def description(public_url: str, routes: Sequence[Route], schemes: Collection[str] = WEB) -> dict[str, Any]:
    """
    Return the description of the API at *public_url*: of every route that declares an operation.

    Those of dialects are described by the programs that they are of.

    Args:
        schemes: what targets may have, in lower case.
    """
    paths: dict[str, dict[str, Any]] = {}
    tags: list[str] = []
    described: set[type] = {schemas.Problem}
    for route in routes:
        operation = route.endpoint.operation
        if operation is not None and route.endpoint.dialect is None:
            names = _parameters(route.path)
            # Below the prefix, `/api/v1`: what the path is about.
            tag = route.path.split("/")[3]
            paths.setdefault(template(route.path), {})[route.method.lower()] = {
                "tags": [tag],
                **_operation(route.endpoint.name, operation, names),
            }
            tags += [tag] if tag not in tags else []
            described |= {one for one in (operation.body, operation.success[1]) if one is not None}
    _, components = msgspec.json.schema_components(
        sorted(described, key=lambda one: one.__name__), ref_template=_REF
    )
    for one in described:
        components[one.__name__] |= getattr(one, "extra_json_schema", {})
    components = _replaced(components, patterns.TARGET, patterns.target(schemes))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hopgate",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": public_url}],
        "security": [{"key": []}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "hg_…"}},
        },
    }


def _replaced(node: Any, old: str, new: str) -> Any:
    """Return *node* of a document with *new* in each place of *old*."""
    if isinstance(node, dict):
        return {name: _replaced(one, old, new) for name, one in node.items()}
    if isinstance(node, list):
        return [_replaced(one, old, new) for one in node]
    return new if node == old else node


def _operation(name: str, operation: Operation, path_parameters: Sequence[str]) -> dict[str, Any]:
    status, schema = operation.success
    responses: dict[str, Any] = {
        str(status): {"description": "Done", **(_content("application/json", schema) if schema else {})}
    }
    if operation.media_types:
        # No schema: the body is a file.
        responses[str(status)]["content"] = {media_type: {} for media_type in operation.media_types}
    texts = {media_type: {"schema": _TEXT} for media_type in operation.gives_too}
    responses[str(status)].get("content", {}).update(texts)
    if operation.stream_type is not None:
        responses[str(status)]["content"] = {operation.stream_type: {"schema": _TEXT}}
    responses |= {
        str(other): {**responses[str(status)], "description": _TITLES[other]} for other in operation.alike
    }
    responses |= {str(other): {"description": _TITLES[other]} for other in operation.empty}
    for problem in sorted({*operation.problems, *ALWAYS}):
        problem_content = _content("application/problem+json", schemas.Problem)
        responses[str(problem)] = {"description": _TITLES[problem], **problem_content}
    if any(one.place == "query" for one in operation.parameters):
        # The front or granian refuses the head; there is no body.
        responses["431"] = {"description": "The query is too long"}
    first, *others = name.split("_")
    document: dict[str, Any] = {
        "operationId": first + "".join(word.title() for word in others),
        "summary": operation.summary,
        "description": f"Needs the scope `{operation.scope}`." if operation.scope else "Any key will do.",
        "parameters": [
            *({"name": one, "in": "path", "required": True, "schema": _TEXT} for one in path_parameters),
            *map(_parameter, operation.parameters),
        ],
        "responses": responses,
        # What the key has to have, as OpenAPI 3.1 says it.
        "security": [{"key": [str(operation.scope)] if operation.scope else []}],
    }
    if operation.body is not None:
        document["requestBody"] = {"required": True, **_content("application/json", operation.body)}
    if operation.takes:
        told = {media_type: {"schema": _TEXT} for media_type in operation.takes}
        document["requestBody"] = {"required": True, "content": told}
    if operation.gives:
        responses[str(status)]["content"] = {media_type: {"schema": _TEXT} for media_type in operation.gives}
    elif operation.upload is not None:
        # One item a line, and one result a line.
        for told in (document["requestBody"], responses[str(status)]):
            told["content"]["application/x-ndjson"] = {"schema": _TEXT}
    return document


def _parameter(parameter: Parameter) -> dict[str, Any]:
    described = {"description": parameter.description} if parameter.description else {}
    is_array = parameter.place == "query" and parameter.schema.get("type") == "array"
    form = {"style": "form", "explode": parameter.is_list} if is_array else {}
    required = {"required": True} if parameter.is_required else {}
    where = {"name": parameter.name, "in": parameter.place, **required}
    return {**where, **described, **form, "schema": parameter.schema}


def _parameters(path: str) -> list[str]:
    return [part[1:] for part in path.split("/") if part.startswith(":")]


def _content(media_type: str, schema: type) -> dict[str, Any]:
    return {"content": {media_type: {"schema": {"$ref": _REF.format(name=schema.__name__)}}}}
