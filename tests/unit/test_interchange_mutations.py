"""Damaged samples: what is still read of them is what they say."""

from __future__ import annotations

import csv
import io
import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain import target
from app.domain.errors import InvalidInput
from app.interchange.errors import FileRefused
from app.interchange.reading import Reading
from app.interchange.records import Accepted, domain_check
from tests.unit.interchange_samples import ALL, SAMPLES

# What a line without cells is made of.
_BLANK = " ,;\t|\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0"
# Bytes that mean something to one of the formats.
_TELLING = b'""\',;|\t\r\n\\{}[]:/#=0\x00\xff'
# Numbers instead of drawn edits: ten thousand of them are cheap.
_SEEDS = st.integers(0, 2**63)


def _mutated(data: bytes, seed: int) -> bytes:
    random = Random(seed)
    made = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(made) + 1)
        byte = random.choice(_TELLING) if random.random() < 0.5 else random.randrange(256)
        match random.randrange(8):
            case 0 | 1 | 2:
                made[at : at + 1] = bytes([byte])
            case 3 | 4:
                made[at:at] = bytes([byte])
            case 5:
                del made[at : at + random.randint(1, 7)]
            case 6:
                other = random.randrange(len(made) + 1)
                made[at:at] = made[other : other + random.randint(1, 60)]
            case _:
                del made[max(at, len(made) - 40) :]
    return bytes(made)


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for member in value.values() for text in _texts(member)]
    if isinstance(value, list):
        return [text for member in value for text in _texts(member)]
    return [value if isinstance(value, str) else json.dumps(value)]


def _row_texts(data: bytes, reading: Reading, row: Accepted) -> list[list[str]]:
    """Return what independent readers take for the values of *row*; one list for each delimiter."""
    text = data.decode("utf-8-sig", "surrogateescape")
    if reading.unit == "item":
        document = json.loads(text)
        for path in (("shortUrls", "data"), ("data",), ("links",)):
            found = document
            for name in path:
                found = found.get(name) if isinstance(found, dict) else None
            if found is not None:
                document = found
                break
        items = list(document.values()) if isinstance(document, dict) else document
        return [_texts(items[row.line - 1])] if isinstance(document, list) or len(items) else []
    lines = io.StringIO(text, newline=None).read().split("\n")[row.line - 1 : row.last_line]
    if reading.dialect == "urls":
        return [[lines[0].strip(), ""]]
    if reading.unit == "line" and lines[0].lstrip().startswith("{") and lines[0].rstrip().endswith("}"):
        return [_texts(json.loads(lines[0]))]
    return [cells for mark in ",;\t|" for cells in _csv_rows("\n".join(lines), mark)]


def _csv_rows(text: str, delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        return []


def _names_target(text: str, long_url: str) -> bool:
    try:
        return target.canonical(text.strip(" \t"), own_hosts=()) == long_url
    except InvalidInput:
        return False


def _names_slug(text: str, slug: str | None) -> bool:
    return slug is None or text.strip(" \t'").strip("/").rpartition("/")[2] == slug


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None)
@given(seed=_SEEDS)
def test_mutated_sample_yields_links_that_it_names(name, seed):
    """Slug and target of an accepted link are whole values of one row, and no line is lost."""
    data = _mutated((SAMPLES / name).read_bytes(), seed)
    try:
        reading = Reading(io.BytesIO(data), check=domain_check(()))
        rows = list(reading)
    except FileRefused:
        return

    for row in rows:
        if isinstance(row, Accepted):
            texts = _row_texts(data, reading, row)
            assert any(_names(values, row) for values in texts), (row, data)
    if reading.unit == "line":
        covered = [number for row in rows for number in range(row.line, row.last_line + 1)]
        assert covered == sorted(set(covered))
        assert len(_uncovered(data, covered)) == _heads(data, reading), data


def _names(values: list[str], row: Accepted) -> bool:
    record = row.record
    return any(_names_target(text, record.fields.long_url) for text in values) and any(
        _names_slug(text, record.slug) for text in values
    )


def _uncovered(data: bytes, covered: list[int]) -> list[str]:
    """Return the lines that hold something and belong to no row."""
    text = io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline=None).read()
    return [
        line
        for number, line in enumerate(text.split("\n"), start=1)
        if number not in covered and line.strip(_BLANK) and not line.lstrip().startswith("#")
    ]


def _heads(data: bytes, reading: Reading) -> int:
    """Return how many lines name columns or a delimiter."""
    text = io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline=None).read()
    first = next((line for line in map(str.strip, text.split("\n")) if line and not line.startswith("#")), "")
    return int(reading.dialect != "urls" and not first.startswith("{"))
