from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import slug
from app.domain.errors import InvalidInput


def test_generated_slugs_are_well_formed_and_hold_no_look_alikes():
    pick = random.Random(1).choice

    made = [slug.generate(pick) for _ in range(500)]

    assert all(slug.is_well_formed(one) and len(one) == slug.GENERATED_LENGTH for one in made)
    assert not set("".join(made)) & set("0O1Il")
    assert len(set(made)) == len(made)


def test_every_character_of_the_alphabet_is_equally_likely():
    """Chi-squared over 57 bins: a biased generator would make slugs easier to guess."""
    pick = random.Random(2).choice
    text = "".join(slug.generate(pick) for _ in range(20_000))

    expected = len(text) / len(slug.ALPHABET)
    chi_squared = sum((text.count(c) - expected) ** 2 / expected for c in slug.ALPHABET)

    assert chi_squared < 100  # 56 degrees of freedom: p < 0.0003 above


@pytest.mark.parametrize("text", ["abc", "ABC-def_9", "a" * 64, "___", "-_-"])
def test_well_formed_slugs_may_be_claimed(text):
    assert slug.parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab",
        "a" * 65,
        "a b",
        "a/b",
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
    ],
)
def test_malformed_slugs_are_refused(text):
    with pytest.raises(InvalidInput) as caught:
        slug.parse(text)

    assert caught.value.errors[0].code == "slug_malformed"


@pytest.mark.parametrize(
    "text", ["api", "API", "Login", "healthz", "_admin", "docs-", "well-known", "Metrics"]
)
def test_reserved_words_are_refused_however_they_are_dressed(text):
    with pytest.raises(InvalidInput) as caught:
        slug.parse(text)

    assert caught.value.errors[0].code == "slug_reserved"


@given(st.text(max_size=80))
def test_what_parses_is_what_was_given_and_is_plain_ascii(text):
    try:
        parsed = slug.parse(text)
    except InvalidInput:
        return

    assert parsed == text
    assert text.isascii()
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
