"""Pages of other origins: those that the list names may call the API and the dialects, and no others."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.dialect_gateway import speaking, target

APP, EXTENSION, OTHER = "https://app.example", "chrome-extension://abcdef", "https://other.example"
LINKS = "/api/v1/links"
PATHS = (LINKS, "/yourls-api.php", "/rest/v3/short-urls", "/v4/shorten")
ALLOWED = "access-control-allow-origin"


@pytest.fixture(scope="module", params=["on", "off"], ids=["front", "no front"])
def gateway(request, tmp_path_factory):
    origins = {"HOPGATE_CORS_ORIGINS": f"{APP}, {EXTENSION}", "HOPGATE_FRONT": request.param}
    yield from speaking(tmp_path_factory.mktemp("cors"), **origins)


def preflight(gateway, path, origin, method="POST"):
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return httpx.options(f"{gateway.url}{path}", headers=headers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [APP, EXTENSION])
def test_preflight_needs_no_key(gateway, path, origin):
    answer = preflight(gateway, path, origin)

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers[ALLOWED] == origin
    assert answer.headers["vary"] == "Origin"
    assert "POST" in answer.headers["access-control-allow-methods"]
    sent = answer.headers["access-control-allow-headers"].lower()
    assert {"authorization", "content-type", "x-api-key", "if-match", "idempotency-key"} <= set(
        sent.split(", ")
    )
    assert "access-control-allow-credentials" not in answer.headers


def test_preflight_of_a_path_with_parameters_names_its_methods(gateway):
    answer = preflight(gateway, f"{LINKS}/abc", APP, "PATCH")

    assert {"GET", "PATCH", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))


@pytest.mark.parametrize(
    "origin", [OTHER, "null", f"{APP}.evil.example", "http://app.example", f"{APP}:8443", APP.upper(), ""]
)
@pytest.mark.parametrize("path", PATHS)
def test_other_origins_get_no_header(gateway, path, origin):
    asked = preflight(gateway, path, origin)
    read = gateway.api.get(LINKS, headers={"Origin": origin})

    for answer in (asked, read):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["vary"] == "Origin"
    assert read.status_code == 200


def test_answers_and_problems_are_shown_to_the_page(gateway):
    headers = {"Origin": APP}
    made = gateway.api.post(LINKS, json={"long_url": target()}, headers=headers)
    unauthorized = httpx.get(f"{gateway.url}{LINKS}", headers=headers)
    missing = gateway.api.get("/api/v1/nothing", headers=headers)
    without = gateway.api.get(LINKS)

    assert (made.status_code, unauthorized.status_code, missing.status_code) == (201, 401, 404)
    for answer in (made, unauthorized, missing):
        assert answer.headers[ALLOWED] == APP
        shown = set(answer.headers["access-control-expose-headers"].split(", "))
        assert {"ETag", "Location", "Retry-After", "Link", "X-Request-Id"} <= shown
    assert ALLOWED not in without.headers
    assert without.headers["vary"] == "Origin"


def test_visits_and_pages_of_operators_are_not_shared(gateway):
    slug = gateway.link()["slug"]

    for path in (f"/{slug}", "/metrics", "/status", "/docs", "/healthz"):
        answer = httpx.get(f"{gateway.url}{path}", headers={"Origin": APP, "Host": "hop.example"})
        assert ALLOWED not in answer.headers, path


def test_every_origin_only_if_it_is_said(tmp_path):
    for gateway in speaking(tmp_path, HOPGATE_CORS_ORIGINS="*"):
        answer = gateway.api.get(LINKS, headers={"Origin": OTHER})
        asked = preflight(gateway, LINKS, OTHER)

        for one in (answer, asked):
            assert one.headers[ALLOWED] == "*"
            assert "vary" not in one.headers
            assert "access-control-allow-credentials" not in one.headers


def test_no_origin_unless_one_is_named(embedded):
    answer = preflight(embedded, LINKS, APP)

    assert answer.status_code == 204
    assert "vary" not in answer.headers
    assert ALLOWED not in answer.headers
