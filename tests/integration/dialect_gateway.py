"""A gateway that speaks the dialects, and published clients of other shorteners that call it as they are."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.api_calls import LINKS
from tests.servers.hopgate import UNLIMITED, Gateway, make_key

ROOT = Path(__file__).parents[2]
PYTHON_CLIENTS = ROOT / ".venv" / "clients"
NODE_CLIENTS = ROOT / "tests" / "clients"
BASE = "http://hop.example"

needs_python_clients = pytest.mark.skipif(
    not PYTHON_CLIENTS.exists(), reason="make .venv/.clients installs the clients"
)
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_CLIENTS / "node_modules").exists(),
    reason="needs node, and what make .venv/.clients installs",
)


class Speaking(Gateway):
    """A gateway with dialects, its settings, and keys."""

    api: httpx.Client
    settings: dict[str, str]
    key: str
    reader: str
    writer: str

    def link(self, **fields: object) -> dict[str, Any]:
        body = {"long_url": target(), **fields}
        answer = self.api.post(LINKS, json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found


def target() -> str:
    return f"https://example.com/{secrets.token_hex(8)}"


def speaking(directory: Path, *, kind: type[Speaking] = Speaking, **more: str) -> Iterator[Speaking]:
    """Give a gateway with every dialect on."""
    settings = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": BASE,
        "HOPGATE_DIALECTS": "yourls,shlink,bitly",
        **UNLIMITED,
        **more,
    }
    key, reader, writer = (make_key(settings, scope) for scope in ("admin", "links:read", "links:write"))
    with (
        kind(settings, directory) as gateway,
        httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        gateway.api, gateway.settings = client, settings
        gateway.key, gateway.reader, gateway.writer = key, reader, writer
        yield gateway


def python(script: str, *arguments: str) -> Any:
    """Run *script* with the clients in Python; return what it prints, which is JSON."""
    environment = {**os.environ, "PYTHONPATH": str(PYTHON_CLIENTS)}
    command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    return _run(command, environment, PYTHON_CLIENTS)


def node(script: str, *arguments: str, **environment: str) -> Any:
    """Run *script* of `tests/clients`; return what it prints, which is JSON."""
    return _run(["node", script, *arguments], {**os.environ, **environment}, NODE_CLIENTS)


def _run(command: list[str], environment: dict[str, str], directory: Path) -> Any:
    done = subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
