"""`hopgate links import`: its effects, its report, and its exit code."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import subprocess

import apsw
import pytest

from app.commands.transfer import FORMATS
from app.interchange.columns import normalised
from app.interchange.generic import GENERIC
from app.interchange.recognition import DIALECTS
from tests.integration.compose_file import ROOT
from tests.servers.hopgate import command, environment, hopgate, make_store
from tests.unit.interchange_samples import ALL, EXPECTED, SAMPLES

URLS = """https://example.com/1
# a comment

https://EXAMPLE.com/zwei
https://example.com/with space
javascript:alert(1)
https://example.com/1
"""
ESCAPE = "\x1b]0;pwned\x07\u202e\x9b"


@pytest.fixture
def settings(tmp_path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_BASE_URL": "http://hop.example"}
    make_store(settings)
    return settings


@pytest.fixture
def load(cli, settings, tmp_path):
    """Imports a text; with --json, the document stands in place of the output."""

    def run(text, *options):
        file = tmp_path / "links"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        done = cli(settings, "links", "import", str(file), *map(str, options))
        if "--json" in options and done.stdout:
            done.stdout = json.loads(done.stdout)
        return done

    return run


@pytest.fixture
def exported(cli, settings):
    """Returns the rows of an export, by slug."""

    def run():
        done = cli(settings, "links", "export")
        return {row["slug"]: row for row in map(json.loads, done.stdout.splitlines())}

    return run


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


# --- effects and report ----------------------------------------------------------------


def test_rows_that_obey_the_rules_are_stored_and_the_others_told(load, exported, tmp_path):
    output, refused = tmp_path / "links.csv", tmp_path / "refused.csv"

    done = load(URLS, "--output", output, "--refused", refused)

    assert done.returncode == 1
    assert "3 links imported, 2 lines refused" in done.stderr
    assert "line 6: javascript:alert(1)" in done.stderr
    rows = table(output)
    assert [(row["line"], row["long_url"]) for row in rows] == [
        ("1", "https://example.com/1"),
        ("4", "https://example.com/zwei"),
        ("7", "https://example.com/1"),
    ]
    assert {row["slug"]: row["long_url"] for row in rows} == {
        slug: link["long_url"] for slug, link in exported().items()
    }
    assert [(row["line"], row["code"]) for row in table(refused)] == [
        ("5", "url_forbidden_character"),
        ("6", "url_scheme"),
    ]


def test_refused_rows_may_be_allowed(load):
    assert load(URLS, "--allow-refused").returncode == 0
    assert load("https://example.com/1\n").returncode == 0


@pytest.mark.parametrize("name", ALL)
def test_sample_of_every_format_is_imported(cli, settings, exported, name):
    """With slugs, titles, tags, times and click totals; the document has what the summary says."""
    form, records, refused = EXPECTED[name]

    done = cli(settings, "links", "import", str(SAMPLES / name), "--json")

    told = json.loads(done.stdout)
    assert (told["format"], told["imported"], told["refused"]) == (
        form,
        len(records),
        len(refused_rows(refused)),
    )
    assert done.returncode == (1 if refused else 0)
    stored = exported()
    for record in records:
        if record.slug is not None:
            link = stored[record.slug]
            assert (link["long_url"], link["title"], link["visits"], link["spent_visits"]) == (
                record.fields.long_url,
                record.fields.title,
                record.visits,
                record.spent_visits,
            )
    assert len(stored) == len(records)


DOCUMENTED = re.findall(
    r"^```(\w+) ([\w.-]+)\n(.*?)^```$", (ROOT / "docs" / "import.md").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize(("kind", "form", "text"), DOCUMENTED, ids=lambda part: part[:12])
def test_documented_example_is_imported(load, kind, form, text):
    done = load(text, "--json", "--dry-run")

    assert (done.stdout["format"], done.stdout["imported"], done.stdout["refused"]) == (form, 1, 0)


def test_every_format_has_an_example():
    assert {form for _, form, _ in DOCUMENTED} == set(DIALECTS)


def test_every_column_is_documented():
    text = (ROOT / "docs" / "import.md").read_text().partition("may have these columns")[2]
    named = re.findall(r"`([^`]+)`", text.partition("\n\nExport and import")[0])

    assert {normalised(name) for name in named} == set(GENERIC.columns)


def refused_rows(refused):
    return {line for line, _ in refused}


def test_dry_run_stores_nothing_and_tells_the_same(load, exported, tmp_path):
    text = "slug,long_url\none-1,https://example.com/1\none-1,https://example.com/2\n,javascript:x\n"

    dry = load(text, "--dry-run", "--json", "--refused", tmp_path / "refused.csv")
    assert exported() == {}
    real = load(text, "--json")

    assert dry.stdout | {"dry_run": False} == real.stdout
    assert (dry.returncode, real.stdout["imported"], real.stdout["refused"]) == (1, 1, 2)
    assert [row["code"] for row in table(tmp_path / "refused.csv")] == ["slug_taken", "url_scheme"]


def test_dry_run_says_so(load):
    assert (
        "1 link imported, 0 lines refused (format urls; dry run, nothing is stored)"
        in load("https://example.com/1\n", "--dry-run").stderr
    )


def test_columns_that_restrict_are_refused_unless_ignored(load, exported):
    text = "code,target,password,colour\nslk002,https://example.com/s2,hunter2,red\n"

    refused = load(text)
    assert (refused.returncode, exported()) == (1, {})
    assert "password restricts the link" in refused.stderr
    assert "columns left out: colour" in refused.stderr

    ignored = load(text, "--ignore", "Password", "--json")
    assert (ignored.returncode, list(exported())) == (0, ["slk002"])
    assert ignored.stdout["ignored_columns"] == ["password", "colour"]


def test_update_changes_links_that_exist(load, exported):
    load("slug,long_url,title\none-1,https://example.com/,Old\n")
    text = "slug,long_url,title\none-1,https://example.com/,New\n"

    refused = load(text)
    assert "1 × slug is taken by a link with the same target and other fields" in refused.stderr
    updated = load(text, "--update")

    assert "0 links imported, 1 updated, 0 lines refused" in updated.stderr
    assert (exported()["one-1"]["title"], updated.returncode) == ("New", 0)


def test_file_imported_again_is_there_already(load, tmp_path):
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    load(URLS, "--output", first)

    again = load(URLS, "--output", second)

    assert "0 links imported, 3 already there, 2 lines refused" in again.stderr
    assert second.read_text() == first.read_text()


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_export_is_imported_elsewhere_exactly(cli, settings, exported, tmp_path, form):
    cli(settings, "links", "import", str(SAMPLES / "hopgate.csv"))
    before, file = exported(), tmp_path / "export"
    cli(settings, "links", "export", "--format", form, "--output", str(file))
    elsewhere = {**settings, "HOPGATE_DATA_DIR": str(tmp_path / "elsewhere")}
    make_store(elsewhere)

    done = cli(elsewhere, "links", "import", str(file))

    assert "3 links imported, 0 lines refused" in done.stderr
    rows = cli(elsewhere, "links", "export").stdout.splitlines()
    after = {row["slug"]: row for row in map(json.loads, rows)}
    for row in (*before.values(), *after.values()):
        del row["version"], row["updated_at"]
    assert after == before
    assert list(after) == list(before)


# --- files that are refused ------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Long URL;Farbe;Kurzlink\nhttps://example.com/semi;rot;semi1\n", "may be the short link"),
        ("Ziel;Farbe\nhttps://example.com/semi;rot\n", "names columns of no known format: ‘Ziel’, ‘Farbe’"),
        (b"https://example.com/" + b"a" * 5_000_000, "line 1 is too long to be a header or a URL"),
        (b"PK\x03\x04rest", "is a ZIP archive or a workbook"),
        (b"\xff\xfe\x00", "is UTF-16 and ends inside a character"),
        ('{"a": 1}', "names columns of no known format"),
        (f"{ESCAPE},b\n1,2\n", "names columns of no known format"),
    ],
)
def test_file_that_is_not_recognised_is_one_line(load, exported, tmp_path, content, message):
    output = tmp_path / "links.csv"
    output.write_text("before\n")

    done = load(content, "--output", output)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("hopgate: cannot import ")
    assert message in done.stderr
    assert done.stderr.rstrip("\n").isprintable()
    assert (exported(), output.read_text()) == ({}, "before\n")


def test_unknown_format_names_those_that_exist(load):
    done = load("https://example.com/\n", "--format", "nosuch")

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert all(name in done.stderr for name in DIALECTS)
    assert set(FORMATS) == set(DIALECTS)


@pytest.mark.parametrize(
    ("content", "code", "summary"),
    [
        (b"", 0, "0 links imported, 0 lines refused"),
        (b"\xef\xbb\xbfhttps://example.com/bom\r\n", 0, "1 link imported, 0 lines refused"),
        ("https://example.com/utf-16\n".encode("utf-16"), 0, "1 link imported, 0 lines refused"),
        (b"https://example.com/no-newline", 0, "note: the last line has no line end"),
        (
            b"https://example.com/\nhttps://example.com/" + b"a" * 5_000_000,
            1,
            "1 link imported, 1 line refused",
        ),
        (b"long_url,title\nhttps://example.com/,\x00\n", 1, "0 links imported, 1 line refused"),
        (b"long_url\n", 0, "0 links imported, 0 lines refused"),
        (
            b'long_url\n"' + b"x" * 200_000 + b'"\nhttps://example.com/\n',
            1,
            "1 link imported, 1 line refused",
        ),
        (b'[{"long_url": "https://example.com/"}, 5]', 1, "1 link imported, 1 item refused"),
    ],
)
def test_odd_files_are_imported_as_far_as_they_go(load, content, code, summary):
    done = load(content)

    assert summary in done.stderr
    assert done.returncode == code


def test_file_acts_neither_on_a_terminal_nor_on_a_spreadsheet(load, tmp_path):
    refused, output = tmp_path / "refused.csv", tmp_path / "links.csv"
    text = (
        f"slug,long_url,x{ESCAPE}\n-dash,https://example.com/,\na/b,javascript:{ESCAPE},\n"
        '=1+1,"=HYPERLINK(""http://evil.example"",""x"")",\n'
    ).replace("]0;", "]0:")
    done = load(text, "--refused", refused, "--output", output)
    as_json = load(text, "--json", "--dry-run")

    assert all(line.isprintable() for line in done.stderr.splitlines())
    assert "1 link imported, 2 lines refused" in done.stderr
    told = as_json.stdout
    texts = [text for reason in told["reasons"] for text in (reason["message"], *reason["examples"])]
    assert all(text.isprintable() for text in (*texts, *told["ignored_columns"], *told["notes"]))
    for file in (refused, output):
        cells = [cell for row in csv.reader(io.StringIO(file.read_text())) for cell in row]
        assert not [cell for cell in cells if cell.startswith(tuple("=+-@"))], cells
        assert all(cell.isprintable() for cell in cells)


# --- files and pipes -------------------------------------------------------------------


def test_import_never_writes_over_a_file_that_it_reads(cli, settings, tmp_path):
    file = tmp_path / "urls.txt"
    file.write_text(URLS)

    for options in (("--output", file), ("--refused", file), ("--output", "x", "--refused", "x")):
        done = cli(settings, "links", "import", str(file), *map(str, options))
        assert done.returncode == 1
        assert "three different files" in done.stderr
    assert file.read_text() == URLS


def test_output_of_a_dry_run_is_refused(load, tmp_path):
    done = load(URLS, "--dry-run", "--output", tmp_path / "links.csv")

    assert (done.returncode, (tmp_path / "links.csv").exists()) == (1, False)


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_import_from_a_pipe(settings, name):
    done = subprocess.run(
        command("links", "import", name),
        env=environment(settings),
        input="slug,long_url\none-1,https://example.com/1\n",
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (0, "")
    assert "1 link imported, 0 lines refused" in done.stderr


def test_import_that_was_killed_goes_on_where_it_stopped(settings, tmp_path):
    """Killed at any moment and run again: every line is a link, once."""
    file, output = tmp_path / "urls.txt", tmp_path / "links.csv"
    file.write_text("".join(f"https://example.com/{i}\n" for i in range(5000)))
    for patience in (1.0, 1.4):
        with contextlib.suppress(subprocess.TimeoutExpired):
            hopgate(settings, "links", "import", str(file), timeout=patience)  # killed when over

    done = hopgate(settings, "links", "import", str(file), "--output", str(output))

    assert done.returncode == 0, done.stderr
    rows = table(output)
    assert [row["long_url"] for row in rows] == [f"https://example.com/{i}" for i in range(5000)]
    assert len({row["slug"] for row in rows}) == 5000
    with apsw.Connection(f"{settings['HOPGATE_DATA_DIR']}/hopgate.db") as db:
        assert db.execute("SELECT count(*) FROM links").get == 5000
