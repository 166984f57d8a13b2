"""
Bulk import: a file of URLs or a CSV becomes links, in batches that happen once.

Each batch is one transaction, remembered under the digest of the file and its number. An
import that was interrupted is run again in full: what was stored before is recognised and
skipped, so nothing is stored twice and nothing is left out.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TextIO

from app.domain import rules, slug
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import DEFAULT_REDIRECT_CODE, Link, LinkFields
from app.ports import IMPORT_SCOPE, IdempotentRequest
from app.service.links import Draft, Links

BATCH = 500
_MAX_HEADER = 4096

# Column names of other shorteners' exports → ours.
_ALIASES = {
    "long_url": "long_url",
    "long url": "long_url",
    "longurl": "long_url",
    "url": "long_url",
    "target": "long_url",
    "longlink": "long_url",
    "slug": "slug",
    "short code": "slug",
    "shortcode": "slug",
    "code": "slug",
    "keyword": "slug",
    "shortlink": "slug",
    "title": "title",
    "tags": "tags",
    "redirect_code": "redirect_code",
    "valid_from": "valid_from",
    "expires_at": "expires_at",
    "expiry_time": "expires_at",
    "max_visits": "max_visits",
    "forward_query": "forward_query",
    "enabled": "enabled",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One link that a file asks for; `line` counts from 1."""

    line: int
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Imported:
    """A row that is a link now; `before` if an earlier run had stored it."""

    row: Row
    link: Link
    before: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that was left out, and why."""

    row: Row
    errors: tuple[FieldError, ...]


def rows(file: TextIO) -> Iterator[Row]:
    """
    Read *file*: CSV if its first line names a column for the target, else one URL a line.

    Empty lines, and lines that start with `#`, are passed over where URLs stand alone.

    Raises:
        InvalidInput: a CSV that cannot be read.
    """
    first = file.readline()
    # No header is this long; what is longer is a line for the rules to refuse.
    cells = first.rstrip("\r\n").split(",") if len(first) <= _MAX_HEADER else []
    names = [_ALIASES.get(cell.strip(' \t"').casefold()) for cell in cells]
    if "long_url" in names:
        yield from _csv_rows(file, names)
        return
    for number, line in enumerate(_chain(first, file), start=1):
        text = line.strip("\r\n")
        if text.strip() and not text.startswith("#"):
            yield Row(number, {"long_url": text})


def _chain(first: str, rest: Iterable[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _csv_rows(file: TextIO, names: list[str | None]) -> Iterator[Row]:
    reader = csv.reader(file)
    try:
        for cells in reader:
            if cells:
                values = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if name}
                yield Row(reader.line_num + 1, values)
    except csv.Error as error:
        line = reader.line_num + 1
        raise InvalidInput([FieldError(f"line {line}", "csv_unreadable", str(error))]) from error


async def run(
    links: Links, source: Iterable[Row], *, digest: str, own_hosts: Collection[str]
) -> AsyncIterator[list[Imported | Refused]]:
    """
    Store every row of *source* that obeys the rules; yield what became of each, batch by batch.

    Args:
        digest: names the file's contents; the same digest means the same import.

    Raises:
        Unavailable: run it again to go on where it stopped.
    """
    iterator = iter(source)
    number = 0
    while batch := list(islice(iterator, BATCH)):
        checked = [(row, _draft(row, own_hosts)) for row in batch]
        accepted = [(row, draft) for row, draft in checked if isinstance(draft, Draft)]
        request = IdempotentRequest(IMPORT_SCOPE, f"{digest}:{number}", _fingerprint(accepted))
        outcome = await links.create_many([draft for _, draft in accepted], request=request)
        results: list[Imported | Refused] = [
            Refused(row, draft) for row, draft in checked if not isinstance(draft, Draft)
        ]
        for (row, _), link in zip(accepted, outcome.links, strict=True):
            if link is None:
                results.append(Refused(row, (FieldError("slug", "slug_taken", "is taken"),)))
            else:
                results.append(Imported(row, link, outcome.replayed))
        yield sorted(results, key=lambda result: result.row.line)
        number += 1


def _draft(row: Row, own_hosts: Collection[str]) -> Draft | tuple[FieldError, ...]:
    values = row.values
    errors: list[FieldError] = []
    wanted = None
    try:
        wanted = slug.parse(values["slug"]) if values.get("slug") else None
    except InvalidInput as error:
        errors += error.errors
    try:
        fields = rules.checked(
            LinkFields(
                long_url=values.get("long_url", ""),
                title=values.get("title", ""),
                tags=tuple(
                    tag.strip() for tag in values.get("tags", "").replace("|", ",").split(",") if tag.strip()
                ),
                redirect_code=_redirect_code(values.get("redirect_code", "")),
                valid_from=_time("valid_from", values),
                expires_at=_time("expires_at", values),
                max_visits=_max_visits(values.get("max_visits", "")),
                forward_query=_flag("forward_query", values, default=False),
                enabled=_flag("enabled", values, default=True),
            ),
            own_hosts=own_hosts,
        )
    except InvalidInput as error:
        errors += error.errors
    return tuple(errors) if errors else Draft(fields, wanted)


def _redirect_code(text: str) -> int:
    if not text:
        return DEFAULT_REDIRECT_CODE
    return int(text) if text.isascii() and text.isdigit() and len(text) == 3 else 0


def _max_visits(text: str) -> int | None:
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else 0


def _flag(name: str, values: Mapping[str, str], *, default: bool) -> bool:
    text = values.get(name, "").casefold()
    if text in ("", "true", "false"):
        return text == "true" if text else default
    raise InvalidInput([FieldError(name, "flag_unreadable", "must be true or false")])


def _time(name: str, values: Mapping[str, str]) -> datetime | None:
    """Read ISO 8601, or unix seconds as some exports have them."""
    text = values.get(name, "")
    if not text:
        return None
    try:
        if text.isascii() and text.isdigit():
            return datetime.fromtimestamp(int(text), UTC)
        return datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        message = "must be ISO 8601 or unix seconds"
        raise InvalidInput([FieldError(name, "time_unreadable", message)]) from None


def _fingerprint(accepted: list[tuple[Row, Draft]]) -> bytes:
    """Digest what is stored, not what was read: under other rules it is another batch."""
    digest = hashlib.sha256()
    for row, draft in accepted:
        digest.update(repr((row.line, draft)).encode("utf-8"))
    return digest.digest()
