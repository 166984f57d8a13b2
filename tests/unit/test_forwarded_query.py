"""Forwarded queries: joined by the ampersands they need, and a URI-reference afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.domain.link import Resolution, Slug
from app.web.redirects import render, with_query

SLUG = Slug("abcdefg")
# Read by the tests of the front as well.
DATA = Path(__file__).parents[1] / "data"
ROWS = json.loads((DATA / "forwarded_queries.json").read_text())
OVERRIDING = json.loads((DATA / "overriding_queries.json").read_text())


def location(target: str, query: str, *, overrides: bool = False) -> str:
    rendered = render(
        Resolution(SLUG, 1, target, forward_query=True, override_query=overrides),
        0.0,
    )
    return dict(with_query(rendered, query).headers)["location"]


@pytest.mark.parametrize(("target", "query", "joined"), ROWS)
def test_forwarded_query_is_a_uri_query_without_empty_parameters(target, query, joined):
    assert location(target, query) == joined


@pytest.mark.parametrize(("target", "query", "joined"), OVERRIDING)
def test_overriding_query_takes_the_place_of_parameters_with_the_same_names(target, query, joined):
    assert location(target, query, overrides=True) == joined


def test_stored_target_is_escaped_when_rendered():
    """A link of an earlier version holds what only its redirect escapes."""
    rendered = render(Resolution(SLUG, 1, "https://example.com/?q=a|b%#c^"), 0.0)

    assert dict(rendered.headers)["location"] == "https://example.com/?q=a%7Cb%25#c%5E"
