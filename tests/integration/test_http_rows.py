"""
Rows of RFC 9110 and RFC 9112, as bytes on a socket; the answers are those of the RFC.

What granian decides before the gateway sees it is listed in SECURITY.md and has no row.
"""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest

from tests.integration.front_gateway import get, is_of_the_front
from tests.servers.hopgate import eventually
from tests.servers.raw_http import RawAnswer, exchange, read_answer

LINKS = "/api/v1/links"
ROWS = json.loads((Path(__file__).parents[1] / "data" / "http_rows.json").read_text())["rows"]
# What every answer carries, a redirect included.
SNIFFING = ("x-content-type-options", "nosniff")


@pytest.fixture
def slug(api) -> str:
    return api.post(LINKS, json={"long_url": "https://example.com/"}).json()["slug"]


@pytest.fixture
def ask(embedded, admin_key, slug):
    def ask(row) -> RawAnswer | None:
        names = {"SLUG": slug, "ESCAPED": f"%{ord(slug[0]):02x}{slug[1:]}", "KEY": admin_key}
        text = "\r\n".join([*row["lines"], "Connection: close", "", row["body"]])
        for name, value in names.items():
            text = text.replace(f"{{{name}}}", value)
        with socket.create_connection(("127.0.0.1", embedded.port), timeout=10) as connection:
            connection.sendall(text.encode("latin-1"))
            if row["ends_early"]:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
            return read_answer(connection, head=text.startswith("HEAD "))

    return ask


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_http_row(ask, api, slug, row):
    before = newest(api)

    answer = ask(row)

    # A client that ends its half early may get no answer from granian; the request is refused all the same.
    if answer is None:
        assert row["ends_early"]
    else:
        assert answer.status in row["status"], answer
        if answer.header("server") == "granian":
            assert SNIFFING in answer.headers
    if row["status"][0] >= 400:
        assert newest(api) == before


def newest(api) -> list[dict]:
    """The newest links, without their clicks."""
    links = api.get(LINKS, params={"limit": 2}).json()["links"]
    return [{name: value for name, value in link.items() if name != "visits"} for link in links]


HOSTS = [row for row in ROWS if row["name"].startswith("host ") and row["lines"][0].startswith("GET /{SLUG}")]


@pytest.mark.parametrize("row", HOSTS, ids=lambda row: row["name"])
def test_host_of_a_hot_link_is_checked(embedded, slug, row):
    """Without the front, a redirect from memory is sent without a look at it."""
    eventually(lambda: is_of_the_front(get(embedded, f"/{slug}")), what="the link is hot")
    lines = [line.replace("{SLUG}", slug) for line in row["lines"]]

    answer = exchange(embedded.port, "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))

    assert answer is not None
    assert answer.status in row["status"]
