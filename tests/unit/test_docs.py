"""`GET /docs`: the manual is complete, its links lead somewhere, and what the document says stays text."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from jsonschema import Draft202012Validator

from app.web import docs, openapi
from tests.unit.declared_routes import declared_routes

URL = "https://hop.example/go"


@pytest.fixture(scope="module")
def description():
    return openapi.description(URL, declared_routes())


@pytest.fixture(scope="module")
def text(description):
    return docs.page(description, URL).body.decode()


def test_manual_has_every_operation_and_document(description, text):
    operations = [one for methods in description["paths"].values() for one in methods.values()]

    for name in [*(one["operationId"] for one in operations), *description["components"]["schemas"]]:
        assert text.count(f'<h3 id="{name}">') == 1, name
    for operation in operations:
        for parameter in operation["parameters"]:
            assert f"<code>{parameter['name']}</code> ({parameter['in']})" in text


def test_links_of_the_manual_lead_to_a_part_of_it(text):
    ids = re.findall(r' id="([^"]*)"', text)
    targets = re.findall(r'href="#([^"]*)"', text)

    assert len(ids) == len(set(ids))
    assert set(targets) <= set(ids)
    assert set(re.findall(r'href="([^#][^"]*)"', text)) == {"data:,", "api/v1/openapi.json"}


def test_every_type_of_the_manual_is_named(text):
    assert "<td>any</td>" not in text


def test_text_of_the_document_is_no_markup():
    hostile = "<script>alert(1)</script>`<b>`"
    description = openapi.description(URL, declared_routes())
    operation = description["paths"]["/api/v1/links"]["get"]
    operation["summary"] = operation["description"] = operation["parameters"][0]["description"] = hostile

    body = docs.page(description, URL).body

    assert b"<script" not in body
    assert b"<b>" not in body
    assert body.count(b"&lt;script&gt;") >= 3


def _schemas(schema: object) -> Iterator[dict]:
    if isinstance(schema, dict):
        yield schema
        for inner in schema.values():
            yield from _schemas(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _schemas(inner)


def test_examples_of_the_document_follow_its_rules(description):
    examples = [
        (schema, example)
        for schema in _schemas(description)
        if isinstance(schema.get("examples"), list)
        for example in schema["examples"]
    ]

    assert len(examples) >= 5
    for schema, example in examples:
        Draft202012Validator(schema).validate(example)


def test_every_operation_has_one_tag_that_is_declared(description):
    declared = [tag["name"] for tag in description["tags"]]

    used = [one["tags"] for methods in description["paths"].values() for one in methods.values()]

    assert {tag for (tag,) in used} == set(declared)
    assert len(declared) == len(set(declared))
