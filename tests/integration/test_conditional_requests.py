"""If-Match and If-None-Match on every method that they apply to (RFC 9110 §13.1)."""

from __future__ import annotations

import httpx
import pytest

LINKS = "/api/v1/links"

# Of a link at version 1. A failed condition leaves the link as it is.
ROWS = [
    ("GET", {"If-Match": '"1"'}, 200),
    ("GET", {"If-Match": "*"}, 200),
    ("GET", {"If-Match": '"2"'}, 412),
    ("GET", {"If-Match": 'W/"1"'}, 412),
    ("GET", {"If-None-Match": '"1"'}, 304),
    ("GET", {"If-None-Match": 'W/"1"'}, 304),
    ("GET", {"If-None-Match": '"2"'}, 200),
    # If-Match comes first.
    ("GET", {"If-Match": '"2"', "If-None-Match": '"1"'}, 412),
    ("HEAD", {"If-None-Match": '"1"'}, 304),
    ("HEAD", {"If-Match": '"2"'}, 412),
    ("PATCH", {"If-None-Match": '"1"'}, 412),
    ("PATCH", {"If-None-Match": 'W/"1"'}, 412),
    ("PATCH", {"If-None-Match": "*"}, 412),
    ("PATCH", {"If-None-Match": '"2", "1"'}, 412),
    ("PATCH", {"If-None-Match": '"2"'}, 200),
    ("PATCH", {"If-Match": '"1"', "If-None-Match": '"1"'}, 412),
    ("PATCH", {"If-Match": '"1"', "If-None-Match": '"2"'}, 200),
    ("PATCH", {"If-None-Match": "1"}, 422),
    ("DELETE", {"If-None-Match": '"1"'}, 412),
    ("DELETE", {"If-None-Match": "*"}, 412),
    ("DELETE", {"If-None-Match": '"2"'}, 204),
    ("DELETE", {"If-Match": '"2"'}, 412),
]


@pytest.mark.parametrize(("method", "headers", "status"), ROWS)
def test_condition_decides(api: httpx.Client, method: str, headers: dict[str, str], status: int) -> None:
    link = api.post(LINKS, json={"long_url": "https://example.com/", "title": "before"}).json()
    path = f"{LINKS}/{link['slug']}"
    body = {"title": "after"} if method == "PATCH" else None

    answer = api.request(method, path, json=body, headers=headers)

    assert answer.status_code == status, answer.text
    if status in {412, 422}:
        assert api.get(path).json()["version"] == 1
