"""Forwarded queries: joined by the ampersands they need, and a URI-reference afterwards."""

from __future__ import annotations

import pytest

from app.domain.link import Resolution, Slug
from app.web.redirects import render, with_query

SLUG = Slug("abcdefg")


def location(target: str, query: str) -> str:
    rendered = render(Resolution(SLUG, 1, target, forward_query=True), 0.0)
    return dict(with_query(rendered, query).headers)["location"]


@pytest.mark.parametrize(
    ("target", "query", "joined"),
    [
        ("https://example.com/p", "a=1", "https://example.com/p?a=1"),
        ("https://example.com/p?", "a=1", "https://example.com/p?a=1"),
        ("https://example.com/p?x=1", "a=1", "https://example.com/p?x=1&a=1"),
        ("https://example.com/p?x=1&", "a=1", "https://example.com/p?x=1&a=1"),
        ("https://example.com/p?&", "a=1", "https://example.com/p?a=1"),
        ("https://example.com/p?x=1", "&a=1", "https://example.com/p?x=1&a=1"),
        ("https://example.com/p?x=1", "&", "https://example.com/p?x=1"),
        ("https://example.com/p?", "", "https://example.com/p?"),
        ("https://example.com/p?x=1#f?g", "a=1", "https://example.com/p?x=1&a=1#f?g"),
        ("https://example.com/p?#f", "a=1", "https://example.com/p?a=1#f"),
        ("https://example.com/p#f", "a=1", "https://example.com/p?a=1#f"),
    ],
)
def test_forwarded_query_adds_no_empty_parameter(target, query, joined):
    assert location(target, query) == joined


@pytest.mark.parametrize(
    ("query", "forwarded"),
    [
        ("q=a|b^c", "q=a%7Cb%5Ec"),
        ("q={x}`", "q=%7Bx%7D%60"),
        ("a[]=1", "a%5B%5D=1"),
        ("q=100%", "q=100%25"),
        ("q=%zz&r=%41", "q=%25zz&r=%41"),
        ('q="<>\\', "q=%22%3C%3E%5C"),
        ("q=é", "q=%C3%A9"),
        ("next=https://x.example/?y=1", "next=https://x.example/?y=1"),
    ],
)
def test_forwarded_query_is_a_uri_query(query, forwarded):
    assert location("https://example.com/p", query) == f"https://example.com/p?{forwarded}"


def test_stored_target_is_escaped_when_rendered():
    """A link of an earlier version holds what only its redirect escapes."""
    rendered = render(Resolution(SLUG, 1, "https://example.com/?q=a|b%#c^"), 0.0)

    assert dict(rendered.headers)["location"] == "https://example.com/?q=a%7Cb%25#c%5E"
