"""`GET /docs`: the manual of the API, made from its OpenAPI document; needs no network and no script."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup, escape

from app.web import html
from app.web.response import Response

_Schema = Mapping[str, Any]
_REF = "#/components/schemas/"
# What stands in a command for a part of the path.
_PLACES = {
    "/hosts/{value}": "/hosts/evil.example",
    "/slugs/{value}": "/slugs/spring-sale",
    "{slug}": "spring-sale",
    "{host}": "go.example",
    "{key_id}": "KEY_ID",
    "{webhook_id}": "WEBHOOK_ID",
}
# Rules that a reader needs; patterns are for programs.
_RULES = (
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
    ("minimum", "at least {}"),
    ("maximum", "at most {}"),
)


@dataclass(frozen=True, slots=True)
class _Field:
    """A row of a table: a parameter, or a member of a document. `document` names the one it holds."""

    name: str
    type: str
    document: str
    text: str
    is_required: bool
    place: str = ""


@dataclass(frozen=True, slots=True)
class _Call:
    """One operation."""

    id: str
    method: str
    path: str
    summary: str
    text: str
    parameters: Sequence[_Field]
    body: str
    answers: Sequence[tuple[str, str, str]]
    example: str


def page(description: Mapping[str, Any], public_url: str) -> Response:
    """Return the manual of the API that *description*, an OpenAPI document, describes, at *public_url*."""
    template = resources.files("app.web").joinpath("docs.html").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["words"] = _words
    components = description["components"]["schemas"]
    calls = list(_calls(description, public_url))
    text = environment.from_string(template).render(
        version=description["info"]["version"],
        url=public_url,
        groups=[
            (tag["name"], [call for name, call in calls if name == tag["name"]])
            for tag in description["tags"]
        ],
        documents=[
            (name, schema.get("description", ""), list(_members(schema)))
            for name, schema in sorted(components.items())
        ],
    )
    # A later version may say something else.
    return html.page(text.strip().encode(), caching="no-cache")


def _words(text: str) -> Markup:
    """Return *text*, in which code stands between backticks, as HTML."""
    parts = (
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(text.split("`"))
    )
    return Markup("").join(parts)


def _calls(description: Mapping[str, Any], public_url: str) -> Iterator[tuple[str, _Call]]:
    components = description["components"]["schemas"]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            body = _document(operation.get("requestBody", {}))
            call = _Call(
                id=operation["operationId"],
                method=method.upper(),
                path=path,
                summary=operation["summary"],
                text=operation["description"],
                parameters=[
                    _field(one["name"], one, one["schema"], place=one["in"], is_required=one.get("required"))
                    for one in operation["parameters"]
                ],
                body=body,
                answers=[
                    (status, answer["description"], _document(answer))
                    for status, answer in sorted(operation["responses"].items())
                ],
                example=_example(
                    method.upper(),
                    f"{public_url}{path}",
                    operation["parameters"],
                    components.get(body),
                    components,
                    takes_file="text/plain" in operation.get("requestBody", {}).get("content", ()),
                ),
            )
            yield operation["tags"][0], call


def _members(schema: _Schema) -> Iterator[_Field]:
    required = set(schema.get("required", ()))
    for name, member in schema.get("properties", {}).items():
        yield _field(name, member, member, is_required=name in required)


def _field(
    name: str, described: _Schema, schema: _Schema, *, is_required: bool | None, place: str = ""
) -> _Field:
    # With a type of its own, it has others only to state a rule.
    choices = schema.get("anyOf", (schema,)) if "type" not in schema else (schema,)
    kinds = [one for one in choices if one.get("type") != "null"]
    kind = kinds[0] if kinds else schema
    rules = [text.format(f"{kind[rule]:,}") for rule, text in _RULES if rule in kind]
    if schema.get("default") not in (None, "", [], ()):
        rules.append(f"default {json.dumps(schema['default'])}")
    texts = [described.get("description") or kind.get("description", ""), ", ".join(rules)]
    is_nullable = len(kinds) < len(choices)
    return _Field(
        name,
        _type(kind) + (" or null" if is_nullable else ""),
        _held(kind),
        ". ".join(text.rstrip(".") for text in texts if text),
        bool(is_required),
        place,
    )


def _type(schema: _Schema) -> str:
    match schema:
        case {"$ref": str(reference)}:
            text = reference.removeprefix(_REF)
        case {"enum": list(values)}:
            text = "one of " + ", ".join(map(str, values))
        case {"anyOf": list(kinds)}:
            text = " or ".join(map(_type, kinds))
        case {"items": dict(items)}:
            text = f"list of {_type(items)}"
        case {"type": "string", "format": "date-time"}:
            text = "time (RFC 3339)"
        case {"type": "string"}:
            text = "text"
        case _:
            text = str(schema.get("type", "any"))
    return text


def _held(schema: _Schema) -> str:
    """Return the name of the document that *schema* is, or is a list of; "" if of none."""
    inner = schema.get("items", schema)
    return str(inner.get("$ref", "")).removeprefix(_REF)


def _document(content: Mapping[str, Any]) -> str:
    for media in content.get("content", {}).values():
        # A file has no schema.
        return _held(media.get("schema", {}))
    return ""


_FILE = "https://example.com/autumn"


def _example(
    method: str,
    url: str,
    parameters: Sequence[_Schema],
    body: _Schema | None,
    components: _Schema,
    *,
    takes_file: bool,
) -> str:
    """Return a command that makes the call, for a shell in which HOPGATE_KEY is set."""
    for place, value in _PLACES.items():
        url = url.replace(place, value)
    query = {one["name"]: _sample(one["schema"], components) for one in parameters if _is_asked(one)}
    full = f"{url}?{urlencode(query)}" if query else url
    parts = ["curl"] + (["--request", method] if method != "GET" else [])
    lines = [" ".join([*parts, shlex.quote(full)])]
    lines.append('--header "Authorization: Bearer $HOPGATE_KEY"')
    if body is not None:
        lines.append("--header 'Content-Type: application/json'")
        lines.append(f"--data {shlex.quote(json.dumps(_sample(body, components) or {}))}")
    elif takes_file:
        # A list of URLs is a file that is recognised.
        lines.append(f"--header 'Content-Type: text/plain' --data {shlex.quote(_FILE)}")
    return " \\\n  ".join(lines)


def _is_asked(parameter: _Schema) -> bool:
    return parameter["in"] == "query" and bool(parameter.get("required"))


def _sample(schema: _Schema, components: _Schema) -> Any:
    """Return an example of *schema*: its own, or one made of those that it holds; None if there is none."""
    match schema:
        case {"$ref": str(reference)}:
            found = _sample(components[reference.removeprefix(_REF)], components)
        case {"examples": [first, *_]}:
            found = first
        case {"anyOf": list(kinds)}:
            each = (_sample(one, components) for one in kinds)
            found = next((one for one in each if one is not None), None)
        case {"items": dict(items)}:
            item = _sample(items, components)
            found = None if item is None else [item]
        case _:
            # A time of the manual may have passed when it is read.
            members = {name: one for name, one in schema.get("properties", {}).items() if not _is_time(one)}
            samples = {name: _sample(one, components) for name, one in members.items()}
            found = {name: one for name, one in samples.items() if one is not None} or None
    return found


def _is_time(schema: _Schema) -> bool:
    return any(one.get("format") == "date-time" for one in schema.get("anyOf", (schema,)))
