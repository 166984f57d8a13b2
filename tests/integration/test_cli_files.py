"""The command line and files: imports, exports, and disks that are full."""

from __future__ import annotations

import contextlib
import csv
import json
import subprocess

import pytest

from tests.servers.hopgate import UNREACHABLE, command, environment, hopgate


@pytest.fixture
def settings(tmp_path):
    return {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_BASE_URL": "http://hop.example"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("links", "import", "urls.txt", "--output", "/dev/full"),
        ("links", "import", "urls.txt", "--refused", "/dev/full"),
        ("links", "export", "--output", "/dev/full"),
        ("links", "export"),
        ("keys", "list"),
    ],
)
def test_a_full_disk_is_one_line(settings, tmp_path, arguments):
    (tmp_path / "urls.txt").write_text("https://example.com/1\n")
    assert hopgate(settings, "links", "create", "https://example.com").returncode == 0
    assert hopgate(settings, "keys", "create", "x").returncode == 0

    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            command(*arguments),
            env=environment(settings),
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "hopgate: No space left on device"
    assert "Traceback" not in done.stderr
    assert "exported" not in done.stderr


# --- export ----------------------------------------------------------------------------


def test_an_export_that_fails_leaves_the_one_before(settings, tmp_path):
    output = tmp_path / "exports" / "links.jsonl"
    output.parent.mkdir()
    output.write_text("yesterday's\n")

    done = hopgate({**settings, **UNREACHABLE}, "links", "export", "--output", str(output))

    assert done.returncode == 1
    assert "postgresql is unavailable" in done.stderr
    assert output.read_text() == "yesterday's\n"
    assert list(output.parent.iterdir()) == [output]


def test_an_export_takes_the_place_of_the_one_before(settings, tmp_path):
    """Behind the same link, with the same permissions."""
    output, link = tmp_path / "exports" / "links.jsonl", tmp_path / "latest"
    output.parent.mkdir()
    output.write_text("yesterday's\n" * 100)
    output.chmod(0o640)
    link.symlink_to(output)
    hopgate(settings, "links", "create", "https://example.com", "--slug", "mine")

    done = hopgate(settings, "links", "export", "--output", str(link))

    assert done.returncode == 0, done.stderr
    assert json.loads(output.read_text())["slug"] == "mine"
    assert (link.is_symlink(), output.stat().st_mode & 0o777) == (True, 0o640)
    assert list(output.parent.iterdir()) == [output]


def test_an_export_may_go_to_a_pipe_by_name(settings):
    hopgate(settings, "links", "create", "https://example.com", "--slug", "mine")

    done = hopgate(settings, "links", "export", "--output", "/dev/stdout")

    assert json.loads(done.stdout)["slug"] == "mine"


@pytest.mark.parametrize("output", ["/proc/no", "/", "missing/links.jsonl"])
def test_an_export_that_cannot_be_written_is_one_line(settings, output):
    done = hopgate(settings, "links", "export", "--output", output)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"hopgate: cannot open {output}: ")


# --- import ----------------------------------------------------------------------------

URLS = """https://example.com/1
# a comment

https://EXAMPLE.com/zwei
https://example.com/with space
javascript:alert(1)
https://example.com/1
"""


def test_an_import_stores_what_obeys_the_rules_and_says_what_did_not(settings, tmp_path):
    file, output, refused = tmp_path / "urls.txt", tmp_path / "links.csv", tmp_path / "refused.csv"
    file.write_text(URLS)

    done = hopgate(settings, "links", "import", str(file), "--output", str(output), "--refused", str(refused))

    assert done.returncode == 0, done.stderr
    assert "3 links imported, 2 lines refused" in done.stderr
    rows = table(output)
    assert [(row["line"], row["long_url"]) for row in rows] == [
        ("1", "https://example.com/1"),
        ("4", "https://example.com/zwei"),
        ("7", "https://example.com/1"),
    ]
    assert len({row["slug"] for row in rows}) == 3
    assert [(row["line"], row["code"]) for row in table(refused)] == [
        ("5", "url_forbidden_character"),
        ("6", "url_scheme"),
    ]
    for row in rows:
        assert (
            json.loads(hopgate(settings, "links", "get", row["slug"]).stdout)["long_url"] == row["long_url"]
        )


def test_an_import_never_writes_over_a_file_that_it_reads(settings, tmp_path):
    file = tmp_path / "urls.txt"
    file.write_text(URLS)

    for options in (("--output", file), ("--refused", file), ("--output", "x", "--refused", "x")):
        done = hopgate(settings, "links", "import", str(file), *map(str, options))
        assert done.returncode == 1
        assert "three different files" in done.stderr
    assert file.read_text() == URLS


def test_an_import_from_a_pipe_is_refused(settings, tmp_path):
    """It could be read but once; a file given as standard input is as good as any."""
    file, output = tmp_path / "urls.txt", tmp_path / "links.csv"
    file.write_text("https://example.com/1\n")
    output.write_text("before\n")
    run = command("links", "import", "/dev/stdin", "--output", str(output))

    piped = subprocess.run(
        run, env=environment(settings), input=file.read_text(), capture_output=True, text=True, timeout=60
    )
    assert piped.returncode == 1
    assert piped.stderr.startswith("hopgate: cannot import /dev/stdin: ")
    assert piped.stderr.count("\n") == 1
    assert output.read_text() == "before\n"

    with file.open() as given:
        redirected = subprocess.run(
            run, env=environment(settings), stdin=given, capture_output=True, text=True, timeout=60
        )
    assert "1 link imported" in redirected.stderr


def test_an_import_of_chosen_slugs_run_again_recognises_them(settings, tmp_path):
    file, first, second = tmp_path / "export.csv", tmp_path / "1.csv", tmp_path / "2.csv"
    file.write_text("slug,long_url\none,https://example.com/1\ntwo,https://example.com/2\n")

    hopgate(settings, "links", "import", str(file), "--output", str(first))
    again = hopgate(settings, "links", "import", str(file), "--output", str(second))

    assert "0 links imported, 2 were there from an earlier run, 0 lines refused" in again.stderr
    assert second.read_text() == first.read_text()


def test_an_import_run_again_under_other_rules_pairs_nothing_wrongly(settings, tmp_path):
    """The second line becomes the service's own host: the batch is another one, and is refused."""
    file = tmp_path / "urls.txt"
    file.write_text("https://e.example/1\nhttps://other.example/2\nhttps://e.example/3\n")
    assert hopgate(settings, "links", "import", str(file)).returncode == 0

    changed = {**settings, "HOPGATE_BASE_URL": "https://other.example"}
    again = hopgate(changed, "links", "import", str(file))

    assert again.returncode == 1
    assert "imported under other rules" in again.stderr


def test_an_import_run_again_stores_nothing_twice_and_tells_the_same_links(settings, tmp_path):
    file, first, second = tmp_path / "urls.txt", tmp_path / "1.csv", tmp_path / "2.csv"
    file.write_text(URLS)

    hopgate(settings, "links", "import", str(file), "--output", str(first))
    again = hopgate(settings, "links", "import", str(file), "--output", str(second))

    assert "0 links imported, 3 were there from an earlier run, 2 lines refused" in again.stderr
    assert second.read_text() == first.read_text()


def test_an_interrupted_import_goes_on_where_it_stopped(settings, tmp_path):
    """Killed at any moment and run again: every line is a link, once."""
    file, output = tmp_path / "urls.txt", tmp_path / "links.csv"
    file.write_text("".join(f"https://example.com/{i}\n" for i in range(5000)))
    for patience in (0.7, 0.9, 1.2):
        with contextlib.suppress(subprocess.TimeoutExpired):
            hopgate(settings, "links", "import", str(file), timeout=patience)  # killed when over

    done = hopgate(settings, "links", "import", str(file), "--output", str(output))

    assert done.returncode == 0, done.stderr
    rows = table(output)
    assert [row["long_url"] for row in rows] == [f"https://example.com/{i}" for i in range(5000)]
    assert len({row["slug"] for row in rows}) == 5000
    assert total_links(settings) == 5000


def table(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def total_links(settings) -> int:
    import apsw

    with apsw.Connection(f"{settings['HOPGATE_DATA_DIR']}/hopgate.db") as db:
        return db.execute("SELECT count(*) FROM links").get


def test_a_csv_keeps_its_slugs_titles_and_tags(settings, tmp_path):
    file = tmp_path / "export.csv"
    file.write_text(
        "Short code,Long URL,Title,Tags,Clicks\n"
        'abc-1,https://example.com/a,"One, two",x|y,5\n'
        ",https://example.com/b,,,\n"
        "api,https://example.com/c,,,\n"
        "abc-1,https://example.com/d,,,\n"
    )

    done = hopgate(settings, "links", "import", str(file))

    assert "2 links imported, 2 lines refused" in done.stderr
    assert "slug is reserved" in done.stderr
    assert "slug is taken" in done.stderr
    link = json.loads(hopgate(settings, "links", "get", "abc-1").stdout)
    assert (link["long_url"], link["title"], link["tags"]) == (
        "https://example.com/a",
        "One, two",
        ["x", "y"],
    )


def test_a_csv_keeps_its_limits_of_visits(settings, tmp_path):
    file, again = tmp_path / "export.csv", tmp_path / "again.csv"
    file.write_text(
        "long_url,slug,max_visits\n"
        "https://example.com/a,few-a,5\n"
        "https://example.com/b,few-b,\n"
        "https://example.com/c,few-c,0\n"
        "https://example.com/d,few-d,many\n"
    )

    done = hopgate(settings, "links", "import", str(file))

    assert "2 links imported, 2 lines refused" in done.stderr
    assert "max_visits must be 1 to" in done.stderr
    hopgate(settings, "links", "export", "--format", "csv", "--output", str(again))
    limits = {row["slug"]: row["max_visits"] for row in csv.DictReader(again.read_text().splitlines())}
    assert {slug: limits[slug] for slug in ("few-a", "few-b")} == {"few-a": "5", "few-b": ""}


def test_a_csv_keeps_links_that_do_not_redirect_as_they_are(settings, tmp_path):
    file, again = tmp_path / "export.csv", tmp_path / "again.csv"
    file.write_text(
        "long_url,slug,valid_from,forward_query,enabled\n"
        "https://example.com/a,off,,,false\n"
        "https://example.com/b,later,2999-01-01T00:00:00+00:00,true,\n"
        "https://example.com/c,odd,,,maybe\n"
    )

    done = hopgate(settings, "links", "import", str(file))

    assert "2 links imported, 1 line refused" in done.stderr
    assert "enabled must be true or false" in done.stderr
    hopgate(settings, "links", "export", "--format", "csv", "--output", str(again))
    rows = {row["slug"]: row for row in csv.DictReader(again.read_text().splitlines())}
    columns = ("valid_from", "forward_query", "enabled")
    assert {slug: tuple(rows[slug][column] for column in columns) for slug in ("off", "later")} == {
        "off": ("", "false", "false"),
        "later": ("2999-01-01T00:00:00+00:00", "true", "true"),
    }


@pytest.mark.parametrize(
    ("content", "summary"),
    [
        (b"", "0 links imported, 0 lines refused"),
        (b"\xff\xfe\x00", "0 links imported, 1 line refused"),
        (b"\xef\xbb\xbfhttps://example.com/bom\r\n", "1 link imported, 0 lines refused"),
        (b"https://example.com/no-newline", "1 link imported, 0 lines refused"),
        (b"https://example.com/" + b"a" * 5_000_000, "0 links imported, 1 line refused"),
        (b"long_url,title\nhttps://example.com/,\x00\n", "0 links imported, 1 line refused"),
        (b"long_url\n", "0 links imported, 0 lines refused"),
    ],
)
def test_odd_files_are_imported_as_far_as_they_go(settings, tmp_path, content, summary):
    file = tmp_path / "odd"
    file.write_bytes(content)

    done = hopgate(settings, "links", "import", str(file))

    assert done.returncode == 0, done.stderr
    assert summary in done.stderr


def test_a_broken_csv_is_one_line(settings, tmp_path):
    file = tmp_path / "broken.csv"
    file.write_text('long_url\n"' + "x" * 200_000 + '"\n')

    done = hopgate(settings, "links", "import", str(file))

    assert done.returncode == 1
    assert "hopgate: line 2" in done.stderr
