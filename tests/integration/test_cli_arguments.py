"""What the command line and the environment hold: shown inert, and refused by `doctor` as by `serve`."""

from __future__ import annotations

import pytest

from app import migrations
from tests.servers.hopgate import UNREACHABLE

RED = "\x1b[31m\u009b\u202e"
SHOWN = r"\x1b[31m\x9b\u202e"


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "data").mkdir()
    migrations.migrate(f"sqlite:///{tmp_path}/data/hopgate.db")
    return {"HOPGATE_DATA_DIR": str(tmp_path / "data")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("links", "get", RED),
        ("links", "stats", RED),
        ("links", "edit", RED, "--title", "x"),
        ("links", "delete", RED, "--yes"),
        ("links", "import", RED),
        ("links", "export", "--output", f"/absent/{RED}"),
        ("keys", "revoke", RED),
        ("backup", f"/absent/{RED}"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_arguments_are_shown_without_what_a_terminal_obeys(cli, settings, arguments):
    done = cli(settings, *arguments)

    assert done.returncode != 0
    assert SHOWN in done.stderr
    assert not {"\x1b", "\u009b", "\u202e"} & set(done.stderr)


def test_settings_are_shown_without_what_a_terminal_obeys(cli, settings, tmp_path):
    unknown = cli({**settings, f"HOPGATE_{RED}": "x"}, "doctor")
    absent = cli({"HOPGATE_DATA_DIR": f"{tmp_path}/{RED}"}, "doctor")

    assert (unknown.returncode, absent.returncode) == (1, 1)
    assert SHOWN in unknown.stderr
    assert SHOWN in absent.stdout
    assert "\x1b" not in unknown.stderr + absent.stdout + absent.stderr


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("HOPGATE_KEY", "short", "HOPGATE_KEY: is no key"),
        ("HOPGATE_KEY_FILE", "/absent", "HOPGATE_KEY_FILE: cannot read /absent: No such file or directory"),
        ("HOPGATE_KEY_FILE", "/dev/null", "HOPGATE_KEY_FILE: is no key"),
    ],
)
def test_doctor_refuses_the_key_that_serve_refuses(cli, settings, setting, value, says):
    done = cli({**settings, setting: value}, "doctor")

    assert done.returncode == 1
    assert done.stderr.startswith(f"hopgate: {says}")


def test_progress_is_shown_on_a_terminal_only(cli):
    done = cli(UNREACHABLE, "check")

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_options_that_contradict_each_other_change_nothing(cli, settings):
    made = cli(settings, "links", "create", "https://example.com/", "--slug", "abc", "--tag", "kept")
    done = cli(settings, "links", "edit", "abc", "--no-tags", "--tag", "new")

    assert (made.returncode, done.returncode) == (0, 1)
    assert done.stderr.startswith("hopgate: --tag and --no-tags exclude each other")
    assert '"kept"' in cli(settings, "links", "get", "abc").stdout
