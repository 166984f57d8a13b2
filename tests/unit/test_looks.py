"""What a request and its answer look like, and how many looks wait."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.domain.link import Slug
from app.domain.visits import Look, Outcome
from app.service.visits import VisitNotes
from app.web.look import look_of, look_of_answer
from app.web.response import Response
from tests.unit.visitors import FIREFOX, SALE

# Read by the tests of the front as well.
LOOKS = json.loads((Path(__file__).parents[1] / "data" / "looks.json").read_text())


class Headers:
    """As granian shows them: `get` knows the first line of each, and only visible ASCII is shown."""

    def __init__(self, lines):
        self._lines = lines

    def get(self, name):
        first = next((value for key, value in self._lines if key == name), None)
        return first if first is None or first.isascii() else None

    def get_all(self, name):
        return [value for key, value in self._lines if key == name and value.isascii()]


@pytest.mark.parametrize("row", LOOKS["rows"], ids=lambda row: str(row["headers"])[:60])
def test_look_of_a_request(row):
    look = look_of("sale", row["client"], Headers(row["headers"]), row["target"], row["query"])

    assert look == Look(slug=SALE, **row["look"])


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (Response(404), Outcome.MISSED),
        (Response(410), Outcome.GONE),
        (Response(302, stands_for=404), Outcome.MISSED),
        (Response(302, stands_for=410), Outcome.GONE),
        (Response(429), None),
        (Response(451), None),
        (Response(503), None),
        (Response(302), None),
        (Response(302, (("location", "https://example.com/"),), is_visit=True), Outcome.VISIT),
    ],
)
def test_look_of_an_answer(response, outcome):
    """Refused requests are not counted: they learn nothing either."""
    scope = SimpleNamespace(headers=Headers([["user-agent", FIREFOX], ["dnt", "1"]]), query_string="")
    look = look_of_answer("slae", "192.0.2.1", scope, response)

    assert (look and look.outcome) == outcome
    if outcome in {Outcome.MISSED, Outcome.GONE}:
        assert look == Look(slug=Slug("slae"), user_agent=FIREFOX, objects=True, outcome=outcome)


def test_address_of_ipv4_within_ipv6_is_that_of_ipv4():
    assert look_of("sale", "::ffff:192.0.2.1", Headers([])).client == "192.0.2.1"


def test_notes_are_bounded():
    notes = VisitNotes()
    for number in range(20_002):
        notes.note(Look(slug=Slug(str(number))))
    notes.note(Look(slug=Slug("1")))

    taken = dict(notes.take())
    assert (len(taken), notes.dropped) == (20_000, 2)
    assert taken[Look(slug=Slug("1"))] == 2
