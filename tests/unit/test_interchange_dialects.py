"""Each format by a sample of it: which links it is, and which rows are refused."""

from __future__ import annotations

import csv
import io

import pytest

from app.interchange.reading import Reading
from app.interchange.recognition import DIALECTS
from app.interchange.records import Accepted, Refused, domain_check
from tests.unit.interchange_samples import ALL, EXPECTED, SAMPLES


def read(data: bytes, *, dialect: str | None = None) -> tuple[Reading, list[Accepted | Refused]]:
    reading = Reading(io.BytesIO(data), check=domain_check(()), dialect=dialect)
    return reading, list(reading)


@pytest.mark.parametrize("name", ALL)
def test_sample_is_read(name):
    reading, rows = read((SAMPLES / name).read_bytes())

    dialect, links, refused = EXPECTED[name]
    assert (reading.dialect, reading.left_out) == (dialect, ())
    assert [row.record for row in rows if isinstance(row, Accepted)] == links
    assert [(row.line, row.errors[0].code) for row in rows if isinstance(row, Refused)] == refused


@pytest.mark.parametrize("name", ALL)
def test_sample_is_read_by_its_name(name):
    """Naming the format changes nothing."""
    data = (SAMPLES / name).read_bytes()
    reading, rows = read(data)

    assert read(data, dialect=reading.dialect)[1] == rows


def test_every_format_has_a_sample():
    assert {expected[0] for expected in EXPECTED.values()} == set(DIALECTS) - {"csv"}


@pytest.mark.parametrize("name", [name for name in ALL if name.endswith(".csv")])
@pytest.mark.parametrize(
    "written",
    [
        {"delimiter": ";"},
        {"delimiter": "\t"},
        {"delimiter": "|"},
        {"quoting": csv.QUOTE_ALL},
        {"lineterminator": "\r"},
    ],
    ids=str,
)
def test_sample_saved_by_a_spreadsheet_is_the_same(name, written):
    text = (SAMPLES / name).read_text("utf-8-sig")
    table = csv.reader(io.StringIO(text, newline=""), delimiter=";" if name == "shlink.csv" else ",")
    again = io.StringIO(newline="")
    csv.writer(again, **written).writerows(table)

    reading, rows = read(again.getvalue().encode("utf-16"))

    dialect, links, _ = EXPECTED[name]
    assert (reading.dialect, [row.record for row in rows if isinstance(row, Accepted)]) == (dialect, links)
