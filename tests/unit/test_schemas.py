"""The schemas of the API have the fields that a link has."""

from __future__ import annotations

from dataclasses import MISSING, fields

import msgspec
import pytest

from app.domain import utm
from app.domain.domains import DomainIndex
from app.domain.errors import InvalidInput
from app.domain.link import Link, LinkFields, Slug
from app.web.i_json import read
from app.web.schemas import NOT_FIELDS, CreateLink, LinkDocument, PatchLink, link_document
from tests.contract.store_links import FULL, NOW

DEFAULTS = {field.name: field.default for field in fields(LinkFields)}


def test_create_takes_every_field_and_the_slug() -> None:
    declared = {field.name: field.default for field in msgspec.structs.fields(CreateLink)}
    others = {name: declared.pop(name) for name in NOT_FIELDS}

    assert others == {**dict.fromkeys(NOT_FIELDS), "reuse": False}
    # The domain says what it is.
    assert declared["redirect_code"] is msgspec.UNSET
    declared["redirect_code"] = CreateLink("https://example.com/").fields().redirect_code
    assert {
        name: MISSING if default is msgspec.NODEFAULT else default for name, default in declared.items()
    } == DEFAULTS


def test_created_fields_survive() -> None:
    created = CreateLink(**{name: getattr(FULL, name) for name in DEFAULTS})

    assert created.fields() == FULL


def test_patch_names_its_changes_only() -> None:
    assert set(PatchLink.__struct_fields__) == {*DEFAULTS, *utm.NAMES, "expires_in", "owner"}
    assert PatchLink(title="x", max_visits=None).changes() == {"title": "x", "max_visits": None}


def test_document_shows_every_field() -> None:
    link = Link(slug=Slug("abc"), fields=FULL, version=1, created_at=NOW, updated_at=NOW, visits=7)

    document = link_document(link, DomainIndex("https://x.example"))

    assert {name: getattr(document, name) for name in DEFAULTS} == {
        name: getattr(FULL, name) for name in DEFAULTS
    }
    user_fields = [name for name in CreateLink.__struct_fields__ if name in DEFAULTS]
    assert list(LinkDocument.__struct_fields__) == [
        *("domain", "slug", "short_url"),
        *user_fields,
        *utm.NAMES,
        *("visits", "version", "created_at", "updated_at", "owner", "aliases"),
    ]


@pytest.mark.parametrize("schema", [CreateLink, PatchLink])
@pytest.mark.parametrize("field", ["valid_from", "expires_at"])
@pytest.mark.parametrize(
    "value",
    [
        *('"tomorrow"', '"2030-01-31"', '"2030-13-31T12:00:00Z"', '"2030-02-30T12:00:00Z"', '""', "[]", "{}"),
        *('"2030-01-31T12:00:60Z"', '"99999-01-31T12:00:00Z"', "1893499200", "1.5", "true", '"7d"'),
    ],
)
def test_malformed_time_is_told_by_an_example(schema: type, field: str, value: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(f'{{"long_url":"https://e.example/","{field}":{value}}}'.encode(), schema)

    [error] = refused.value.errors
    assert error.field == field
    assert "such as 2030-01-31T12:00:00Z" in error.message
    assert "RFC" not in error.message
    assert "`" not in error.message


@pytest.mark.parametrize(("text", "value"), [("7.0", 7), ("7e2", 700), ("-0.0", 0), ("70E-1", 7)])
def test_integral_number_is_an_integer_however_it_is_written(text: str, value: int) -> None:
    """As JSON Schema says; another program may not know that its number is an integer."""
    body = f'{{"long_url":"x","max_visits":{text}}}'.encode()

    assert read(body, CreateLink).max_visits == value


@pytest.mark.parametrize("text", ["7.5", "1e-400", "9007199254740990.6", "1e16", "1e300", f"1e-{10**20}"])
def test_other_number_is_no_integer(text: str) -> None:
    """Not even one that becomes an integer only because a float cannot hold it."""
    with pytest.raises(InvalidInput):
        read(f'{{"long_url":"x","max_visits":{text}}}'.encode(), CreateLink)
