"""Calls of the HTTP API that several suites make, and the problems that it answers."""

from __future__ import annotations

import itertools

LINKS = "/api/v1/links"
_numbers = itertools.count()


def fresh_slug() -> str:
    return f"slug-{next(_numbers)}"


def create(api, **body):
    answer = api.post(LINKS, json={"long_url": "https://example.com/", **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def problem(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    return document
