"""What the OpenAPI document allows is accepted, and what it bounds is refused beyond, by the same rules."""

from __future__ import annotations

import json
import re
from datetime import datetime

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from app.domain import rules, slug, target
from app.domain.errors import InvalidInput
from app.ports import LinkQuery, Position
from app.service import stats
from app.web import conditions, cursors, i_json, patterns, schemas

GOOD = "https://example.com/"
UTF_8 = st.characters(codec="utf-8")
_, COMPONENTS = msgspec.json.schema_components(
    [schemas.CreateLink, schemas.LinkDocument], ref_template="{name}"
)


def texts(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True, alphabet=UTF_8)


def is_described(body: dict) -> bool:
    return Draft202012Validator(COMPONENTS["CreateLink"]).is_valid(body)


def is_accepted(body: dict) -> bool:
    """Do the rules accept *body*, from a key with the scope admin?"""
    try:
        draft = i_json.read(json.dumps(body).encode(), schemas.CreateLink)
        rules.checked(draft.fields(), own_hosts=())
        if draft.slug is not None:
            slug.parse(draft.slug, slug.MOVED)
    except InvalidInput:
        return False
    return True


# --- targets ----------------------------------------------------------------------------


@given(texts(patterns.TARGET))
def test_target_that_is_described_is_accepted(text):
    assume(len(text) <= target.MAX_LENGTH)
    target.canonical(text, own_hosts=())


LONG_HOST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
SCRIPTS_HOST = "ヺ가ʀяω一.ɐ-가-ʀ-я-ω.jp"


@pytest.mark.parametrize(
    "text",
    [
        "HTTP://EXAMPLE.com:8443/a//b?c=d/?#e?/",
        f"https://{LONG_HOST}/",
        f"https://{LONG_HOST}:59999?" + "\U0010ffff" * 600,
        f"https://{SCRIPTS_HOST}/" + "\U0010ffff" * 600,
        "https://日本語.jp/パス?ü#é",
        "https://example.com/" + "a" * (target.MAX_LENGTH - 20),
        "https://http.com/",
        "https://example.com:443/",
        "http://localhost:10000",
        "http://日本.example:81?ü",
        "https://a.xn/",
        "https://my--label.example/",
        "https://_dmarc.example/",
        "https://httpx/",
        "https://example.com./",
        "https://-a-.*!$&'()+,;=~-",
    ],
)
def test_target_of_every_shape_is_described_and_accepted(text):
    assert is_described({"long_url": text})
    target.canonical(text, own_hosts=())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://example.com/",
        "https://",
        "https://https://example.com/",
        "https://a.http/",
        f"https://a{LONG_HOST}/",
        f"https://{LONG_HOST}./",
        "https://a.http./",
        "https://" + "a" * 64 + ".com/",
        "https://a..b/",
        "https://xn--é.com/",
        "https://a.b.1.2.3.999/",
        "https://user@example.com/",
        "https://example.com:0/",
        "https://example.com/a b",
        "https://example.com/\\",
        "https://example.com/\u2028",
        "https://example.com/\ufeff",
        "https://example.com/" + "a" * (target.MAX_LENGTH - 19),
        "https://example.com?" + "a" * (target.MAX_LENGTH - 20),
        "https://example.com/" + "é" * (target.MAX_LENGTH // 6),
    ],
)
def test_target_that_is_refused_is_not_described(text):
    assert not is_described({"long_url": text})
    assert not is_accepted({"long_url": text})


# --- the other fields of a link ---------------------------------------------------------

CASES: list[tuple[str, list, list]] = [
    ("slug", ["a" * 128, "_", "APIs", "0-_Z"], ["", "a" * 129, "a.b", "é", "Docs", "metrics"]),
    ("title", ["", "é" * 512, "\ufeff\U0010ffff "], ["x" * 513, "a\nb", "\x00", "\x7f", "\x9f", "\u2029"]),
    ("tags", [[], ["x" * 64] * 20, list(map(str, range(20)))],
     [["x"] * 21, [""], ["x" * 65], ["a\tb"], "abc", [1]]),
    ("redirect_code", [301, 302, 307, 308, 302.0], [0, 300, 303, 304, 309, 302.5, "302", True]),
    ("max_visits", [1, 2**53 - 1, None, 7.0], [0, -1, 2**53, 1.5, "1", 1e300]),
    ("valid_from",
     ["2000-01-01T00:00:00Z", "9998-12-31T23:59:59.999999Z", "2001-01-01T00:00:00+23:59", None],
     ["1999-12-31T23:59:59Z", "9999-01-01T00:00:00Z", "2000-01-01T00:00:00+00:01", "2030-01-01T00:00:00",
      "9998-12-31T23:59:59-00:01", "2030-01-01", "2030-13-01T00:00:00Z", "2030-01-01T24:00:00Z", 0]),
    ("expires_at", ["9997-12-31T23:59:59-23:59", None], ["1999-12-31T23:59:59Z", "9999-01-01T00:00:00Z"]),
    ("forward_query", [True, False], [0, None, "true"]),
    ("utm_source", ["a", "é" * 255, " &=#", None], ["", "x" * 256, "a\nb", 7]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (field, value, expected)
        for field, accepted, refused in CASES
        for values, expected in ((accepted, True), (refused, False))
        for value in values
    ],
)
def test_field_is_described_as_it_is_judged(field, value, expected):
    body = {"long_url": GOOD, field: value}

    assert is_accepted(body) == expected
    assert is_described(body) == expected


@given(texts(patterns.PRINTABLE))
def test_printable_text_is_accepted(text):
    assert is_accepted({"long_url": GOOD, "title": text[:512], "tags": [text[:64] or "x"]})


@given(texts(patterns.SLUG))
def test_slug_that_is_described_is_accepted(text):
    assume(1 <= len(text) <= 128)
    assume(not re.search(patterns.RESERVED_SLUG, text))
    slug.parse(text, slug.MOVED)


@given(st.sampled_from(sorted(slug.RESERVED)), st.randoms())
def test_reserved_slugs_are_described_in_any_case(word, random):
    spelled = "".join(random.choice([letter, letter.upper()]) for letter in word)

    assert not is_described({"long_url": GOOD, "slug": spelled})


# --- times and parameters ---------------------------------------------------------------


@given(texts(patterns.TIME))
def test_time_that_is_described_is_accepted(text):
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        assume(False)  # the 30th of February

    assert is_accepted({"long_url": GOOD, "valid_from": text})
    stats._range(None, time, time, stats.MAX_RANGE)


@given(texts(patterns.CURSOR))
def test_cursor_that_is_described_is_accepted(text):
    assert cursors.position_in(LinkQuery(), text) is not None


@given(st.integers(0, 10**18 - 1))
def test_every_cursor_is_described(after):
    cursor = cursors.of_links(LinkQuery(), Position(after, after))

    assert cursor is not None
    assert re.search(patterns.CURSOR, cursor)
    assert cursors.position_in(LinkQuery(), cursor) == (after, after)


@pytest.mark.parametrize("text", ["", "M", "AA", "MTIzNDU2Nzg5MDEyMzQ1Njc4OQ", "MTIz=", "MT Iz"])
def test_other_cursors_are_neither_described_nor_accepted(text):
    assert not re.search(patterns.CURSOR, text)
    with pytest.raises(InvalidInput):
        cursors.position_in(LinkQuery(), text)


@given(texts(patterns.ETAGS))
def test_condition_that_is_described_is_readable(text):
    assert conditions.if_match(text) is not None
    assert conditions.if_none_match(text) is not None


def test_shown_link_may_be_older_than_a_rule():
    shown = COMPONENTS["LinkDocument"]["properties"]

    assert shown["max_visits"]["anyOf"][0]["format"] == "int64"
    assert [name for name, schema in shown.items() if {"pattern", "maxLength", "enum"} & schema.keys()] == []
