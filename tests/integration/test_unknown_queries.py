"""Queries of paths that are no visits: the API reads them strictly, pages for machines do not read them."""

from __future__ import annotations

import httpx
import pytest

API = ("/api/v1/openapi.json", "/api/v1/links", "/api/v1/links/x/stats", "/api/v1/links/x")
OPERATIONS = ("/healthz", "/readyz", "/metrics", "/robots.txt")


@pytest.mark.parametrize("path", API)
@pytest.mark.parametrize("query", ["x=1", "x=1&x=2", "limit=1&verbose", "%78"])
def test_api_refuses_what_it_would_not_read(api, path, query):
    answer = api.get(f"{path}?{query}")

    assert answer.status_code == 422
    assert "unknown_parameter" in {error["code"] for error in answer.json()["errors"]}


@pytest.mark.parametrize("path", OPERATIONS)
def test_probe_with_a_query_gets_its_answer(embedded, path):
    """Load balancers and scrapers append what they like; refused, every gateway would count as dead."""
    assert httpx.get(f"{embedded.url}{path}?cachebust=1&cachebust=2").status_code == 200


def test_description_without_a_query_is_public(embedded):
    assert httpx.get(f"{embedded.url}/api/v1/openapi.json?").status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT"])
def test_bulk_is_no_slug(api, method):
    """A batch must not change a link of that name."""
    answer = api.request(method, "/api/v1/links/bulk/stats")

    assert answer.status_code == 404
    assert "allow" not in answer.headers
