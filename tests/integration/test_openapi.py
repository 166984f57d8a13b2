"""The description of the API is valid, and describes what is served."""

from __future__ import annotations

import msgspec
import pytest
from openapi_spec_validator import validate

from app.web import schemas
from app.web.robyn_compat import new_application, routes_of
from app.web.routes import register
from app.web.services import Services

LINKS = "/api/v1/links"


@pytest.fixture(scope="module")
def description(embedded):
    import httpx

    answer = httpx.get(f"{embedded.url}/api/v1/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def test_it_is_valid_openapi(description):
    validate(description)


def test_it_names_every_route_of_the_api_and_no_other(description):
    services = Services(**dict.fromkeys(Services.__dataclass_fields__))
    application = new_application()
    register(application, services)
    routes = {
        (route.method.lower(), route.path.replace(":slug", "{slug}"))
        for route in routes_of(application)
        if route.path.startswith("/api/") and not route.path.endswith("openapi.json")
    }

    described = {(method, path) for path, methods in description["paths"].items() for method in methods}

    assert described == routes


def test_answers_are_what_it_says(api):
    """Decoding is strict: a field too many or of another type fails."""
    made = api.post(LINKS, json={"long_url": "https://example.com/"})
    strict = {"strict": True}
    msgspec.json.decode(made.content, type=schemas.LinkDocument, **strict)
    msgspec.json.decode(api.get(LINKS).content, type=schemas.LinkPage, **strict)
    msgspec.json.decode(api.post(LINKS, json={}).content, type=schemas.Problem, **strict)


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
def test_a_problem_is_one_that_it_announces(api, description, method, path, body, status):
    answer = api.request(method, path, json=body)

    assert answer.status_code == status
    path = path.partition("?")[0].replace("no-such-link", "{slug}")
    assert str(status) in description["paths"][path][method.lower()]["responses"]
