"""What several suites share: an embedded gateway with clients, and the compose file as it is."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.integration.compose_file import compose, interpolated, written_by_the_documented_command
from tests.servers.hopgate import UNLIMITED, Gateway, make_key


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("embedded")
    settings = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": "http://hop.example",
        **UNLIMITED,
    }
    with Gateway(settings, directory) as gateway:
        gateway.settings = settings
        yield gateway


@pytest.fixture(scope="session")
def admin_key(embedded: Gateway) -> str:
    return make_key(embedded.settings)


@pytest.fixture
def api(embedded: Gateway, admin_key: str) -> Iterator[httpx.Client]:
    """A client with a key that may do everything."""
    headers = {"Authorization": f"Bearer {admin_key}"}
    with httpx.Client(base_url=embedded.url, headers=headers) as client:
        yield client


@pytest.fixture
def visitor(embedded: Gateway) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=embedded.url) as client:
        yield client


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What .env holds, freshly made."""
    return written_by_the_documented_command(tmp_path_factory.mktemp("env"))


@pytest.fixture(scope="module")
def services(variables: dict[str, str]) -> dict[str, dict]:
    """The services of docker-compose.yml, with these variables put in."""
    return interpolated(compose(), variables)["services"]
