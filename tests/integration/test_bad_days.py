"""Bad days of an embedded gateway: its disk is full, or its file is not the file that it knows."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_key

URL = {"long_url": "https://example.com/" + "a" * 2_000}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 3 MB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "hopgate-test", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def settings_in(folder: Path) -> dict[str, str]:
    return {"HOPGATE_DATA_DIR": str(folder), "HOPGATE_BASE_URL": "http://hop.example", **UNLIMITED}


def test_full_disk_is_shown_and_heals(small_disk, tmp_path):
    settings = settings_in(small_disk)
    with Gateway(settings, tmp_path) as gateway:
        headers = {"Authorization": f"Bearer {make_key(settings)}"}
        with httpx.Client(base_url=gateway.url, headers=headers) as api:
            (small_disk / "other").write_bytes(b"x" * 1_500_000)
            answer = api.post("/api/v1/links", json=URL)
            for _ in range(2_000):
                if answer.status_code != 201:
                    break
                answer = api.post("/api/v1/links", json=URL)

            assert answer.status_code == 503
            assert "Nothing was stored." in answer.json()["detail"]
            ready = api.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert "full" in ready.json()["dependencies"]["store"]
            assert "hopgate_store_write_failures_total" in api.get("/metrics").text
            assert "store refuses writes" in gateway.output
            done = hopgate({**settings, "HOPGATE_BIND": gateway.url.removeprefix("http://")}, "doctor")
            assert done.returncode == 1
            assert "full" in done.stdout

            (small_disk / "other").unlink()
            eventually(lambda: api.get("/readyz").json()["status"] == "ok", what="a store that takes writes")
            assert api.post("/api/v1/links", json=URL).status_code == 201


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_file_that_changed_under_a_gateway_is_shown(tmp_path, how):
    settings = settings_in(tmp_path / "data")
    with Gateway(settings, tmp_path) as gateway:
        headers = {"Authorization": f"Bearer {make_key(settings)}"}
        with httpx.Client(base_url=gateway.url, headers=headers) as api:
            assert api.post("/api/v1/links", json=URL).status_code == 201
            file = tmp_path / "data" / "hopgate.db"
            if how == "replaced":
                shutil.copy(file, tmp_path / "copy.db")
                (tmp_path / "copy.db").replace(file)
            else:
                file.unlink()

            eventually(lambda: api.get("/readyz").json()["status"] == "degraded", 30, "a degraded gateway")
            assert api.post("/api/v1/links", json=URL).status_code == 503
            assert "stores nothing any more" in gateway.output
            done = hopgate({**settings, "HOPGATE_BIND": gateway.url.removeprefix("http://")}, "doctor")
            assert done.returncode == 1
