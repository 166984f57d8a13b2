"""Columns that a format does not declare: what restricts a link is not left out silently."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from contextlib import suppress

import pytest

from app.domain.domains import DomainIndex
from app.domain.errors import FieldError
from app.domain.link import Link, LinkFields, Slug
from app.interchange import writing
from app.interchange.errors import FileRefused
from app.interchange.reading import Reading
from app.interchange.records import Accepted, LinkRecord, RecordKeys, Refused, domain_check
from tests.conftest import NOW

# A column, a value that restricts, and one that does not.
RESTRICTING = [
    ("Password", "hunter2", ""),
    ("password", "no", "false"),
    ("link_password", "0", "null"),
    ("Passwort", "geheim", ""),
    ("is_password_protected", "true", "0"),
    ("Password protected", "Yes", "No"),
    ("hasPassword", "1", "false"),
    ("Pass code", "1234", ""),
    ("Maximum clicks", "5", ""),
    ("maxUses", "5", "0"),
    ("click_limit_total", "5", "null"),
    ("usage limit", "5", ""),
    ("max", "5", ""),
    ("remaining_visits", "1", ""),
    ("expired", "true", "false"),
    ("Expiration URL", "https://example.com/over", ""),
    ("expire_in", "2 days", ""),
    ("Ablaufdatum", "31.12.2030", ""),
    ("not before", "2030-01-01", ""),
    ("active_from", "2030-01-01", ""),
    ("TTL", "3600", "0"),
    ("time_to_live", "3600", ""),
    ("ttlSeconds", "3600", ""),
    ("archived", "true", "false"),
    ("is_archived", "1", "0"),
    ("Archived at", "2030-01-01", ""),
    ("disabled", "yes", "no"),
    ("disabledAt", "2030-01-01T00:00:00Z", "null"),
    ("Banned", "TRUE", "FALSE"),
    ("blocked", "1", "0"),
    ("deleted_at", "2030-01-01", ""),
    ("private", "true", "false"),
    ("hidden", "on", "off"),
    ("one_time", "true", "false"),
    ("burn after reading", "true", "false"),
    ("active", "false", "true"),
    ("is_active", "0", "1"),
    ("Public", "no", "yes"),
    ("status", "suspended", "active"),
    ("State", "Paused", "Enabled"),
    ("visibility", "team", "public"),
    ("ios", "https://apps.example/1", ""),
    ("iOS URL", "https://apps.example/1", ""),
    ("android_target", "https://apps.example/1", ""),
    ("iphoneURL", "https://apps.example/1", ""),
    ("device targets", '{"ios":"https://apps.example/1"}', "{}"),
    ("geo", '{"DE":"https://example.de/"}', "null"),
    ("Geo targeting", "DE", ""),
    ("countries", "DE,FR", ""),
    ("language rules", "de", ""),
    ("redirect_rules", "[1]", "[]"),
    ("cloaking", "true", "false"),
    ("ends", "2030-01-01", ""),
    ("Stop date", "2030-01-01", "null"),
    ("start", "2030-01-01", ""),
    ("go_live", "2030-01-01", ""),
    ("available_from", "2030-01-01", ""),
    ("Validity", "30 days", ""),
    ("days_left", "3", ""),
    ("life_time", "30", "0"),
    ("click cap", "5", ""),
    ("purge_at", "2030-01-01", ""),
    ("confidential", "true", "f"),
    ("members only", "y", "n"),
    ("pending", "t", "f"),
    ("unpublished", "on", "off"),
    ("offline", "true", "false"),
    ("maintenance", "1", "0"),
    ("requires_sso", "true", "false"),
    ("paywall", "true", "false"),
    ("approved", "f", "t"),
    ("is_verified", "false", "true"),
    ("online", "no", "yes"),
    ("redirect_enabled", "false", "true"),
    ("access code", "1234", ""),
    ("unlock_code", "1234", "null"),
    ("clave", "x", ""),
    ("palavra-passe", "x", ""),
    ("activo", "no", "true"),
    ("Aktiv", "false", "true"),
    ("inaktiv", "true", "false"),
    ("désactivé", "1", "0"),
    ("versteckt", "true", "false"),
    ("ip_filter", "10.0.0.0/8", ""),
    ("lifecycle", "retired", "active"),
    ("removed", "t", "f"),
    ("Cloaked", "yes", "no"),
    ("iframe", "true", "false"),
    ("split_url", "https://example.com/b", ""),
    ("variants", "[1]", "[]"),
    ("ip_whitelist", "192.0.2.0/24", ""),
    ("requires login password", "true", "false"),
    ("Wachtwoord", "geheim", ""),
    ("パスワード", "x", ""),
    ("hasło", "x", ""),
    ("pass", "x", ""),
    ("PW", "x", "null"),
    ("one time code", "x", ""),
    ("有効期限", "2030-01-01", ""),
    ("Vence", "2030-01-01", ""),
    ("scadenza", "2030-01-01", ""),
    ("data wygaśnięcia", "2030-01-01", ""),
    ("срок действия", "2030-01-01", ""),
    ("embargo", "2030-01-01", ""),
    ("Launch date", "2030-01-01", ""),
    ("duration", "3600", "0"),
    ("clicks left", "3", ""),
    ("visits_left", "3", "null"),
    ("access", "private", "public"),
    ("login_required", "true", "false"),
    ("members only", "1", "0"),
    ("internal", "yes", "no"),
    ("Restricted", "true", "false"),
    ("spam", "1", "0"),
    ("is_phishing", "true", "false"),
    ("flagged", "1", "0"),
    ("hide", "1", "0"),
    ("unlisted", "true", "false"),
    ("broken", "1", "0"),
    ("permissions", "staff", ""),
    ("audience", "staff", ""),
    ("roles", "admin", ""),
    ("Alternative URL", "https://example.com/b", ""),
    ("url2", "https://example.com/b", ""),
    ("target_2", "https://example.com/b", ""),
    ("backup url", "https://example.com/b", ""),
    ("regex", "1", "0"),
    ("Wildcard", "true", "false"),
]
BASE = {"slug": "abc", "url": "https://example.com/1"}


def read(
    data: str, *, dialect: str | None = None, ignore: Iterable[str] = ()
) -> tuple[Reading, list[Accepted | Refused]]:
    reading = Reading(io.BytesIO(data.encode()), check=domain_check(()), dialect=dialect, ignore=ignore)
    return reading, list(reading)


def errors_of(row: Accepted | Refused) -> tuple[FieldError, ...]:
    assert isinstance(row, Refused)
    return tuple(row.errors)


def record_of(row: Accepted | Refused) -> LinkRecord:
    assert isinstance(row, Accepted)
    return row.record


def table(column: str, value: str) -> str:
    quoted = value.replace('"', '""')
    return f'slug,url,{column}\nabc,https://example.com/1,"{quoted}"\n'


@pytest.mark.parametrize(("column", "restricting", "harmless"), RESTRICTING)
def test_restricting_column_refuses_rows_that_use_it(column, restricting, harmless):
    _, (refused,) = read(table(column, restricting))
    _, (accepted,) = read(table(column, harmless))

    assert [(error.field, error.code) for error in errors_of(refused)] == [(column, "column_restricts")]
    assert f"--ignore ‘{column}’" in errors_of(refused)[0].message
    assert isinstance(accepted, Accepted)


@pytest.mark.parametrize(("column", "restricting", "harmless"), RESTRICTING)
def test_ignored_column_restricts_nothing(column, restricting, harmless):
    reading, (row,) = read(table(column, restricting), ignore=[column.upper().replace(" ", "_")])

    assert isinstance(row, Accepted)
    assert reading.left_out == (column,)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("password", True),
        ("password", 0),
        ("active", False),
        ("ttl", 60),
        ("meta", {"limits": {"max": 5}}),
        ("geo", {"DE": "https://example.de/"}),
        ("rules", [{"if": "ios"}]),
        ("archived", 1),
        ("short_code", "other"),
        ("vanity", "other"),
    ],
)
def test_restricting_member_refuses_its_item(member, value):
    _, rows = read(json.dumps([BASE, {**BASE, "slug": "def", member: value}]))

    assert [type(row) for row in rows] == [Accepted, Refused]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("password", False),
        ("password", None),
        ("active", True),
        ("ttl", 0),
        ("geo", {}),
        ("rules", []),
        ("vanity", ""),
    ],
)
def test_restricting_member_may_be_off(member, value):
    _, rows = read(json.dumps([BASE, {**BASE, "slug": "def", member: value}]))

    assert [type(row) for row in rows] == [Accepted, Accepted]


def test_member_below_an_ignored_one_is_ignored():
    reading, (row,) = read(json.dumps([{**BASE, "geo": {"DE": "x", "FR": "y"}}]), ignore=["Geo"])

    assert isinstance(row, Accepted)
    assert (reading.left_out, reading.notes) == (("geo.DE", "geo.FR"), ())


def test_other_columns_are_named_once():
    reading, rows = read("keyword,url,Colour,notes\n" + "a-b,https://example.com/,red,x\n" * 3)

    assert len(rows) == 3
    assert reading.left_out == ("Colour", "notes")


def test_ignored_name_that_is_no_column_is_noted():
    reading, _ = read("keyword,url\na-b,https://example.com/\n", ignore=["passwrod"])

    assert reading.notes == ("there is no column ‘passwrod’ to ignore",)


# A column that may be the short link, and a value of it, in a file with no other that is.
UNDERSTOOD_AS_NOTHING = [
    ("id", "abc"),
    ("UID", "7"),
    ("Identifier", "abc"),
    ("token", "abc"),
    ("Name", "abc"),
    ("word", "abc"),
    ("source", "/abc"),
    ("From", "/abc"),
    ("Source URL", "https://s.example/abc"),
    ("Old URL", "/abc"),
    ("lien court", "abc"),
    ("Enlace corto", "abc"),
    ("короткая ссылка", "abc"),
    ("短链接", "abc"),
    ("Tiny", "abc"),
    ("Go link", "go/abc"),
    ("golink", "abc"),
    # Whatever the column is called, its values are short URLs.
    ("Go", "https://s.example/abc"),
    ("Printed", "s.example/abc/"),
    ("Wo", "/abc"),
]


@pytest.mark.parametrize(("column", "value"), UNDERSTOOD_AS_NOTHING)
def test_short_link_in_a_column_that_is_not_understood_gets_no_new_slug(column, value):
    text = f"url,{column}\nhttps://example.com/1,{value}\n"
    with suppress(FileRefused):  # as a whole, if every file calls the short link so
        _, (row,) = read(text)
        assert [(error.field, error.code) for error in errors_of(row)] == [(column, "column_unknown_slug")]
    _, (item,) = read(json.dumps([{"url": "https://example.com/1", column: value}]))
    assert [error.code for error in errors_of(item)] == ["column_unknown_slug"]

    reading, (ignored,) = read(text, ignore=[column])
    assert (record_of(ignored).slug, reading.left_out) == (None, (column,))


@pytest.mark.parametrize(("column", "value"), UNDERSTOOD_AS_NOTHING[:8])
def test_name_of_many_meanings_is_no_short_link_beside_one(column, value):
    _, (row,) = read(f"url,slug,{column}\nhttps://example.com/1,def,{value}\n")

    assert record_of(row).slug == "def"


@pytest.mark.parametrize(
    "value", ["", "red", "https://example.com/", "https://cdn.example/a.png", "a/b", "1.5"]
)
def test_other_values_are_no_short_link(value):
    _, (row,) = read(f"url,note\nhttps://example.com/1,{value}\n")

    assert record_of(row).slug is None


CONTRADICTIONS = [
    ("url,target,slug", "{e}/1,,abc", "{e}/1,{e}/2,def", "columns_contradict"),
    ("longUrl,shortCode,shortUrl", "{e}/,abc,s.example/abc", "{e}/,abc,s.example/def", "columns_contradict"),
    ("longUrl,shortUrl", "{e}/,https://s.example/abc", "{e}/,https://t.example/abc", "domains_several"),
    ("slashtag,destination,domain", "abc,{e}/,one.example", "def,{e}/,two.example", "domains_several"),
    ("Short link,Destination URL", "s.example/abc,{e}/", "s.example/a/b,{e}/", "slug_segments"),
    ("Short link,Destination URL", "s.example/abc,{e}/", "https://s.example/,{e}/", "slug_missing"),
]


@pytest.mark.parametrize(("header", "first", "second", "code"), CONTRADICTIONS)
def test_row_that_contradicts_is_refused(header, first, second, code):
    _, rows = read(f"{header}\n{first}\n{second}\n".replace("{e}", "https://e.example"))

    assert isinstance(rows[0], Accepted)
    assert [error.code for error in errors_of(rows[1])] == [code]


@pytest.mark.parametrize("column", ["domain", "Domain"])
def test_ignored_domain_takes_all(column):
    _, rows = read(
        "longUrl,shortUrl,domain\nhttps://e.example/,https://s.example/abc,a\nhttps://e.example/,https://t.example/def,b\n",
        ignore=[column],
    )

    assert [type(row) for row in rows] == [Accepted, Accepted]


@pytest.mark.parametrize("cell", ["'=1+1", "'-x", "'@home"])
def test_cell_that_may_be_guarded_needs_a_format(cell):
    text = f"slug,long_url,title\nabc,https://example.com/,{cell}\n"

    assert [error.code for error in errors_of(read(text)[1][0])] == ["guard_unclear"]
    assert record_of(read(text, dialect="csv")[1][0]).fields.title == cell
    assert record_of(read(text, dialect="hopgate")[1][0]).fields.title == cell[1:]


@pytest.mark.parametrize("cell", ["'quoted'", "`quoted`", "'''"])
def test_cell_in_other_quotes_needs_a_format(cell):
    text = f"slug,long_url,title\nabc,https://example.com/,{cell}\n"

    assert [error.code for error in errors_of(read(text)[1][0])] == ["quote_unclear"]
    assert record_of(read(text, dialect="csv")[1][0]).fields.title == cell


def test_every_fault_of_a_row_is_reported():
    _, (row,) = read(
        "code,target,created_at,expires_at,password,click_count\na/b,ftp://e.example,x,y,pw,-1\n"
    )

    assert {error.field for error in errors_of(row)} == {
        "created_at", "expires_at", "password", "visits", "slug", "long_url",
    }  # fmt: skip


def test_row_without_slug_has_a_key_of_its_own():
    """The same line twice is two links; a file that grew has the same keys for what it had."""
    text = "https://example.com/1\nhttps://example.com/2\nhttps://example.com/1\n"
    keys, again = RecordKeys(), RecordKeys()

    first = [keys.key(record_of(row)) for row in read(text)[1]]
    second = [again.key(record_of(row)) for row in read(text + "https://example.com/1\n")[1]]

    assert len(set(first)) == 3
    assert second[:3] == first
    assert second[3] not in first


@pytest.mark.parametrize("lost", ["spent_visits", "visits", "created_at"])
def test_export_that_lost_a_column_is_not_read_as_an_old_one(lost):
    """Its tags are JSON, and none of its other columns is left out."""
    fields = LinkFields(long_url="https://example.com/", title="Title", tags=("a,b", "c"))
    link = Link(slug=Slug("mine"), fields=fields, version=1, created_at=NOW, updated_at=NOW, visits=5)
    rows = list(
        csv.DictReader(
            [writing.csv_header(), *writing.csv_rows([(link, 0)], DomainIndex("https://hop.example"))]
        )
    )
    names = [name for name in rows[0] if name != lost]
    file = io.StringIO()
    writer = csv.DictWriter(file, names, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)

    reading, (row,) = read(file.getvalue())

    assert isinstance(row, Accepted)
    assert row.record.fields == fields
    assert reading.left_out == ()
