from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import slug
from app.domain.errors import InvalidInput


def test_generated_slugs_hold_no_look_alikes():
    pick = random.Random(1).choice

    made = [slug.generate(pick) for _ in range(500)]

    assert all(slug.is_well_formed(one) and len(one) == slug.GENERATED_LENGTH for one in made)
    assert not set("".join(made)) & set("0O1Il")
    assert len(set(made)) == len(made)


def test_generated_characters_are_equally_likely():
    """Chi-squared over 57 bins: a biased generator would make slugs easier to guess."""
    pick = random.Random(2).choice
    text = "".join(slug.generate(pick) for _ in range(20_000))

    expected = len(text) / len(slug.ALPHABET)
    chi_squared = sum((text.count(c) - expected) ** 2 / expected for c in slug.ALPHABET)

    assert chi_squared < 100  # 56 degrees of freedom: p < 0.0003 above


@pytest.mark.parametrize("text", ["abc", "ABC-def_9", "a" * 64, "___", "-_-"])
def test_well_formed_slug_is_accepted(text):
    assert slug.parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "..",
        "../etc",
        ".well-known",
        "a.b",
        "a%2fb",
        "abc\n",
        "abc\x00",
        "ａｄｍｉｎ",
        "аpi",  # Cyrillic а
        "café",
        "cafe\u0301",
        "a\u200bbc",
        "abc\u202e",
        "slug?x",
        "slug#x",
        "١٢٣",
        "api.",
        ".",
        "%2e",
        "robots.txt",
        "favicon.ico",
    ],
)
@pytest.mark.parametrize("lengths", [slug.ORDINARY, slug.MOVED])
def test_malformed_slug_is_refused(text, lengths):
    with pytest.raises(InvalidInput) as caught:
        slug.parse(text, lengths)

    assert [error.code for error in caught.value.errors] == ["slug_malformed"]


@pytest.mark.parametrize("text", ["1", "z", "1a", "_", "a" * 65, "a" * 128])
def test_slug_of_another_shortener_can_be_moved(text):
    assert slug.parse(text, slug.MOVED) == text
    assert slug.is_well_formed(text)
    with pytest.raises(InvalidInput) as caught:
        slug.parse(text)

    [error] = caught.value.errors
    assert (error.code, error.message) == (
        "slug_malformed",
        "must be 3 to 64 characters of A-Z a-z 0-9 _ - (1 to 128 in an import, or with the scope admin)",
    )


def test_slug_that_no_link_can_have_names_the_widest_lengths():
    with pytest.raises(InvalidInput) as caught:
        slug.parse("a" * 129, slug.MOVED)

    assert caught.value.errors[0].message == "must be 1 to 128 characters of A-Z a-z 0-9 _ -"
    assert not slug.is_well_formed("a" * 129)


@pytest.mark.parametrize("text", ["a/b", "promo/2026/spring", "a/api", "-/_", "stats/a", "a/stats/b"])
def test_several_segments_need_a_domain_that_has_them(text):
    assert slug.parse(text, slug.MOVED, slug.ALL) == text
    with pytest.raises(InvalidInput) as caught:
        slug.parse(text, slug.MOVED)

    assert [error.code for error in caught.value.errors] == ["slug_segments"]


@pytest.mark.parametrize("text", ["v4/shorten", "V4/x", "rest/v3/short-urls", "Rest/x/y"])
def test_route_of_another_shortener_is_no_slug(text):
    """Whether its API is on or not: it may be, later."""
    with pytest.raises(InvalidInput) as caught:
        slug.parse(text, slug.MOVED, slug.ALL)

    assert [error.code for error in caught.value.errors] == ["slug_reserved"]
    assert slug.is_well_formed(text, slug.ALL)
    assert slug.parse(text.partition("/")[0], slug.MOVED)


@pytest.mark.parametrize("text", ["api", "API", "Docs", "status", "console", "healthz", "readyz", "Metrics"])
@pytest.mark.parametrize("lengths", [slug.ORDINARY, slug.MOVED])
def test_path_of_the_service_is_reserved_in_any_case(text, lengths):
    with pytest.raises(InvalidInput) as caught:
        slug.parse(text, lengths)

    assert [error.code for error in caught.value.errors] == ["slug_reserved"]


@pytest.mark.parametrize(
    "text",
    """
    about admin apple-app-site-association assetlinks auth dashboard favicon health help hopgate livez login
    logout openapi ping privacy robots security settings sitemap static terms well-known _api docs- -metrics_
    """.split(),
)
def test_word_that_is_no_path_is_free(text):
    assert slug.parse(text) == text


@given(st.text(max_size=80))
def test_parsed_slug_is_unchanged_ascii(text):
    try:
        parsed = slug.parse(text)
    except InvalidInput:
        return

    assert parsed == text
    assert text.isascii()
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
