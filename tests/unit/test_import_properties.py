"""Any file into a real store: every row is stored exactly, or refused with its line, and nothing between."""

from __future__ import annotations

import asyncio
import csv
import io
import shutil
import tempfile
from contextlib import aclosing
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.adapters.sqlite.store import SqliteStore
from app.domain.domains import DomainIndex
from app.interchange import writing
from app.interchange.errors import FileRefused
from app.interchange.hopgate_format import CODECS
from app.interchange.records import Refused
from app.interchange.report import Outcome
from app.migrations import migrate
from tests.budgets import examples
from tests.unit.imports import everything, run
from tests.unit.interchange_links import COUNTS, FIELDS, LINKS, SLUGS


class Files:
    """SQLite files that are empty each time; the properties know no power cuts, so they are in memory."""

    def __init__(self, folder: Path) -> None:
        self._template, self.path = folder / "template.db", folder / "links.db"
        migrate(f"sqlite:///{self._template}")
        db = apsw.Connection(str(self._template))
        db.pragma("journal_mode", "delete")
        db.close()

    def play(self, play):
        """Return the result of the coroutine function *play*, given an empty store."""

        async def opened():
            for path in self.path.parent.glob("links.db*"):
                path.unlink()
            shutil.copy(self._template, self.path)
            async with aclosing(await SqliteStore.open(self.path)) as store:
                return await play(store)

        return asyncio.run(opened())


@pytest.fixture(scope="module")
def files():
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Files(Path(folder))


def carried(link, spent):
    return (link.slug, link.fields, link.created_at, link.visits, spent)


DOMAINS = DomainIndex("https://hop.example")
FORMATS = {
    "csv": lambda links: writing.csv_header() + "".join(writing.csv_rows(links, DOMAINS)),
    "jsonl": lambda links: "".join(writing.json_rows(links, DOMAINS)),
}
MANY = st.lists(st.tuples(LINKS, COUNTS), max_size=4, unique_by=lambda pair: pair[0].slug)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=examples(60))
@given(links=MANY)
def test_export_imported_elsewhere_is_the_same_export(files, form, links):
    """But for what the new store counts itself: versions, and when a link changed."""

    async def play(store):
        results = await run(store, FORMATS[form](links))
        assert [result.outcome for result in results] == [Outcome.IMPORTED] * len(links)
        return await everything(store)

    found = files.play(play)

    assert [carried(*one) for one in found] == [carried(*one) for one in links]
    assert [carried(*one) for one in files.play(lambda store: _again(store, FORMATS[form](found)))] == [
        carried(*one) for one in links
    ]


async def _again(store, text):
    await run(store, text)
    assert {result.outcome for result in await run(store, text)} <= {Outcome.SAME}
    return await everything(store)


# What a program may write, beside links: cells of any text, in any number and order of columns.
_CELLS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "0", "true", "https://example.com/", "=1+1", "'=1", "a\nb", 'a"b', "1,2", "a;b"]),
)
_ROWS = st.tuples(SLUGS, FIELDS, st.dictionaries(st.sampled_from(list(CODECS)), _CELLS, max_size=2))


def _row(slug, fields, odd):
    values = {name: getattr(fields, name, None) for name in CODECS} | {"slug": slug, "visits": 0}
    cells = {name: "" if value is None else CODECS[name].write(value) for name, value in values.items()}
    return {**cells, **odd}


@settings(max_examples=examples(100))
@given(
    rows=st.lists(_ROWS, max_size=5),
    columns=st.permutations(list(CODECS)),
    width=st.integers(2, len(CODECS)),
    form=st.sampled_from([None, "csv"]),
    dialect=st.fixed_dictionaries(
        {
            "delimiter": st.sampled_from(",;\t|"),
            "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
            "lineterminator": st.sampled_from(["\n", "\r\n"]),
        }
    ),
)
def test_written_csv_is_imported_exactly_or_refused(files, rows, columns, width, dialect, form):
    """Any delimiter, quoting and choice of columns: what `csv` reads back of a row is what its link has."""
    columns = [*columns[:width], *(name for name in ("slug", "long_url") if name not in columns[:width])]
    file = io.StringIO()
    writer = csv.writer(file, **dialect)
    writer.writerow(columns)
    given_rows = [_row(*row) for row in rows]
    for row in given_rows:
        writer.writerow([row[name] for name in columns])
    text = file.getvalue()

    async def play(store):
        try:
            results = await run(store, text.encode("utf-8", "surrogatepass"), dialect=form)
        except FileRefused:
            return None, await everything(store)
        return results, await everything(store)

    results, stored = files.play(play)

    if results is None:
        assert stored == []
        return
    read = _numbered(text, dialect)
    filled = {line for line, cells in read.items() if any(cell.strip() for cell in cells)}
    assert filled <= {_line(result) for result in results} | {1}, (text, results)
    by_slug = {link.slug: link for link, _ in stored}
    made = set()
    for result in results:
        if isinstance(result, Refused):
            assert result.errors
            assert result.line >= 2
            continue
        row = dict(zip(columns, read[result.row.line], strict=True))
        link = by_slug[result.link.slug]
        made.add(link.slug)
        assert row["slug"].strip(" \t") in ("", link.slug)
        if result.outcome is Outcome.IMPORTED:
            assert _says(row, link), (row, link)
    assert made == set(by_slug)


def _line(result):
    return result.line if isinstance(result, Refused) else result.row.line


def _numbered(text, dialect):
    """Return the rows that `csv` reads, by the line that each begins in."""
    reader = csv.reader(io.StringIO(text, newline=""), **dialect)
    found, line = {}, 1
    for cells in reader:
        found[line] = cells
        line = reader.line_num + 1
    return found


def _says(row, link):
    """Is every cell of *row* what *link* has, as an independent reading of the cell?"""
    numbers = {
        "redirect_code": link.fields.redirect_code,
        "max_visits": link.fields.max_visits,
        "visits": link.visits,
    }
    said = [
        not cell.strip() or int(cell) == value for name, value in numbers.items() if (cell := row.get(name))
    ]
    is_on = row.get("enabled", "").strip().lower()
    said.append(is_on in (("", "true", "1") if link.fields.enabled else ("false", "0")))
    # Hopgate's own format guards a title that looks like a formula.
    return all(said) and row.get("title", "") in (link.fields.title, f"'{link.fields.title}")
