"""What commands print where standard output lacks characters, or is closed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

import pytest

from tests.servers.hopgate import command, environment, hopgate, make_store

TITLE = "Grüße → 日本"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> dict[str, str]:
    settings = {"HOPGATE_DATA_DIR": str(tmp_path_factory.mktemp("output") / "data")}
    make_store(settings)
    made = hopgate(settings, "links", "create", "https://example.com/", "--slug", "umlaut", "--title", TITLE)
    assert made.returncode == 0, made.stderr
    return settings


def printed(store: Mapping[str, str], *arguments: str, encoding: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a Python whose standard output has *encoding*."""
    variables = {**environment(store), "PYTHONIOENCODING": encoding}
    return subprocess.run(command(*arguments), env=variables, capture_output=True, timeout=60)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_text_has_escapes_for_what_the_terminal_lacks(store, encoding):
    done = printed(store, "links", "list", encoding=encoding)

    assert done.returncode == 0, done.stderr
    assert TITLE.encode(encoding, "backslashreplace") in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_the_same_document(store, encoding):
    done = printed(store, "links", "get", "umlaut", "--json", encoding=encoding)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode(encoding))["title"] == TITLE


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_exports_are_utf_8(store, form, encoding):
    done = printed(store, "links", "export", "--format", form, encoding=encoding)

    assert done.returncode == 0, done.stderr
    assert TITLE in done.stdout.decode()


def test_statistics_as_csv_are_utf_8(store):
    done = printed(store, "links", "stats", "umlaut", "--csv", encoding="ascii")

    assert done.returncode == 0, done.stderr


def test_doctor_has_remedies_on_any_terminal(store):
    """Its arrow made it fail where the terminal has none."""
    done = printed({"HOPGATE_DATA_DIR": "/nowhere"}, "doctor", encoding="ascii")

    assert b"\\u2192 " in done.stdout
    assert b"cannot be encoded" not in done.stderr


def test_qr_code_names_a_file_where_it_cannot_be_drawn(store):
    done = printed(store, "links", "qr", "umlaut", encoding="latin-1")

    assert done.returncode == 1
    assert b"write it to a file with --output" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("links", "get", "umlaut"), ("keys", "create", "lost"), ("links", "export"), ("links", "qr", "umlaut")],
    ids=" ".join,
)
def test_closed_output_is_an_error(store, arguments):
    """What was to be printed would be lost, such as a new key: nothing is done."""
    line = ["sh", "-c", 'exec "$@" >&-', "sh", *command(*arguments)]
    done = subprocess.run(line, env=environment(store), stderr=subprocess.PIPE, timeout=60)

    assert done.returncode == 1
    assert b"hopgate: standard output is closed" in done.stderr
    assert b"Traceback" not in done.stderr
    assert "lost" not in hopgate(store, "keys", "list").stdout


@pytest.mark.parametrize(
    "arguments", [("links", "get", "umlaut", "--json"), ("links", "export")], ids=" ".join
)
def test_closed_error_output_leaves_the_result_as_it_is(store, arguments):
    """What is not part of it was printed there: neither JSON nor an export could be read."""
    line = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command(*arguments)]
    done = subprocess.run(line, env=environment(store), stdout=subprocess.PIPE, timeout=60)

    assert done.returncode == 0
    assert json.loads(done.stdout)["title"] == TITLE
