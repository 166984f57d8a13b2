"""A gateway whose console is used, and a session of it; with the front and without."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.integration.console_session import ConsoleSession
from tests.servers.hopgate import UNLIMITED, Gateway, hopgate, make_key

COOKIE = "hopgate_session"
TARGET = "https://example.com/a"


class ConsoleGateway(Gateway):
    """A gateway with an admin key."""

    def __init__(self, settings: dict[str, str], directory) -> None:
        super().__init__(settings, directory)
        self.settings = settings
        self.key = make_key(settings)

    def run(self, *arguments: str) -> str:
        done = hopgate(self.settings, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def link(self, slug: str) -> dict | None:
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = httpx.get(f"{self.url}/api/v1/links/{slug}", headers=headers)
        return answer.json() if answer.status_code == 200 else None

    def count(self) -> int:
        headers = {"Authorization": f"Bearer {self.key}"}
        params = {"count": "true"}
        return int(httpx.get(f"{self.url}/api/v1/links", params=params, headers=headers).json()["count"])


# How `serving` may serve: without the front, and with it.
ARRANGEMENTS = (pytest.param("off", id="alone"), pytest.param("on", id="front"))


def serving(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsoleGateway]:
    """Give a gateway with the front `on` or `off`."""
    directory = tmp_path_factory.mktemp("console")
    settings = {**UNLIMITED, "HOPGATE_DATA_DIR": str(directory / "data"), "HOPGATE_FRONT": request.param}
    with ConsoleGateway(settings, directory) as gateway:
        yield gateway


def signed_in(gateway: ConsoleGateway) -> Iterator[ConsoleSession]:
    """Give a session that may do everything."""
    with ConsoleSession(gateway, gateway.key) as console:
        yield console
