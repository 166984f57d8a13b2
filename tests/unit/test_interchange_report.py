"""Summaries add up, and nothing that a file holds acts on a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import FieldError
from app.interchange import inert, report
from app.interchange.records import Refused
from app.interchange.report import Outcome, Tally


def refused(line: int, text: str = "x", *codes: str) -> Refused:
    errors = tuple(FieldError("long_url", code, f"{code} {line}") for code in codes or ("url_scheme",))
    return Refused(line, line, errors, text)


def test_summary_counts_every_row():
    tally = Tally()
    for outcome in (Outcome.IMPORTED, Outcome.IMPORTED, Outcome.UPDATED, Outcome.SAME):
        tally.read()
        tally.accept(outcome)
    for line in range(5, 10):
        tally.read()
        tally.refuse(refused(line))

    summary = tally.summary(ignored_columns=["Colour"], notes=["a note"])

    assert (summary.read, summary.imported, summary.updated, summary.same, summary.refused) == (
        9,
        2,
        1,
        1,
        5,
    )
    (reason,) = summary.reasons
    assert (reason.message, reason.rows) == ("url_scheme 5", 5)
    assert reason.examples == ("line 5: x", "line 6: x", "line 7: x")
    assert (summary.ignored_columns, summary.notes) == (("Colour",), ("a note",))


def test_lost_row_fails_the_summary():
    tally = Tally()
    tally.read()

    with pytest.raises(AssertionError, match="rows are lost"):
        tally.summary()


def test_reasons_come_with_the_commonest_first():
    tally = Tally("item")
    for row in (refused(1, "x", "a"), refused(2, "x", "b", "b"), refused(3, "x", "a", "b")):
        tally.read()
        tally.refuse(row)
    tally.read()
    tally.refuse(Refused(4, 6, (FieldError("row", "b", "no"),), "x"))

    reasons = tally.summary().reasons

    assert [(reason.code, reason.rows) for reason in reasons] == [("a", 2), ("b", 2), ("b", 1)]
    assert reasons[2].examples == ("items 4–6: x",)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 你好", "plain ü 你好"),
        ("\x1b]0;pwn\x07", "\\x1b]0;pwn\\x07"),
        ("a\tb\r\n\x00\x7f", "a\\x09b\\x0d\\x0a\\x00\\x7f"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("\u202egpj.exe\u2066\u200f", "\\u202egpj.exe\\u2066\\u200f"),
        ("\u2028\u2029\ufeff\u200b", "\\u2028\\u2029\\ufeff\\u200b"),
        ("\udce9", "\\udce9"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_terminal_text_is_inert(text, shown):
    assert inert.terminal_safe(text) == shown


def test_long_text_is_cut():
    assert inert.terminal_safe("x" * 100, 10) == "x" * 10 + "…"
    assert inert.terminal_safe("x" * 10, 10) == "x" * 10


@settings(deadline=None)
@given(st.text())
def test_any_text_is_inert(text):
    tally = Tally()
    tally.read()
    tally.refuse(Refused(1, 1, (FieldError(text, "code", text),), text))
    summary = tally.summary(ignored_columns=[text], notes=[text])
    shown = [*summary.ignored_columns, *summary.notes, summary.reasons[0].field, summary.reasons[0].message]
    lines = report.refused_header() + report.refused_rows(
        Refused(1, 1, (FieldError(text, "code", text),), text)
    )

    for value in (*shown, *summary.reasons[0].examples, lines.replace("\n", "")):
        assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in value)
        assert not set(value) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
    (_, cells) = csv.reader(io.StringIO(lines))
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r\n"))]


def test_refused_rows_have_a_line_for_each_reason():
    lines = report.refused_header() + report.refused_rows(
        refused(7, '=HYPERLINK("http://e.example")', "a", "b")
    )

    rows = list(csv.DictReader(io.StringIO(lines)))
    assert [(row["line"], row["code"]) for row in rows] == [("7", "a"), ("7", "b")]
    assert rows[0]["text"] == '\'=HYPERLINK("http://e.example")'


@settings(deadline=None)
@given(st.recursive(st.text() | st.integers(), st.lists))
def test_json_is_harmless_and_the_same(value):
    text = inert.json_safe(json.dumps(value, ensure_ascii=False, indent=2))

    assert json.loads(text) == value
    assert all(line == inert.terminal_safe(line) for line in text.split("\n"))


@pytest.mark.parametrize("character", ["\u202e", "\x7f", "\x9b", "\u2028", "\U000e0041", "\u200b"])
def test_json_escapes_what_a_terminal_obeys(character):
    text = inert.json_safe(json.dumps(character, ensure_ascii=False))

    assert text.isascii()
    assert json.loads(text) == character
