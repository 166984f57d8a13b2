from __future__ import annotations

from dataclasses import fields, make_dataclass, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.domain import rules
from app.domain.errors import InvalidInput
from app.domain.link import Link, LinkFields, LinkState, Resolution, Slug

GOOD = LinkFields(long_url="https://example.com/")
NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)


EVERYTHING = LinkFields(
    long_url="https://example.com/a?b#c",
    title="a title",
    tags=("b", "a"),
    redirect_code=308,
    valid_from=NOON,
    expires_at=NOON + timedelta(days=1),
    forward_query=True,
    enabled=False,
    max_visits=7,
    external_id="crm-42",
    override_query=True,
    expired_url="https://example.com/over",
    robots="noindex, nofollow",
    analytics=False,
)


def test_every_field_survives():
    at_default = [
        field.name for field in fields(LinkFields) if getattr(EVERYTHING, field.name) == field.default
    ]

    assert at_default == [], "give them other values above"
    assert rules.checked(EVERYTHING, own_hosts=()) == EVERYTHING


def test_new_field_survives():
    noted = make_dataclass("Noted", [("note", str, "")], bases=(LinkFields,), frozen=True, kw_only=True)

    checked = rules.checked(noted(long_url="HTTPS://example.com", note="kept"), own_hosts=())

    assert checked == noted(long_url="https://example.com/", note="kept")


# What an earlier version stored, and this one refuses in each field.
OLD = replace(
    EVERYTHING,
    long_url="https://https//example.com/",
    title="two\nlines",
    tags=("",),
    redirect_code=303,
    max_visits=0,
)


@pytest.mark.parametrize(
    "change",
    [
        {"forward_query": False, "override_query": False},
        {"override_query": False},
        {"title": "new"},
        {"long_url": "https://example.com/"},
        {"tags": ("new",)},
    ],
)
def test_edit_keeps_what_an_earlier_version_stored(change):
    wanted = replace(OLD, **change)

    assert rules.edited(OLD, wanted, own_hosts=()) == wanted


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"long_url": "https://https//example.com/2"}, "url_host"),
        ({"title": "other\nlines"}, "title_invalid"),
        ({"redirect_code": 304}, "redirect_code_invalid"),
        ({"valid_from": NOON + timedelta(days=2)}, "never_valid"),
        ({"expires_at": datetime(1998, 1, 1, tzinfo=UTC)}, "time_out_of_range"),
    ],
)
def test_edit_obeys_the_rules_in_what_it_changes(change, code):
    with pytest.raises(InvalidInput) as raised:
        rules.edited(OLD, replace(OLD, **change), own_hosts=())

    assert [error.code for error in raised.value.errors] == [code]


def test_times_are_stored_in_utc():
    paris = timezone(timedelta(hours=1))

    expires_at = rules.checked(replace(GOOD, expires_at=NOON.astimezone(paris)), own_hosts=()).expires_at

    assert expires_at == NOON
    assert expires_at.tzinfo is UTC


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
        ({"tags": ("a",) * 21}, "tags_too_many"),
        ({"redirect_code": 200}, "redirect_code_invalid"),
        ({"redirect_code": 303}, "redirect_code_invalid"),
        ({"max_visits": 0}, "max_visits_invalid"),
        ({"max_visits": -1}, "max_visits_invalid"),
        ({"max_visits": 2**53}, "max_visits_invalid"),
        ({"external_id": ""}, "external_id_invalid"),
        ({"external_id": "x" * 256}, "external_id_invalid"),
        ({"external_id": "two\nlines"}, "external_id_invalid"),
        ({"expired_url": ""}, "url_empty"),
        ({"expired_url": "javascript:alert(1)"}, "url_scheme"),
        ({"expired_url": "https://a:b@example.com/"}, "url_credentials"),
        ({"expired_url": "https://example.com/\r\nx:y"}, "url_forbidden_character"),
        ({"robots": ""}, "robots_invalid"),
        ({"robots": "none"}, "robots_invalid"),
        ({"robots": "noindex,,nofollow"}, "robots_invalid"),
        ({"robots": "noindex\r\nx: y"}, "robots_invalid"),
        ({"robots": "noindex: bot"}, "robots_invalid"),
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


def test_page_for_the_time_after_is_canonical_and_leads_elsewhere():
    fields = replace(GOOD, expired_url="HTTPS://Over.example", robots=" NoFollow , noindex,nofollow")
    checked = rules.checked(fields, own_hosts=())

    assert (checked.expired_url, checked.robots) == ("https://over.example/", "nofollow, noindex")
    with pytest.raises(InvalidInput) as caught:
        rules.checked(fields, own_hosts=["over.example"])
    assert [(error.field, error.code) for error in caught.value.errors] == [("expired_url", "url_own_host")]


def test_all_broken_rules_are_reported_at_once():
    with pytest.raises(InvalidInput) as caught:
        rules.checked(LinkFields(long_url="x", title="\x00", redirect_code=1), own_hosts=())

    assert [error.field for error in caught.value.errors] == ["long_url", "title", "redirect_code"]


@pytest.mark.parametrize(
    ("change", "seconds", "state"),
    [
        ({}, 0, LinkState.LIVE),
        ({"enabled": False}, 0, LinkState.GONE),
        ({"valid_from": NOON}, -0.001, LinkState.ABSENT),
        ({"valid_from": NOON}, 0, LinkState.LIVE),
        ({"expires_at": NOON}, -0.001, LinkState.LIVE),
        ({"expires_at": NOON}, 0, LinkState.GONE),
    ],
)
def test_link_state_depends_on_the_time(change, seconds, state):
    link = Link(slug=Slug("abc"), fields=replace(GOOD, **change), version=1, created_at=NOON, updated_at=NOON)

    assert Resolution.of(link).state(NOON.timestamp() + seconds) is state


def test_removed_link_is_gone_unknown_is_absent():
    link = Link(slug=Slug("abc"), fields=GOOD, version=2, created_at=NOON, updated_at=NOON, removed_at=NOON)

    assert Resolution.of(link).state(NOON.timestamp()) is LinkState.GONE
    assert Resolution.absent(Slug("abc")).state(NOON.timestamp()) is LinkState.ABSENT


@pytest.mark.parametrize("field", ["valid_from", "expires_at"])
@pytest.mark.parametrize(
    "text",
    [
        "9998-12-31T23:59:59-23:59",
        "2000-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+14:00",
        "1999-12-31T23:59:59Z",
        "9999-01-01T00:00:00Z",
    ],
)
def test_year_is_checked_in_utc(field, text):
    """What is stored is the time in UTC: a link outside the years could not be changed any more."""
    moment = datetime.fromisoformat(text)
    fields = replace(GOOD, valid_from=moment) if field == "valid_from" else replace(GOOD, expires_at=moment)
    with pytest.raises(InvalidInput) as caught:
        rules.checked(fields, own_hosts=())

    assert [error.code for error in caught.value.errors] == ["time_out_of_range"]


@pytest.mark.parametrize("text", ["9999-01-01T00:00:00+12:00", "1999-12-31T23:59:59-01:00"])
def test_year_of_another_zone_is_accepted(text):
    fields = rules.checked(replace(GOOD, valid_from=datetime.fromisoformat(text)), own_hosts=())

    assert fields.valid_from == datetime.fromisoformat(text)
    assert rules.checked(fields, own_hosts=()) == fields


@pytest.mark.parametrize(
    ("title", "message"),
    [
        ("a\nb", "has a line break"),
        ("a\r\nb", "has a line break"),
        ("a\u2028b", "has a line break"),
        ("a\x00b", "has the control character U+0000"),
        ("\x1b[2J", "has the control character U+001B"),
        ("x" * 513, "is 513 characters, the most is 512"),
    ],
)
def test_title_message_names_the_cause(title, message):
    with pytest.raises(InvalidInput) as caught:
        rules.checked(replace(GOOD, title=title), own_hosts=())

    assert [error.message for error in caught.value.errors] == [message]


def test_tag_message_names_the_cause():
    with pytest.raises(InvalidInput) as caught:
        rules.checked(replace(GOOD, tags=("a", "b\nc")), own_hosts=())

    assert [error.message for error in caught.value.errors] == ["has a tag that has a line break"]
