"""The `hopgate` command: its output, its effects and its errors."""

from __future__ import annotations

import dataclasses
import json
import socket

import pytest
import typer
from typer.core import TyperGroup

from app import migrations
from app.cli import app
from app.domain.link import LinkFields
from tests.servers.hopgate import UNREACHABLE, hopgate

UNKNOWN_OPTION = {**UNREACHABLE, "HOPGATE_DATABASE_URL": "postgresql://u:geheim@127.0.0.1:1/d?foo=1"}


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "data").mkdir()
    migrations.migrate(f"sqlite:///{tmp_path}/data/hopgate.db")
    return {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_BASE_URL": "http://hop.example"}


def test_created_link_is_read_back(settings):
    created = hopgate(settings, "links", "create", "https://EXAMPLE.com/x", "--slug", "mine", "--title", "T")
    read = hopgate(settings, "links", "get", "mine")

    assert created.stdout == "http://hop.example/mine\n"
    link = json.loads(read.stdout)
    assert (link["long_url"], link["title"], link["version"]) == ("https://example.com/x", "T", 1)


def test_keys_are_created_listed_and_revoked(settings):
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
        ({}, ("links", "get", "missing"), "there is no link missing"),
        ({}, ("links", "get", "../x"), "there is no link"),
        ({}, ("keys", "revoke", "missing"), "there is no key missing"),
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
        (UNKNOWN_OPTION, ("serve",), "cannot be parsed as postgresql://user@host/database"),
        (
            {**UNREACHABLE, "HOPGATE_DATABASE_REPLICA_URLS": "postgresql://u:geheim@127.0.0.1:1/d?foo=1"},
            ("serve",),
            "the URL of the standby database cannot be parsed",
        ),
        *(
            ({**UNREACHABLE, "HOPGATE_REDIS_URL": url}, (command,), "the URL of Redis has an option")
            for url in ("redis://:geheim@127.0.0.1:1/0?foo=1", "redis+cluster://127.0.0.1:1?socket_timeout=x")
            for command in ("serve", "worker", "doctor")
        ),
        ({"HOPGATE_WORKERS": "0"}, ("serve",), "HOPGATE_WORKERS"),
        ({"HOPGATE_WORKERS": "2"}, ("serve",), "HOPGATE_WORKERS above 1 needs"),
        ({"HOPGATE_FRONT": "perhaps"}, ("serve",), "HOPGATE_FRONT: Input should be 'on' or 'off'"),
        ({"HOPGATE_FRONT_THREADS": "0"}, ("serve",), "HOPGATE_FRONT_THREADS"),
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
        ({"HOPGATE_DATA_DIR": "/proc/no/such"}, ("serve",), "cannot create /proc/no/such"),
    ],
)
def test_error_is_one_line_without_secrets(settings, change, arguments, says):
    done = hopgate({**settings, **change}, *arguments)

    assert done.returncode == 1
    assert done.stderr.startswith("hopgate: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr
    assert "geheim" not in done.stderr + done.stdout


# --- the store --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("keys", "create", "x"), ("keys", "list"), ("links", "export"), ("links", "list"), ("doctor",)],
)
def test_absent_store_is_not_created(cli, tmp_path, arguments):
    done = cli({"HOPGATE_DATA_DIR": str(tmp_path / "data")}, *arguments)

    assert done.returncode == 1
    assert f"no database in {tmp_path / 'data'} (set HOPGATE_DATA_DIR)" in done.stderr + done.stdout
    assert not (tmp_path / "data").exists()


def test_every_result_names_its_store(cli, settings):
    path = f"{settings['HOPGATE_DATA_DIR']}/hopgate.db"
    for arguments in (
        ("links", "create", "https://example.com"),
        ("keys", "list"),
        ("migrate",),
        ("doctor",),
    ):
        assert f"hopgate: using {path}" in cli(settings, *arguments).stderr.splitlines()
    assert f"(store: {path})" in cli(settings, "links", "get", "missing").stderr


def test_relative_data_folder_is_printed_absolute(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    done = cli({"HOPGATE_DATA_DIR": "here"}, "keys", "list")

    assert f"no database in {tmp_path}/here " in done.stderr


def test_settings_stand_in_the_data_folder(cli, tmp_path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path)}
    (tmp_path / ".env").write_text("HOPGATE_BASE_URL=https://env.example\n")
    (tmp_path / "hopgate.toml").write_text('base_url = "https://toml.example"\nlimit_api = "5/s"\n')
    migrations.migrate(f"sqlite:///{tmp_path}/hopgate.db")

    assert cli(settings, "links", "create", "https://example.com", "--slug", "one").stdout == (
        "https://env.example/one\n"
    )
    (tmp_path / ".env").unlink()
    assert json.loads(cli(settings, "links", "get", "one").stdout)["short_url"] == "https://toml.example/one"


# --- links -------------------------------------------------------------------------------


FIELDS = ("--title", "T", "--tag", "a,b", "--tag", "c", "--redirect-code", "308", "--max-visits", "7",
          "--valid-from", "2030-01-01T00:00:00Z", "--expires-at", "2031-01-01T00:00:00+01:00",
          "--forward-query", "--disabled")  # fmt: skip
AS_GIVEN = {
    "title": "T",
    "tags": ["a,b", "c"],
    "redirect_code": 308,
    "max_visits": 7,
    "valid_from": "2030-01-01T00:00:00Z",
    "expires_at": "2030-12-31T23:00:00Z",
    "forward_query": True,
    "enabled": False,
}


def test_every_field_of_a_link_is_an_option():
    fields = {field.name for field in dataclasses.fields(LinkFields)}
    whole = typer.main.get_command(app)
    assert isinstance(whole, TyperGroup)
    links = whole.commands["links"]
    assert isinstance(links, TyperGroup)

    for command in ("create", "edit"):
        assert fields <= {param.name for param in links.commands[command].params}


def test_created_link_has_every_field(cli, settings):
    made = cli(settings, "links", "create", "https://example.com/x", "--slug", "all", *FIELDS, "--json")

    assert made.returncode == 0, made.stderr
    link = json.loads(made.stdout)
    assert {name: link[name] for name in AS_GIVEN} == AS_GIVEN


def test_edited_link_keeps_what_is_not_named(cli, settings):
    cli(settings, "links", "create", "https://example.com/x", "--slug", "mine", *FIELDS)
    emptied = (
        "--no-tags",
        "--max-visits",
        "none",
        "--valid-from",
        "none",
        "--expires-at",
        "none",
        "--enabled",
    )

    edited = cli(settings, "links", "edit", "mine", *emptied, "--if-version", "1", "--json")
    stale = cli(settings, "links", "edit", "mine", "--title", "U", "--if-version", "1")

    link = json.loads(edited.stdout)
    empty: dict[str, object] = {
        "tags": [],
        "max_visits": None,
        "valid_from": None,
        "expires_at": None,
        "enabled": True,
    }
    assert {name: link[name] for name in AS_GIVEN} == {**AS_GIVEN, **empty}
    assert (stale.returncode, stale.stdout) == (1, "")
    assert "is at version 2" in stale.stderr


def test_listed_links_are_the_newest_first(cli, settings):
    for slug in ("one", "two", "three"):
        cli(settings, "links", "create", f"https://example.com/{slug}", "--slug", slug, "--title", "a\u202eb")

    listed = cli(settings, "links", "list", "--limit", "2")
    documents = json.loads(cli(settings, "links", "list", "--json").stdout)

    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["three", "two"]
    assert "more than 2 links" in listed.stderr
    assert "\u202e" not in listed.stdout
    assert [one["slug"] for one in documents] == ["three", "two", "one"]


def test_deleted_link_is_gone_for_good(cli, settings):
    cli(settings, "links", "create", "https://example.com/", "--slug", "mine")

    assert cli(settings, "links", "delete", "mine", "--yes").stdout == "mine is deleted\n"

    for again in (
        ("delete", "mine", "--yes"),
        ("get", "mine"),
        ("edit", "mine", "--title", "x"),
        ("stats", "mine"),
    ):
        done = cli(settings, "links", *again)
        assert done.returncode == 1
        assert "mine was removed" in done.stderr


def test_stats_of_a_link_without_visits(cli, settings):
    cli(settings, "links", "create", "https://example.com/", "--slug", "mine")

    text = cli(
        settings,
        "links",
        "stats",
        "mine",
        "--since",
        "2026-01-01T00:00:00Z",
        "--until",
        "2026-01-02T00:00:00Z",
    )
    document = json.loads(cli(settings, "links", "stats", "mine", "--json").stdout)

    assert text.stdout == "0 visits in total\n"
    assert (document["slug"], document["total"]) == ("mine", 0)


def test_loop_by_alias_is_refused_on_the_command_line(cli, settings):
    for change in (("create", "http://0x7f.1:8000/x"), ("edit", "mine", "--long-url", "http://[::1]:8000/x")):
        cli(settings, "links", "create", "https://example.com/", "--slug", "mine")
        done = cli(settings, "links", *change)
        assert done.returncode == 1
        assert "points back to this service" in done.stderr


# --- doctor ------------------------------------------------------------------------------


def test_doctor_warns_of_dangerous_settings(cli, settings):
    done = cli({**settings, "HOPGATE_TRUSTED_PROXIES": "0.0.0.0/0"}, "doctor")

    assert done.returncode == 0
    assert done.stdout.startswith("warn settings   HOPGATE_TRUSTED_PROXIES trusts most of the internet")


@pytest.mark.parametrize(
    "change",
    [
        {"HOPGATE_LIMIT_REDIRECT": "100 per blink"},
        {"HOPGATE_LIMIT_NOT_FOUND": "many"},
        {"HOPGATE_BASE_URL": "https://u:geheim@hop.example"},
        {"HOPGATE_TRUSTED_PROXIES": "192.168.144.3/24"},
        {"HOPGATE_DRAIN_DELAY_S": "60"},
        {**UNREACHABLE, "HOPGATE_REDIS_URL": "redis://:geheim@127.0.0.1:1/0?foo=1"},
        UNKNOWN_OPTION,
    ],
)
def test_doctor_refuses_what_serve_refuses(cli, settings, change):
    answers = {
        run({**settings, **change}, command).stderr.partition(" (store: ")[0].strip()
        for run, command in ((hopgate, "serve"), (cli, "doctor"))
    }

    assert len(answers) == 1
    assert answers.pop().startswith("hopgate: ")


def test_doctor_passes_an_embedded_store(settings):
    done = hopgate(settings, "doctor")

    assert done.returncode == 0, done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", name] for name in ("front", "store", "writes", "outbox", "blocks", "cache", "bus")
    ]


def test_doctor_names_failed_dependencies_and_remedies(settings):
    done = hopgate({**settings, **UNREACHABLE}, "doctor")

    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("BAD")] == [
        "store",
        "cache",
        "bus",
    ]
    assert done.stdout.count("→") == 3
    assert len(done.stderr.splitlines()) == 1, "a driver logs beside the table"
    assert "geheim" not in done.stdout + done.stderr


def test_used_metrics_port_is_one_line(settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = hopgate({**settings, **UNREACHABLE, "HOPGATE_METRICS_BIND": bind}, "worker")

    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("hopgate: ")] == [
        "hopgate: Address already in use"
    ]
    assert "Traceback" not in done.stderr


def test_links_are_found_by_terms_and_filters(settings):
    hopgate(
        settings, "links", "create", "https://a.example/x", "--slug", "one", "--title", "Spring", "--tag", "t"
    )
    hopgate(
        settings, "links", "create", "https://b.example/", "--slug", "two", "--title", "spring", "--disabled"
    )

    found = hopgate(settings, "links", "search", "SPRI", "ing", "--sort", "-slug", "--count")
    listed = hopgate(
        settings, "links", "list", "--host", "A.example", "--tag", "t", "--state", "live", "--json"
    )

    assert [line.split()[0] for line in found.stdout.splitlines()] == ["two", "one"]
    assert "2 links" in found.stderr
    assert [link["slug"] for link in json.loads(listed.stdout)] == ["one"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("search", "ab"), "TERM: has the term 'ab'"),
        (("list", "--sort", "size"), "--sort must be one of created, -created"),
        (("list", "--state", "gone"), "--state must be one of live, pending"),
        (("list", "--created-since", "soon"), "is not a time"),
        (("list", "--host", "a.example:80"), "host: must be a host alone"),
    ],
)
def test_wrong_filter_is_one_line(settings, arguments, says):
    ended = hopgate(settings, "links", *arguments)

    assert ended.returncode == 1
    assert says in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
