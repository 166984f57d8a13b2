"""Why a request was made, by its headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.web.intent import PREVIEW_STARTS, PREVIEW_WORDS, intent_of

# Read by the tests of the front as well.
TABLE = json.loads((Path(__file__).parents[1] / "data" / "intents.json").read_text())


class Headers:
    """The headers of a request as granian shows them: `get` knows the first line of each."""

    def __init__(self, lines: list[tuple[str, str]]) -> None:
        self._lines = lines

    def get(self, name: str) -> str | None:
        return next(iter(self.get_all(name)), None)

    def get_all(self, name: str) -> list[str]:
        return [value for key, value in self._lines if key == name]


@pytest.mark.parametrize("row", TABLE["rows"], ids=lambda row: str(row["headers"]))
def test_headers_tell_the_intent(row):
    assert intent_of(Headers(row["headers"])).name.lower() == row["intent"]


def test_table_has_the_words():
    assert TABLE["anywhere"] == list(PREVIEW_WORDS)
    assert TABLE["at_start"] == list(PREVIEW_STARTS)
