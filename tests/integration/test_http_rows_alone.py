"""The rows of RFC 9110 and RFC 9112, to a gateway without its front."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.integration.conftest import EmbeddedGateway
from tests.integration.front_gateway import ALONE
from tests.integration.test_http_rows import ask, slug, test_http_row
from tests.servers.hopgate import UNLIMITED, make_key

__all__ = ["ask", "slug", "test_http_row"]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Iterator[EmbeddedGateway]:
    folder = tmp_path_factory.mktemp("rows")
    settings = {"HOPGATE_DATA_DIR": str(folder / "data"), **UNLIMITED, **ALONE}
    with EmbeddedGateway(settings, folder) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def admin_key(embedded) -> str:
    return make_key(embedded.settings)


@pytest.fixture(scope="module")
def api(embedded, admin_key) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {admin_key}"}
    with httpx.Client(base_url=embedded.url, headers=headers) as client:
        yield client
