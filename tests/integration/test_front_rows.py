"""The rows of RFC 9110 and RFC 9112, to a gateway behind its front."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.integration.conftest import EmbeddedGateway
from tests.integration.front_gateway import FRONT, get, is_of_the_front
from tests.integration.test_http_rows import ROWS, ask, slug, test_http_row
from tests.servers.hopgate import UNLIMITED, eventually, make_key
from tests.servers.raw_http import exchange

__all__ = ["ask", "slug", "test_http_row"]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Iterator[EmbeddedGateway]:
    folder = tmp_path_factory.mktemp("rows")
    settings = {"HOPGATE_DATA_DIR": str(folder / "data"), **UNLIMITED, **FRONT}
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


HOSTS = [row for row in ROWS if row["name"].startswith("host ") and row["lines"][0].startswith("GET /{SLUG}")]


@pytest.mark.parametrize("row", HOSTS, ids=lambda row: row["name"])
def test_host_of_a_hot_link_is_checked(embedded, slug, row):
    """Alone, granian's side sends a redirect from memory without a look at it."""
    eventually(lambda: is_of_the_front(get(embedded, f"/{slug}")), what="the link is hot")
    lines = [line.replace("{SLUG}", slug) for line in row["lines"]]

    answer = exchange(embedded.port, "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))

    assert answer is not None
    assert answer.status in row["status"]
