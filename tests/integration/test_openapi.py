"""The OpenAPI document is valid, and describes what is served."""

from __future__ import annotations

import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from app.web import listing_schemas, schemas
from app.web.endpoint import template
from app.web.request import MAX_QUERY_FIELDS
from tests.unit.declared_routes import declared_routes

LINKS = "/api/v1/links"


@pytest.fixture(scope="module")
def description(embedded):
    import httpx

    answer = httpx.get(f"{embedded.url}/api/v1/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def test_document_is_valid_openapi(description):
    validate(description)


def test_document_names_exactly_the_api_routes(description):
    routes = {
        (route.method.lower(), template(route.path))
        for route in declared_routes()
        if route.path.startswith("/api/") and not route.path.endswith("openapi.json")
    }

    described = {(method, path) for path, methods in description["paths"].items() for method in methods}

    assert described == routes


def test_query_may_have_all_that_an_operation_takes(description):
    """Each parameter of a list as often as its schema says."""
    taken = {
        f"{method} {path}": sum(
            one["schema"].get("maxItems", 1)
            for one in operation.get("parameters", ())
            if one["in"] == "query"
        )
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
        if isinstance(operation, dict)
    }

    assert max(taken.values()) > 100
    assert {name: n for name, n in taken.items() if n > MAX_QUERY_FIELDS} == {}


def test_more_parameters_are_refused_with_their_bound(api):
    answer = api.get("/api/v1/links?" + "&".join(["tag=a"] * (MAX_QUERY_FIELDS + 1)))

    assert answer.status_code == 400
    assert f"more than {MAX_QUERY_FIELDS} parameters" in answer.json()["detail"]


def test_unknown_format_of_a_file_is_refused_before_it_is_read(api):
    answer = api.post("/api/v1/import?format=nonsense", content=b"", headers={"Content-Type": "text/csv"})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "format"
    assert "yourls" in answer.json()["errors"][0]["message"]


def test_responses_match_their_schemas(api):
    """Decoding is strict: a field too many or of another type fails."""
    made = api.post(LINKS, json={"long_url": "https://example.com/"})
    msgspec.json.decode(made.content, type=schemas.LinkDocument, strict=True)
    msgspec.json.decode(api.get(LINKS).content, type=listing_schemas.LinkPage, strict=True)
    msgspec.json.decode(api.post(LINKS, json={}).content, type=schemas.Problem, strict=True)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", LINKS, {"long_url": "x"}, 422),
        ("GET", f"{LINKS}?limit=0", None, 422),
        ("GET", f"{LINKS}/no-such-link", None, 404),
        ("PATCH", f"{LINKS}/no-such-link", {"title": "x"}, 404),
        ("DELETE", f"{LINKS}/no-such-link", None, 404),
        ("POST", "/api/v1/cache/invalidate", {"slugs": []}, 422),
    ],
)
def test_problem_is_announced_in_the_document(api, description, method, path, body, status):
    answer = api.request(method, path, json=body)

    assert answer.status_code == status
    path = path.partition("?")[0].replace("no-such-link", "{slug}")
    assert str(status) in description["paths"][path][method.lower()]["responses"]


def allowed(schema, value):
    return Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("method", "path", "name", "refused", "accepted"),
    [
        ("get", LINKS, "cursor", ["", "!!!", "00", "MTIz="], ["MTIz"]),
        ("patch", f"{LINKS}/{{slug}}", "If-Match", ["", "3", "*, *"], ["*", '"3"', 'W/"3", "4"', '"a"']),
        ("delete", f"{LINKS}/{{slug}}", "If-Match", ["", "3"], ['"3"']),
        ("get", f"{LINKS}/{{slug}}", "If-None-Match", ["", "3"], ['"3"', "*"]),
        ("post", LINKS, "Idempotency-Key", ["", "a b", "x" * 256], ["x" * 255]),
        ("get", f"{LINKS}/{{slug}}/stats", "until", ["0345-01-01T00:00:00Z", "9999-01-01T00:00:00Z"],
         ["2000-01-01T00:00:00Z", "9998-12-31T23:59:59Z"]),
        ("get", f"{LINKS}/{{slug}}/stats", "since", ["1999-01-01T00:00:00Z"], ["2030-01-01T00:00:00Z"]),
    ],
)  # fmt: skip
def test_parameter_schema_is_as_strict_as_the_rule(description, method, path, name, refused, accepted):
    parameters = description["paths"][path][method]["parameters"]
    [schema] = [one["schema"] for one in parameters if one["name"] == name]

    assert [value for value in refused if allowed(schema, value)] == []
    assert [value for value in accepted if not allowed(schema, value)] == []


@pytest.mark.parametrize(
    ("name", "field", "refused", "accepted"),
    [
        (
            "CreateLink",
            "long_url",
            ["", "ftp://example.com/"],
            ["https://example.com/", "HTTP://example.com"],
        ),
        ("CreateLink", "long_url", ["https://e.example/" + "a" * 8175], ["https://e.example/" + "a" * 8174]),
        ("CreateLink", "slug", ["", "a.b", "a" * 129], ["1", "a" * 128]),
        ("PatchLink", "long_url", [""], ["https://example.com/"]),
        ("PatchLink", "tags", [["x"] * 21, [""]], [["x"] * 20]),
        ("Invalidate", "slugs", [[], ["x"] * 1001], [["x"], ["x"] * 1000]),
    ],
)
def test_body_schema_is_as_strict_as_the_rule(description, name, field, refused, accepted):
    schema = description["components"]["schemas"][name]["properties"][field]

    assert [value for value in refused if allowed(schema, value)] == []
    assert [value for value in accepted if not allowed(schema, value)] == []


def test_change_of_nothing_is_refused_by_schema_and_rule(api, description):
    schema = description["components"]["schemas"]["PatchLink"]

    assert not allowed(schema, {})
    assert allowed(schema, {"title": ""})
    assert api.patch(f"{LINKS}/no-such-link", json={}).status_code == 422


@pytest.mark.parametrize(
    ("method", "header", "body"),
    [
        ("GET", "If-None-Match", None),
        ("PATCH", "If-Match", {"title": "x"}),
        ("DELETE", "If-Match", None),
    ],
)
def test_condition_is_judged_before_the_link(api, method, header, body):
    """A header that breaks a rule does so whatever has become of the link."""
    slug = api.post(LINKS, json={"long_url": "https://example.com/"}).json()["slug"]
    api.delete(f"{LINKS}/{slug}")

    for path in (slug, "no-such-link"):
        answer = api.request(method, f"{LINKS}/{path}", json=body, headers={header: ""})
        assert answer.status_code == 422, path


def test_slugs_are_counted_as_they_are_sent(api):
    for slugs, status in ([["x"] * 1000, 202], [["x"] * 1001, 422], [[], 422]):
        answer = api.post("/api/v1/cache/invalidate", json={"slugs": slugs})
        assert answer.status_code == status
