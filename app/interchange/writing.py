"""
Exports: what `reading` gives back exactly.

Slug, aliases, every link field, creation, visits, spent visits and the owner survive the way out and in;
versions and times of change do not. A CSV cell never is a formula to a spreadsheet.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import assert_never

import msgspec

from app.domain import utm
from app.domain.domains import DomainIndex
from app.domain.link import Link
from app.domain.link_key import name_of
from app.interchange.hopgate_format import CODECS
from app.interchange.inert import guarded

_encoder = msgspec.json.Encoder()


class ExportFormat(StrEnum):
    """An import takes either back, exactly; JSON lines also have short URL and version."""

    JSONL = "jsonl"
    CSV = "csv"


def header(form: ExportFormat) -> str:
    """Return what an export begins with."""
    return csv_header() if form is ExportFormat.CSV else ""


def rows(form: ExportFormat, links: Iterable[tuple[Link, int]], domains: DomainIndex) -> Iterator[str]:
    """Yield a line for each link and the visits that its limit has given out."""
    match form:
        case ExportFormat.CSV:
            return csv_rows(links, domains)
        case ExportFormat.JSONL:
            return json_rows(links, domains)
        case _:
            assert_never(form)


def csv_header() -> str:
    """Return the first line of a CSV export."""
    return _line(CODECS)


def csv_rows(links: Iterable[tuple[Link, int]], domains: DomainIndex) -> Iterator[str]:
    """Yield a line of CSV for each link and the visits that its limit has given out."""
    for link, spent_visits in links:
        values = _values(link, spent_visits, domains)
        yield _line(
            "" if (value := values[name]) is None else guarded(codec.write(value))
            for name, codec in CODECS.items()
        )


def json_rows(links: Iterable[tuple[Link, int]], domains: DomainIndex) -> Iterator[str]:
    """Yield a line of JSON for each link and the visits that its limit has given out."""
    for link, spent_visits in links:
        document = {
            "slug": name_of(link.slug),
            "short_url": domains.short_url(link.slug),
            **_values(link, spent_visits, domains),
            "version": link.version,
            "updated_at": link.updated_at,
        }
        yield _encoder.encode(document).decode() + "\n"


def _values(link: Link, spent_visits: int, domains: DomainIndex) -> dict[str, object]:
    domain = domains.of(link.slug)
    found: dict[str, object] = {
        "slug": name_of(link.slug),
        # The default one may have another host where the file is read.
        "domain": None if domain.is_default else domain.host,
        "aliases": tuple(map(domains.shown, link.aliases)),
        "created_at": link.created_at,
        "visits": link.visits,
        "spent_visits": spent_visits,
        "owner": link.owner,
        **utm.shown(link.fields.long_url),
    }
    return {name: found[name] if name in found else getattr(link.fields, name) for name in CODECS}


def _line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def failure(form: ExportFormat, reason: str) -> str:
    """Return a line that says why the rest of an export is missing; no reading takes it for a link."""
    match form:
        case ExportFormat.CSV:
            return _line([f"error: {reason}"])
        case ExportFormat.JSONL:
            return _encoder.encode({"error": reason}).decode() + "\n"
        case _:
            assert_never(form)
