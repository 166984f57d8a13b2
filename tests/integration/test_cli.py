"""The `hopgate` command: what it prints, what it stores, and how it fails."""

from __future__ import annotations

import contextlib
import csv
import json
import socket
import subprocess
import sys

import pytest

from tests.servers.hopgate import command, environment, hopgate

UNREACHABLE = {
    "HOPGATE_DATABASE_URL": "postgresql://u:geheim@127.0.0.1:1/d",
    "HOPGATE_REDIS_URL": "redis://:geheim@127.0.0.1:1/0",
    "HOPGATE_AMQP_URL": "amqp://u:geheim@127.0.0.1:1/",
}
UNKNOWN_OPTION = {**UNREACHABLE, "HOPGATE_DATABASE_URL": "postgresql://u:geheim@127.0.0.1:1/d?foo=1"}


@pytest.fixture
def settings(tmp_path):
    return {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_BASE_URL": "http://hop.example"}


def test_help_loads_no_server_and_no_driver():
    program = (
        "import sys; sys.argv = ['hopgate', '--help']\n"
        "from app.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = {'robyn', 'granian', 'psycopg', 'redis', 'aio_pika', 'apsw', 'uvloop'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


@pytest.mark.parametrize(
    "group",
    [
        (),
        ("keys",),
        ("links",),
        ("links", "import"),
        ("links", "export"),
        ("dlq",),
        ("dlq", "replay"),
        ("check",),
        ("serve",),
        ("doctor",),
    ],
)
def test_every_command_has_help(settings, group):
    done = hopgate(settings, *group, "--help")

    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_a_link_is_made_and_read_back(settings):
    made = hopgate(settings, "links", "create", "https://EXAMPLE.com/x", "--slug", "mine", "--title", "T")
    read = hopgate(settings, "links", "get", "mine")

    assert made.stdout == "http://hop.example/mine\n"
    link = json.loads(read.stdout)
    assert (link["long_url"], link["title"], link["version"]) == ("https://example.com/x", "T", 1)


def test_keys_are_made_listed_and_revoked(settings):
    key = hopgate(settings, "keys", "create", "ci", "--scope", "links:read").stdout.strip()
    key_id = key.split("_")[1]

    listed = hopgate(settings, "keys", "list").stdout
    assert key_id in listed
    assert "valid" in listed
    assert key.split("_")[2] not in listed

    assert hopgate(settings, "keys", "revoke", key_id).returncode == 0
    assert "revoked" in hopgate(settings, "keys", "list").stdout


@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        ({}, ("links", "create", "javascript:alert(1)"), "must start with http:// or https://"),
        ({}, ("links", "create", "https://example.com", "--slug", "api"), "reserved"),
        ({}, ("links", "create", "https://example.com", "--redirect-code", "200"), "must be one of 301"),
        ({}, ("links", "create", "https://example.com", "--expires-at", "soon"), "is not a time"),
        ({}, ("links", "get", "nobody"), "there is no link nobody"),
        ({}, ("links", "get", "../x"), "there is no link"),
        ({}, ("keys", "revoke", "nobody"), "there is no key nobody"),
        ({}, ("keys", "create", "x", "--scope", "links:steal"), "unknown scope links:steal"),
        ({}, ("keys", "create", "x\n12345678  2030-01-01  valid"), "name: must be at most 512 printable"),
        ({}, ("keys", "create", "caf\udce9"), "name: must be at most 512 printable"),
        ({}, ("keys", "revoke", "caf\udce9"), r"'\udce9' cannot be encoded as utf-8"),
        ({}, ("worker",), "an embedded gateway is its own worker"),
        ({"HOPGATE_BIND": "nonsense"}, ("serve",), "HOPGATE_BIND"),
        ({"HOPGATE_BIND": "127.0.0.1:99999"}, ("serve",), "HOPGATE_BIND"),
        ({"HOPGATE_BIND": "203.0.113.1:8000"}, ("serve",), "cannot listen on 203.0.113.1:8000"),
        ({"HOPGATE_BASE_URL": "ftp://x"}, ("serve",), "HOPGATE_BASE_URL"),
        ({"HOPGATE_BASE_URL": "https://"}, ("serve",), "HOPGATE_BASE_URL"),
        ({"HOPGATE_BASE_URL": "https://caf\udce9"}, ("keys", "list"), "HOPGATE_BASE_URL"),
        ({"HOPGATE_BIND": "::1:8000"}, ("serve",), "needs brackets"),
        ({"HOPGATE_REDIS_URL": "redis://:geheim/x@h:1/0"}, ("doctor",), "HOPGATE_REDIS_URL: is not a URL"),
        ({"HOPGATE_AMQP_URL": "amqp://u:geheim#x@h:1/"}, ("doctor",), "HOPGATE_AMQP_URL: is not a URL"),
        ({"HOPGATE_REDIS_URL": "localhost:6379"}, ("serve",), "HOPGATE_REDIS_URL: must start with one of"),
        (
            {**UNREACHABLE, "HOPGATE_DATABASE_URL": "postgresql+psycopg://u:geheim@h/d"},
            ("migrate",),
            "HOPGATE_DATABASE_URL: must start with one of postgresql://, postgres://",
        ),
        (
            {**UNREACHABLE, "HOPGATE_DATABASE_URL": "postgresql://u:50%geheim@h/d"},
            ("doctor",),
            "HOPGATE_DATABASE_URL: is not a URL",
        ),
        (UNKNOWN_OPTION, ("migrate",), "cannot be parsed as postgresql://user@host/database"),
        (UNKNOWN_OPTION, ("doctor",), "cannot be parsed as postgresql://user@host/database"),
        ({"HOPGATE_WORKERS": "0"}, ("serve",), "HOPGATE_WORKERS"),
        ({"HOPGATE_WORKERS": "2"}, ("serve",), "HOPGATE_WORKERS above 1 needs"),
        ({"HOPGATE_TRUSTED_PROXIES": "everyone"}, ("serve",), "HOPGATE_TRUSTED_PROXIES"),
        ({"HOPGATE_LIMIT_REDIRECT": "many"}, ("serve",), "HOPGATE_LIMIT_REDIRECT"),
        (
            {"HOPGATE_DATABASE_URL": "postgresql://u:geheim@h/d"},
            ("serve",),
            "set all three service URLs or none",
        ),
        (
            {"HOPGATE_DATABASE_REPLICA_URLS": "postgresql://u:geheim@h/d"},
            ("serve",),
            "HOPGATE_DATABASE_REPLICA_URLS needs HOPGATE_DATABASE_URL",
        ),
        (
            {"HOPGATE_DATABASE_REPLICA_URLS": "postgresql://a/d, postgresql://u:geheim/x@h:1/d"},
            ("serve",),
            "HOPGATE_DATABASE_REPLICA_URLS: is not a URL",
        ),
        ({"HOPGATE_DATA_DIR": "/proc/no/such"}, ("serve",), "cannot make /proc/no/such"),
    ],
)
def test_what_goes_wrong_is_one_line(settings, change, arguments, says):
    done = hopgate({**settings, **change}, *arguments)

    assert done.returncode == 1
    assert done.stderr.startswith("hopgate: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr
    assert "geheim" not in done.stderr + done.stdout


def test_doctor_finds_an_embedded_store_well(settings):
    hopgate(settings, "migrate")

    done = hopgate(settings, "doctor")

    assert done.returncode == 0, done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", name] for name in ("store", "outbox", "cache", "bus")
    ]


def test_doctor_names_what_is_missing_and_what_to_do(settings):
    done = hopgate({**settings, **UNREACHABLE}, "doctor")

    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("BAD")] == [
        "store",
        "cache",
        "bus",
    ]
    assert done.stdout.count("→") == 3
    assert "geheim" not in done.stdout + done.stderr


def test_a_port_for_metrics_that_is_taken_is_one_line(settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = hopgate({**settings, **UNREACHABLE, "HOPGATE_METRICS_BIND": bind}, "worker")

    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("hopgate: ")] == [
        "hopgate: Address already in use"
    ]
    assert "Traceback" not in done.stderr


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
