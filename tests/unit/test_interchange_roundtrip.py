"""Export, then import: nothing that a link is gets lost or changed."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain import utm
from app.domain.domains import Domain, DomainIndex
from app.domain.link import Link, LinkFields, Slug
from app.interchange import writing
from app.interchange.hopgate_format import CODECS
from app.interchange.inert import guarded, unguarded
from app.interchange.reading import Reading
from app.interchange.records import Accepted, Refused, domain_check
from tests.conftest import NOW
from tests.unit.interchange_links import COUNTS, LINKS

MANY = st.lists(st.tuples(LINKS, COUNTS), max_size=3)
DOMAINS = DomainIndex("https://hop.example")
FORMATS = {
    "csv": lambda links: writing.csv_header() + "".join(writing.csv_rows(links, DOMAINS)),
    "jsonl": lambda links: "".join(writing.json_rows(links, DOMAINS)),
}


def read(text: str) -> list[Accepted | Refused]:
    return list(Reading(io.BytesIO(text.encode()), check=domain_check(())))


def carried(link: Link, spent: int) -> tuple[object, ...]:
    return (link.slug, link.fields, link.created_at, link.visits, spent)


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None)
@given(links=MANY)
def test_export_comes_back_exactly(form, links):
    rows = read(FORMATS[form](links))

    records = [row.record for row in rows if isinstance(row, Accepted)]
    assert len(records) == len(rows), rows
    assert [(r.slug, r.fields, r.created_at, r.visits, r.spent_visits) for r in records] == [
        carried(link, spent) for link, spent in links
    ]


def test_export_has_every_field():
    """A new field of a link is exported, or this fails."""
    assert set(CODECS) == {field.name for field in dataclasses.fields(LinkFields)} | {
        "slug",
        "domain",
        "aliases",
        "created_at",
        "visits",
        "spent_visits",
        "owner",
        *utm.NAMES,
    }


@pytest.mark.parametrize("form", FORMATS)
def test_aliases_come_back(form):
    other = Domain(domain_id=1, host="go.example")
    domains = DomainIndex("https://hop.example", [other])
    aliases = (Slug("first"), other.key("second"))
    link = Link(
        slug=Slug("mine"),
        fields=LinkFields(long_url="https://example.com/"),
        version=1,
        created_at=NOW,
        updated_at=NOW,
        aliases=aliases,
    )
    rows = {"csv": writing.csv_rows, "jsonl": writing.json_rows}[form]([(link, 0)], domains)
    text = (writing.csv_header() if form == "csv" else "") + "".join(rows)

    (row,) = Reading(io.BytesIO(text.encode()), check=domain_check((), domains=domains))
    (unknown,) = Reading(io.BytesIO(text.encode()), check=domain_check(()))

    assert isinstance(row, Accepted)
    assert row.record.aliases == aliases
    assert isinstance(unknown, Refused)
    assert [error.code for error in unknown.errors] == ["domain_unknown"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_export_saved_in_another_encoding_comes_back(encoding):
    link = Link(
        slug=Slug("mine"),
        fields=LinkFields(long_url="https://example.com/", title="Ünïcode 你好"),
        version=1,
        created_at=NOW,
        updated_at=NOW,
    )
    text = FORMATS["csv"]([(link, 0)])

    (row,) = Reading(io.BytesIO(text.encode(encoding)), check=domain_check(()))

    assert isinstance(row, Accepted)
    assert row.record.fields == link.fields


@settings(deadline=None)
@given(links=MANY)
def test_exported_cell_is_no_formula(links):
    rows = csv.reader(io.StringIO(FORMATS["csv"](links)))

    assert not [cell for row in rows for cell in row if cell.startswith(tuple("=+-@\t\r\n＝＋－＠"))]


@settings(deadline=None)
@given(st.text())
def test_guard_is_reversible(text):
    assert unguarded(guarded(text)) == text


@pytest.mark.parametrize("cell", ["'plain", "'https://example.com/", "plain'", "' '", "'"])
def test_mark_that_guards_nothing_is_text(cell):
    assert unguarded(cell) == cell


@pytest.mark.parametrize("form", FORMATS)
def test_domains_that_are_read_again_meanwhile_change_no_row(form, monkeypatch):
    """Exports are written by a thread, while the event loop takes over what it has polled."""
    domains = DomainIndex("https://go.example")
    of = DomainIndex.of

    def of_and_read_again(index, key):
        found = of(index, key)
        index.replace([])
        return found

    fields = LinkFields(long_url="https://example.com/")
    link = Link(slug=Slug("a"), fields=fields, version=1, created_at=NOW, updated_at=NOW)
    rows = {"csv": writing.csv_rows, "jsonl": writing.json_rows}[form]
    [expected] = rows([(link, 0)], domains)
    monkeypatch.setattr(DomainIndex, "of", of_and_read_again)

    assert list(rows([(link, 0)], domains)) == [expected]
