"""Every command, with each dependency absent: one line that says what is wrong, and no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.hopgate import UNREACHABLE, environment

DRIVERS = ("psycopg", "psycopg_pool", "psycopg_c", "redis", "hiredis", "aio_pika", "aiormq")
BASE = ("ada_url", "apsw", "granian", "hopgate_limiter", "msgspec", "pydantic_settings", "rich", "uvloop")


def every_command(tmp_path, settings, *, without=(), excepted=("serve", "worker")):
    file = tmp_path / "urls.txt"
    file.write_text("https://example.com/\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.integration.every_command", str(file)),
            *(f"--without={package}" for package in without),
            *(f"--except={command}" for command in excepted),
        ],
        # `top` asks the gateway there: none.
        env=environment(
            {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_BIND": "127.0.0.1:1", **settings}
        ),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) > 15
    # It needs nothing.
    return [result for result in results if result["command"] != "keys generate"]


def check_failed_in_one_line(result):
    """Progress may stand above the line: a bar, or the name of the program that runs."""
    lines = [line for line in result["stderr"].splitlines() if line.startswith("hopgate: ")]
    told = [line for line in lines if line not in {"hopgate: pg_dump runs", "hopgate: pg_restore runs"}]
    assert (result["code"], result["crash"], len(told)) == (1, "", 1), result
    assert "Traceback" not in result["stderr"]
    assert "unexpected" not in result["stderr"]
    assert "geheim" not in result["stderr"] + result["stdout"]


@pytest.mark.timeout(150)
def test_missing_driver_is_named_with_its_installation(tmp_path):
    # `top` asks a gateway alone.
    for result in every_command(tmp_path, UNREACHABLE, without=DRIVERS, excepted=("top",)):
        check_failed_in_one_line(result)
        assert "make services" in result["stderr"], result
        assert "pip install 'hopgate[services]'" in result["stderr"]


@pytest.mark.timeout(150)
@pytest.mark.parametrize("packages", [BASE, ("apsw",), ("granian",)], ids=" ".join)
def test_missing_package_is_no_traceback(tmp_path, packages):
    for result in every_command(tmp_path, {}, without=packages, excepted=()):
        assert result["crash"] == "", result
        assert "unexpected" not in result["stderr"], result


@pytest.mark.timeout(150)
def test_unreachable_server_is_one_line(tmp_path):
    for result in every_command(tmp_path, UNREACHABLE):
        check_failed_in_one_line(result)


def absent(data):
    pass


def a_file(data):
    data.write_text("x")


def garbage(data):
    data.mkdir()
    (data / "hopgate.db").write_text("no database")


def empty(data):
    data.mkdir()
    (data / "hopgate.db").touch()


def a_folder_in_its_place(data):
    (data / "hopgate.db").mkdir(parents=True)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("make", [absent, a_file, garbage, empty, a_folder_in_its_place])
def test_unusable_data_folder_is_one_line(tmp_path, make):
    make(tmp_path / "data")

    for result in every_command(tmp_path, {}, excepted=("serve", "migrate")):
        check_failed_in_one_line(result)
    assert (tmp_path / "data").exists() == (make is not absent)


@pytest.mark.timeout(150)
def test_unknown_setting_stops_every_command(tmp_path):
    for result in every_command(tmp_path, {"HOPGATE_BASEURL": "https://hop.example"}, excepted=()):
        check_failed_in_one_line(result)
        assert "HOPGATE_BASEURL is not a setting: is HOPGATE_BASE_URL meant?" in result["stderr"]
