"""CSV read strictly: each case is a record, or names its lines."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.link import LinkFields
from app.interchange import csv_records
from app.interchange.csv_records import Malformed, Record
from app.interchange.errors import FileRefused
from app.interchange.lines import MAX_LINE, Lines
from app.interchange.reading import Reading
from app.interchange.records import Accepted, domain_check
from tests.unit.interchange_links import LONG_URLS, SLUGS, TITLES


def parsed(text: str, delimiter: str | None = ",") -> list[Record | Malformed]:
    return list(csv_records.records(Lines(io.StringIO(text, newline="")), delimiter))


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("a,b\n", ("a", "b")),
        ("a,b", ("a", "b")),
        ("a,\r\n", ("a", "")),
        ('"a","b"\r', ("a", "b")),
        ('"a,b",""\n', ("a,b", "")),
        ('"say ""hi""",b\n', ('say "hi"', "b")),
        ('"two\r\nlines",b\n', ("two\r\nlines", "b")),
        ('"",""\n', ("", "")),
        (" a ,'b'\n", (" a ", "'b'")),
    ],
)
def test_record_cells(text, cells):
    (record,) = parsed(text)

    assert isinstance(record, Record)
    assert record.cells == cells


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ('a,"b\nc,d\ne,f\n', [("quote_unclosed", 1, 3)]),
        ('a,"b\nc,"d"\ne,f\n', [("quote_stray", 1, 2), ("cells", 3, 3)]),
        ('a,5" disk\nc,d\n', [("quote_stray", 1, 1), ("cells", 2, 2)]),
        ('a,"b" \nc,d\n', [("quote_stray", 1, 1), ("cells", 2, 2)]),
        ('a, "b"\nc,d\n', [("quote_stray", 1, 1), ("cells", 2, 2)]),
        ('a,"say \\"hi\\""\nc,d\n', [("quote_stray", 1, 1), ("cells", 2, 2)]),
        # What a refused record holds in quotes is not read as records of its own.
        ('a,b"c,"x\nslug,https://evil.example\ny"\nc,d\n', [("quote_stray", 1, 3), ("cells", 4, 4)]),
    ],
)
def test_malformed_record_names_its_lines(text, spans):
    found = [(getattr(row, "code", "cells"), row.line, row.last_line) for row in parsed(text)]

    assert found == spans


def test_unclosed_quote_names_where_it_opened():
    (row,) = parsed('a,b,"c\nd"",e\n')

    assert isinstance(row, Malformed)
    assert "quote opened in line 1 is never closed" in row.message


@pytest.mark.parametrize("text", ["\n", "  \n", ",,\n", " , \r\n"])
def test_blank_line_is_no_record(text):
    assert parsed(text) == []


def test_long_record_refuses_itself_only():
    long = "x" * (MAX_LINE + 10)

    rows = parsed(f'a,b\n"{long}\n,","y"\n{long},b\nc,d\n')

    assert [(getattr(row, "code", "cells"), row.line, row.last_line) for row in rows] == [
        ("cells", 1, 1),
        ("row_too_long", 2, 3),
        ("row_too_long", 4, 4),
        ("cells", 5, 5),
    ]


def test_many_lines_in_quotes_refuse_their_record_only():
    count = MAX_LINE // 1000 + 10

    rows = parsed('"' + ("y" * 1000 + "\n") * count + '",b\nc,d\n')

    assert [(row.line, row.last_line) for row in rows] == [(1, count + 1), (count + 2, count + 2)]
    assert isinstance(rows[0], Malformed)
    assert isinstance(rows[1], Record)


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_line_longer_than_the_limit_counts_once(end):
    """Its end may lie on the limit, between CR and LF."""
    for size in range(MAX_LINE - 2, MAX_LINE + 3):
        lines = Lines(io.StringIO("x" * size + end + "y" + end, newline=""))

        found = list(iter(lines.read, None))
        assert [line.number for line in found if line is not None] == [1, 2]


def test_column_without_delimiter_keeps_whole_lines():
    rows = parsed('https://a.example/1\n"https://a.example/?ids=1,2"\nhttps://a.example/;slug\n', None)

    *read, last = rows
    assert [row.cells for row in read if isinstance(row, Record)] == [
        ("https://a.example/1",),
        ("https://a.example/?ids=1,2",),
    ]
    assert isinstance(last, Malformed)
    assert last.code == "cells_too_many"


# --- whatever `csv` writes ---------------------------------------------------------------


@st.composite
def dialects(draw):
    return {
        "delimiter": draw(st.sampled_from(",;\t|") | st.sampled_from(":^ !a\"'-_.\x1f")),
        "quoting": draw(
            st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE])
        ),
        "quotechar": draw(st.sampled_from('"""\'`')),
        "lineterminator": draw(
            st.sampled_from(["\n", "\r\n", "\r"])
            | st.sampled_from(["\n\n", "\r\r\n", ";\n", "|", "\x1e", ",\r\n"])
        ),
    }


@settings(deadline=None)
@given(
    dialect=dialects(),
    links=st.dictionaries(
        SLUGS, st.tuples(LONG_URLS, TITLES, st.none() | st.integers(1, 2**53 - 1)), max_size=6
    ),
    order=st.permutations(["slug", "long_url", "title", "max_visits"]),
)
def test_any_csv_is_read_exactly_or_refused(dialect, links, order):
    """Each link is stored as it was written, or a refused line names it, or the file is refused."""
    written = {
        slug: {"slug": slug, "long_url": url, "title": title, "max_visits": "" if most is None else most}
        for slug, (url, title, most) in links.items()
    }
    file = io.StringIO(newline="")
    try:
        writer = csv.DictWriter(file, order, **dialect)
        writer.writeheader()
        writer.writerows(written.values())
    except (csv.Error, ValueError, TypeError):
        return  # a dialect that cannot write these

    try:
        rows = list(Reading(io.BytesIO(file.getvalue().encode()), check=domain_check(())))
    except FileRefused:
        return

    accepted = [row.record for row in rows if isinstance(row, Accepted)]
    assert {record.slug: record.fields for record in accepted} == {
        record.slug: LinkFields(
            long_url=links[record.slug][0], title=links[record.slug][1], max_visits=links[record.slug][2]
        )
        for record in accepted
    }
    assert len(accepted) == len({record.slug for record in accepted})
    refused = sum(not isinstance(row, Accepted) for row in rows)
    assert len(accepted) == len(links) or refused
