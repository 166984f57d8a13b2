"""Fixtures of several suites: an embedded gateway with clients, and the compose file."""

from __future__ import annotations

import contextvars
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.cli import main
from tests.integration.compose_file import compose, interpolated, written_by_the_documented_command
from tests.servers.hopgate import UNLIMITED, Gateway, make_key


class EmbeddedGateway(Gateway):
    """A gateway on SQLite, with the `settings` that commands for it need."""

    def __init__(self, settings: dict[str, str], directory: Path) -> None:
        super().__init__(settings, directory)
        self.settings = settings


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    directory = tmp_path_factory.mktemp("embedded")
    settings = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": "http://hop.example",
        **UNLIMITED,
    }
    with EmbeddedGateway(settings, directory) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def admin_key(embedded: EmbeddedGateway) -> str:
    return make_key(embedded.settings)


@pytest.fixture
def api(embedded: Gateway, admin_key: str) -> Iterator[httpx.Client]:
    """A client with a key that has every scope."""
    headers = {"Authorization": f"Bearer {admin_key}"}
    with httpx.Client(base_url=embedded.url, headers=headers) as client:
        yield client


@pytest.fixture
def visitor(embedded: Gateway) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=embedded.url) as client:
        yield client


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in this process: starting Python takes longer than most commands."""

    def run(settings: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("HOPGATE_")]:
                patch.delenv(name)
            for name, value in settings.items():
                patch.setenv(name, value)
            patch.setattr("sys.argv", ["hopgate", *arguments])
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                contextvars.copy_context().run(main)
        out, errors = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out, errors)

    return run


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a newly created .env."""
    return written_by_the_documented_command(tmp_path_factory.mktemp("env"))


@pytest.fixture(scope="module")
def services(variables: dict[str, str]) -> dict[str, dict]:
    """The services of docker-compose.yml, with these variables substituted."""
    return interpolated(compose(), variables)["services"]
