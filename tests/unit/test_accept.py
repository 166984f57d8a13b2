"""Whether a request prefers a page to a document, by its headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.accept import MAX_LENGTH, wants_page

# Read by the tests of the front as well.
ROWS = json.loads((Path(__file__).parents[1] / "data" / "accepts.json").read_text())


class Accept:
    """The header as granian shows it."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)

    def get_all(self, name: str) -> list[str]:
        assert name == "accept"
        return self._lines


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " | ".join(row["accept"]))
def test_page_is_wanted_as_the_table_says(row):
    assert wants_page(Accept(*row["accept"])) is row["page"]


@pytest.mark.parametrize(("length", "is_page"), [(MAX_LENGTH, True), (MAX_LENGTH + 1, False)])
def test_length_is_bounded(length, is_page):
    assert wants_page(Accept("text/html,".ljust(length))) is is_page


@given(st.lists(st.text(alphabet='texhml/*,;=q01." \\', max_size=60), max_size=3))
def test_anything_is_read(lines):
    assert wants_page(Accept(*lines)) in {True, False}
