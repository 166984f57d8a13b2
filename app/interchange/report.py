"""What became of an import: counts that add up, reasons with examples, and a file of refused rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from app.domain.errors import FieldError
from app.interchange.inert import report_cell, terminal_safe
from app.interchange.records import Refused

_EXAMPLES = 3
_SHOWN = 80
_COLUMNS = ("line", "last_line", "field", "code", "reason", "text")


class Outcome(Enum):
    """What became of an accepted row, or would become of it in a dry run."""

    IMPORTED = auto()
    UPDATED = auto()
    SAME = auto()  # the same link is there already


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why rows were refused, of how many, and the first few. Safe to print."""

    field: str
    code: str
    message: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """
    What became of every row: `read` = `imported` + `updated` + `same` + `refused`.

    A row has one reason or more, so theirs do not add up to `refused`. All texts are safe to print.
    """

    read: int
    imported: int
    updated: int
    same: int
    refused: int
    reasons: tuple[Reason, ...]
    ignored_columns: tuple[str, ...]
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.read != self.imported + self.updated + self.same + self.refused:
            message = f"rows are lost: {self}"
            raise AssertionError(message)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a file of the format `form`, whose rows are counted in `unit`."""

    form: str
    unit: str
    dry_run: bool
    summary: Summary

    def document(self) -> dict[str, object]:
        """Return it for programs."""
        summary = self.summary
        return {
            "format": self.form,
            "dry_run": self.dry_run,
            "read": summary.read,
            "imported": summary.imported,
            "updated": summary.updated,
            "same": summary.same,
            "refused": summary.refused,
            "reasons": summary.reasons,
            "ignored_columns": summary.ignored_columns,
            "notes": summary.notes,
        }


class Tally:
    """
    Counts rows while an import runs.

    Args:
        unit: what rows are counted in, `line` or `item`.
    """

    def __init__(self, unit: str = "line") -> None:
        self._unit = unit
        self._read = 0
        self._outcomes = dict.fromkeys(Outcome, 0)
        self._refused = 0
        self._reasons: dict[tuple[str, str], tuple[str, int, tuple[str, ...]]] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How many rows were read so far, and what became of them; the names are those of `Summary`."""
        outcomes = {outcome.name.lower(): rows for outcome, rows in self._outcomes.items()}
        return {"read": self._read, **outcomes, "refused": self._refused}

    @property
    def accepted(self) -> int:
        """How many rows were accepted so far."""
        return sum(self._outcomes.values())

    def read(self) -> None:
        """Count a row that came out of the file."""
        self._read += 1

    def accept(self, outcome: Outcome) -> None:
        """Count what became of an accepted row."""
        self._outcomes[outcome] += 1

    def refuse(self, row: Refused) -> None:
        """Count a refused row, whether the file or the store refused it."""
        self._refused += 1
        example = f"{_place(self._unit, row)}: {terminal_safe(row.text, _SHOWN)}"
        # A rule may be broken twice in one row, which is one row nonetheless.
        for error in {(error.field, error.code): error for error in row.errors}.values():
            key = (error.field, error.code)
            message, rows, examples = self._reasons.get(key, (terminal_safe(error.message), 0, ()))
            if len(examples) < _EXAMPLES:
                examples = (*examples, example)
            self._reasons[key] = (message, rows + 1, examples)

    def summary(self, *, ignored_columns: Iterable[str] = (), notes: Iterable[str] = ()) -> Summary:
        """Return the counts; each row that was read must be counted once as accepted or refused."""
        reasons = [
            Reason(terminal_safe(field, _SHOWN), code, message, rows, examples)
            for (field, code), (message, rows, examples) in self._reasons.items()
        ]
        return Summary(
            read=self._read,
            imported=self._outcomes[Outcome.IMPORTED],
            updated=self._outcomes[Outcome.UPDATED],
            same=self._outcomes[Outcome.SAME],
            refused=self._refused,
            reasons=tuple(sorted(reasons, key=lambda reason: -reason.rows)),
            ignored_columns=tuple(terminal_safe(name, _SHOWN) for name in ignored_columns),
            notes=tuple(map(terminal_safe, notes)),
        )


def _place(unit: str, row: Refused) -> str:
    return f"{unit} {row.line}" if row.line == row.last_line else f"{unit}s {row.line}–{row.last_line}"


def refused_header() -> str:
    """Return the first line of the file of refused rows, a CSV."""
    return _line(_COLUMNS)


def refused_rows(row: Refused) -> str:
    """Return the lines for *row*, one for each reason; harmless on a terminal and in a spreadsheet."""
    return "".join(_line(_cells(row, error)) for error in row.errors)


def _cells(row: Refused, error: FieldError) -> list[str]:
    texts = (error.field, error.code, error.message, row.text)
    return [str(row.line), str(row.last_line), *map(report_cell, texts)]


def _line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
