"""Requests without a redirect: all are counted, and a few slugs of those that have no link are named."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from app.domain.link import Slug
from app.domain.visits import (
    MAX_VALUES,
    OTHER,
    Dimension,
    Look,
    Outcome,
    is_of_refusals,
    refusals_of,
    total_of_domain,
)
from app.service.refusals import MAX_NAMED
from app.service.visits import VisitNotes
from tests.unit.visitors import FIREFOX, GOOGLE, described, describer, take

OWN, OTHER_DOMAIN = (refusals_of(total_of_domain(domain)) for domain in (0, 7))
OUTCOME, MISSING = Dimension.OUTCOME, Dimension.MISSING


def missed(slug: str, **fields) -> Look:
    return Look(**{"slug": Slug(slug), "user_agent": FIREFOX, "outcome": Outcome.MISSED, **fields})


async def test_outcomes_by_domain():
    """A visit beside them is described as ever."""
    visit = Look(slug=Slug("sale"), user_agent=FIREFOX)
    gone = missed("", outcome=Outcome.GONE)
    event = await described(missed("slae"), missed("~7~slae"), missed("~7~sael"), gone, visit)

    assert {slug for slug in event.visits if is_of_refusals(slug)} == {OWN, OTHER_DOMAIN}
    assert event.visits[OWN].counts == {OUTCOME: {"missed": 1, "gone": 1}, MISSING: {"slae": 1}}
    assert event.visits[OTHER_DOMAIN].counts == {OUTCOME: {"missed": 2}, MISSING: {"slae": 1, "sael": 1}}
    assert event.visits[OWN].visitors == ()
    assert len(event.visits[Slug("sale")].visitors) == 1


@pytest.mark.parametrize(
    "look",
    [
        missed("slae", user_agent=GOOGLE),
        missed("slae", user_agent=""),
        missed("slae", objects=True),
        missed("s" * 101),
        missed("no slug"),
        missed("=1+1"),
        missed(""),
        missed("~7", user_agent=FIREFOX),
    ],
)
async def test_slug_that_is_not_named(look):
    event = await described(look, honours=True)

    assert event.visits[OWN].counts == {OUTCOME: {"missed": 1}, MISSING: {OTHER: 1}}


async def test_objections_hide_nothing_unless_the_operator_says_so():
    event = await described(missed("s" * 100, objects=True))

    assert event.visits[OWN].counts[MISSING] == {"s" * 100: 1}


def test_notes_name_a_few_slugs_and_count_all():
    """A visit takes no place of theirs, and they take none of a visit's."""
    notes = VisitNotes()
    for number in range(MAX_NAMED + 5):
        notes.note(missed(f"guess-{number}"))
    notes.note(missed("~7~late", objects=True))
    notes.note(missed("guess-0"))
    notes.note(missed("old", outcome=Outcome.GONE))
    visit = Look(slug=Slug("sale"))
    notes.note(visit)

    taken = dict(notes.take())
    unnamed = replace(missed(""), user_agent="")
    assert len(taken) == 1 + MAX_NAMED + 3
    assert next(iter(taken)) == visit
    assert taken[missed("guess-0")] == 2
    assert taken[unnamed] == 5
    assert taken[replace(unnamed, slug=Slug("~7~"))] == 1
    assert taken[replace(unnamed, outcome=Outcome.GONE)] == 1
    assert (list(notes.take()), notes.dropped) == ([], 0)


async def test_values_beyond_the_bound_join_those_without_a_name():
    looks = [(missed(f"guess-{number}"), 2) for number in range(MAX_VALUES + 3)]
    [event] = await take(describer([*looks, (missed(""), 900)]))

    counts = event.visits[OWN].counts
    assert counts[OUTCOME] == {"missed": 2 * (MAX_VALUES + 3) + 900}
    assert len(counts[MISSING]) == MAX_VALUES + 1
    assert counts[MISSING][OTHER] == 906
