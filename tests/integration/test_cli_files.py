"""The command line and files: exports, and disks that are full."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.servers.hopgate import UNREACHABLE, command, environment, hopgate, make_store


@pytest.fixture
def settings(tmp_path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_BASE_URL": "http://hop.example"}
    make_store(settings)
    return settings


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


# --- terminals -------------------------------------------------------------------------

# What is left of a title's rules: direction overrides, an invisible character, a tag character.
_ODD = "a\u202eb\u2066c\u200bd\U000e0041e é 🙂"


def on_a_terminal(settings, *arguments: str) -> str:
    """Return what a command writes to a terminal on its standard output."""
    leader, terminal = os.openpty()
    with os.fdopen(leader, "rb", buffering=0) as screen, os.fdopen(terminal, "wb") as output:
        subprocess.run(
            command(*arguments),
            env=environment(settings),
            stdout=output,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )
        return screen.read(65536).decode()


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        ((), "jsonl"),
        ((), "csv"),
        (("--output", "/dev/stdout"), "jsonl"),
        (("--output", "/dev/stdout"), "csv"),
    ],
)
def test_an_export_to_a_terminal_is_inert_and_one_to_a_file_exact(settings, tmp_path, arguments, form):
    hopgate(settings, "links", "create", "https://example.com", "--slug", "mine", "--title", _ODD)
    export = ("links", "export", "--format", form)

    shown = on_a_terminal(settings, *export, *arguments)
    exact = hopgate(settings, *export).stdout
    hopgate(settings, *export, "--output", str(tmp_path / "out"))

    assert shown.isascii() or set(shown) - set(map(chr, range(128))) == set("é🙂")
    assert "a\\u202eb\\u2066c\\u200bd" in shown
    assert _ODD in exact
    assert (tmp_path / "out").read_text() == exact
    if form == "jsonl":
        assert json.loads(shown) == json.loads(exact)
