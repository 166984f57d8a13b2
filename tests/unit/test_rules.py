from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.domain import rules
from app.domain.errors import InvalidInput
from app.domain.link import Link, LinkFields, Resolution, Slug, State

GOOD = LinkFields(long_url="https://example.com/")
NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)


def test_times_are_stored_in_utc():
    paris = timezone(timedelta(hours=1))

    fields = rules.checked(replace(GOOD, expires_at=NOON.astimezone(paris)), own_hosts=())

    assert fields.expires_at == NOON
    assert fields.expires_at.tzinfo is UTC


def test_tags_are_kept_once_each_in_order():
    assert rules.checked(replace(GOOD, tags=("b", "a", "b")), own_hosts=()).tags == ("b", "a")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"title": "x" * 513}, "title_invalid"),
        ({"title": "a\x00b"}, "title_invalid"),
        ({"title": "\ud800"}, "title_invalid"),
        ({"tags": ("",)}, "tag_invalid"),
        ({"tags": ("x" * 65,)}, "tag_invalid"),
        ({"tags": ("a\nb",)}, "tag_invalid"),
        ({"tags": tuple(map(str, range(21)))}, "tags_too_many"),
        ({"redirect_code": 200}, "redirect_code_invalid"),
        ({"redirect_code": 303}, "redirect_code_invalid"),
        ({"max_visits": 0}, "max_visits_invalid"),
        ({"max_visits": -1}, "max_visits_invalid"),
        ({"max_visits": 2**53}, "max_visits_invalid"),
        ({"valid_from": datetime(2030, 1, 1)}, "time_without_zone"),  # noqa: DTZ001 - the case
        ({"expires_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))}, "time_out_of_range"),
        (
            {"expires_at": datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=12)))},
            "time_out_of_range",
        ),
        ({"valid_from": NOON, "expires_at": NOON}, "never_valid"),
    ],
)
def test_each_rule_is_enforced(change, code):
    with pytest.raises(InvalidInput) as caught:
        rules.checked(replace(GOOD, **change), own_hosts=())

    assert [error.code for error in caught.value.errors] == [code]


def test_all_broken_rules_are_reported_at_once():
    with pytest.raises(InvalidInput) as caught:
        rules.checked(LinkFields(long_url="x", title="\x00", redirect_code=1), own_hosts=())

    assert [error.field for error in caught.value.errors] == ["long_url", "title", "redirect_code"]


@pytest.mark.parametrize(
    ("change", "seconds", "state"),
    [
        ({}, 0, State.LIVE),
        ({"enabled": False}, 0, State.GONE),
        ({"valid_from": NOON}, -0.001, State.ABSENT),
        ({"valid_from": NOON}, 0, State.LIVE),
        ({"expires_at": NOON}, -0.001, State.LIVE),
        ({"expires_at": NOON}, 0, State.GONE),
    ],
)
def test_what_a_visitor_meets_depends_on_the_time(change, seconds, state):
    link = Link(slug=Slug("abc"), fields=replace(GOOD, **change), version=1, created_at=NOON, updated_at=NOON)

    assert Resolution.of(link).state(NOON.timestamp() + seconds) is state


def test_a_removed_link_is_gone_and_an_unknown_one_absent():
    link = Link(slug=Slug("abc"), fields=GOOD, version=2, created_at=NOON, updated_at=NOON, removed_at=NOON)

    assert Resolution.of(link).state(NOON.timestamp()) is State.GONE
    assert Resolution.absent(Slug("abc")).state(NOON.timestamp()) is State.ABSENT
