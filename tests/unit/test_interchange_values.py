"""One value: what it says, or why it cannot be read."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest

from app.interchange import values
from app.interchange.errors import Unreadable
from app.interchange.values import ShortLink


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("https://bit.ly/3xYz12", ShortLink("3xYz12", "bit.ly")),
        ("HTTP://Bit.LY/3xYz12/", ShortLink("3xYz12", "bit.ly")),
        ("bit.ly/3xYz12", ShortLink("3xYz12", "bit.ly")),
        ("localhost:8080/abc", ShortLink("abc", "localhost:8080")),
        ("https://go/abc", ShortLink("abc", "go")),
        (" abc ", ShortLink("abc")),
        ("/abc/", ShortLink("abc")),
        (["bit.ly/abc"], ShortLink("abc", "bit.ly")),
        ("https://s.example/a/b", ShortLink("a/b", "s.example")),
        ("s.example/a/b/", ShortLink("a/b", "s.example")),
        ("blog/post", ShortLink("blog/post")),
        ("", None),
        (None, None),
        ([], None),
    ],
)
def test_short_links(value, found):
    assert values.short_link(value) == found


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("https://s.example", "slug_missing"),
        ("https://s.example/", "slug_missing"),
        ("s.example/", "slug_missing"),
        ("https://s.example/abc?x=1", "slug_malformed"),
        ("https://s.example/abc#x", "slug_malformed"),
        ("s.example?x", "slug_malformed"),
        (["bit.ly/abc", "bit.ly/def"], "slug_contradicts"),
        (7.5, "text_expected"),
    ],
)
def test_odd_short_links_are_refused(value, code):
    with pytest.raises(Unreadable) as refused:
        values.short_link(value)

    assert refused.value.code == code


def test_numbered_slugs_are_slugs():
    assert (values.slug(1), values.slug("1a")) == (ShortLink("1"), ShortLink("1a"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2030-01-31T12:00:00Z", at(2030, 1, 31, 12)),
        ("2030-01-31 12:00:00 UTC", at(2030, 1, 31, 12)),
        ("2030-01-31T12:00:00.25+0530", datetime(2030, 1, 31, 6, 30, 0, 250000, tzinfo=UTC)),
        ("2030-01-31t12:00z", at(2030, 1, 31, 12)),
        ("2030-01-31T12:00:00.123456789-00:00", datetime(2030, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2030-01-31T12:00:00+02", at(2030, 1, 31, 10)),
        *(
            (never, None)
            for never in ("", " ", "0", "null", "NULL", "never", "None", "\\N", "0000-00-00 00:00:00")
        ),
        (0, None),
        (None, None),
        ("1970-01-01T00:00:00+0000", None),
    ],
)
def test_moments(text, found):
    assert values.moment(unix="s")(text) == found


@pytest.mark.parametrize(
    ("unix", "value", "found"),
    [
        ("s", "1924992000", at(2031, 1, 1)),
        ("s", 1924992000, at(2031, 1, 1)),
        ("ms", "1924992000123", datetime(2031, 1, 1, 0, 0, 0, 123000, tzinfo=UTC)),
        ("either", 1924992000, at(2031, 1, 1)),
        ("either", 1924992000000.0, at(2031, 1, 1)),
        ("either", 946684800, at(2000, 1, 1)),
        ("either", 946684800000, at(2000, 1, 1)),
    ],
)
def test_unix_time(unix, value, found):
    assert values.moment(unix=unix)(value) == found


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "0001-01-01 00:00:00+00", "0001-01-01T00:00:00"])
def test_zero_of_a_program_is_no_moment(text):
    """Go and .NET write so what was never set."""
    assert values.moment()(text) is None
    assert values.end(unix="s")(text) is None


@pytest.mark.parametrize(
    "text", ["9999-12-31T23:59:59Z", "9999-12-31 23:59:59.999999+00", "9999-12-31", "Infinity"]
)
def test_end_of_all_days_is_no_end(text):
    """Databases write so what never ends. What begins then never begins, and is refused."""
    assert values.end()(text) is None
    with contextlib.suppress(Unreadable):
        begins = values.moment()(text)
        assert isinstance(begins, datetime)
        assert begins.year == 9999


@pytest.mark.parametrize(
    ("options", "value", "code"),
    [
        ({}, "2030-01-31T12:00:00", "time_without_zone"),
        ({}, "1924992000", "time_unreadable"),
        ({"unix": "ms"}, "1924992000", "time_out_of_range"),
        ({"unix": "s"}, "1924992000000", "time_out_of_range"),
        ({"unix": "s"}, "-1", "time_unreadable"),
        ({"zone": UTC}, "2030-01-31", "time_unreadable"),
        ({"zone": UTC}, "31.01.2030 12:00", "time_unreadable"),
        ({"zone": UTC}, "01/02/2030 12:00", "time_unreadable"),
        ({"zone": UTC}, "2030-02-30T12:00:00Z", "time_unreadable"),
        ({"zone": UTC}, "2030-01-31T25:00:00Z", "time_unreadable"),
        ({"zone": UTC}, "9999-12-31T23:59:59-23:59", "time_unreadable"),
        ({"zone": UTC}, "2030-01-31T12:00:00 CEST", "time_unreadable"),
        ({"zone": UTC}, "tomorrow", "time_unreadable"),
        ({"zone": UTC}, True, "time_unreadable"),
        ({"unix": "s"}, "9" * 400, "time_unreadable"),
        ({"unix": "s"}, float("inf"), "time_unreadable"),
    ],
)
def test_unclear_moments_are_refused(options, value, code):
    with pytest.raises(Unreadable) as refused:
        values.moment(**options)(value)

    assert refused.value.code == code


def test_documented_zone_is_used():
    assert values.moment(zone=UTC)("2012-03-04 05:06:07") == at(2012, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("separators", "value", "found"),
    [
        (",", "a, b ,,c", ("a", "b", "c")),
        ("|,", "a|b c", ("a", "b c")),
        (",", "a|b", ("a|b",)),
        (",|", '["a,b","c|d"]', ("a,b", "c|d")),
        (",", ["a,b", " c "], ("a,b", " c ")),
        (",", [{"id": 1, "name": "a"}], ("a",)),
        (",", "", None),
        (",", "null", None),
        (",", [], None),
    ],
)
def test_tags(separators, value, found):
    assert values.tags(separators)(value) == found


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("a,b|c", "tags_ambiguous"),
        ([1, 2], "tags_unreadable"),
        ("[x]", "tags_unreadable"),
        (7, "text_expected"),
    ],
)
def test_unclear_tags_are_refused(value, code):
    with pytest.raises(Unreadable) as refused:
        values.tags(",|")(value)

    assert refused.value.code == code


@pytest.mark.parametrize(
    ("value", "found"), [("7", 7), (" 7 ", 7), (7.0, 7), ("", None), ("NULL", None), (0, 0)]
)
def test_numbers(value, found):
    assert values.number(value) == found


@pytest.mark.parametrize(
    "value", ["-1", "1.5", "1e3", "1,000", "²", "many", 2**53, -1, 1.5, True, [1], "9" * 30]
)
def test_other_numbers_are_refused(value):
    with pytest.raises(Unreadable):
        values.number(value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("t", True),
        ("F", False),
        ("y", True),
        ("N", False),
        ("on", True),
        ("Off", False),
        ("TRUE", True),
        ("no", False),
        (1, True),
        (False, False),
        ("", None),
        (None, None),
    ],
)
def test_flags(value, found):
    assert values.flag(value) is found


@pytest.mark.parametrize("value", ["maybe", "2", 2, [True], {}])
def test_other_flags_are_refused(value):
    with pytest.raises(Unreadable):
        values.flag(value)
