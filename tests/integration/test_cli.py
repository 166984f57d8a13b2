"""The `hopgate` command: what it prints, what it stores, and how it fails."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from tests.servers.hopgate import UNREACHABLE, hopgate

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
