"""A gateway with domains, and a client of it, for the suites of domains and of their links."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.integration.api_calls import LINKS
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, make_key

DOMAINS = "/api/v1/domains"
TARGET = "https://example.com/"
BASE = "hop.example"
PAGES = {"root_url": f"{TARGET}root", "not_found_url": f"{TARGET}404", "expired_url": f"{TARGET}gone"}


class Serving(Gateway):
    """A gateway, its settings and a client with every scope."""

    api: httpx.Client
    settings: dict[str, str]

    def domain(self, **settings: object) -> str:
        host = f"d{secrets.token_hex(6)}.example"
        answer = self.api.post(DOMAINS, json={"host": host, **settings})
        assert answer.status_code == 201, answer.text
        return host

    def link(self, host: str | None = None, **fields: object) -> dict:
        body = {"long_url": f"{TARGET}{secrets.token_hex(6)}", **fields}
        answer = self.api.post(LINKS, json=body if host is None else {**body, "domain": host})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def visit(self, host: str, path: str, method: str = "GET") -> tuple[int, str | None]:
        answer = self.api.request(method, path, headers={"Host": host})
        return answer.status_code, answer.headers.get("location")

    def becomes(self, host: str, path: str, wanted: tuple[int, str | None]) -> None:
        eventually(lambda: self.visit(host, path) == wanted, 30, f"{host}{path} answers {wanted}")


def slug() -> str:
    return f"s{secrets.token_hex(6)}"


def serving(front: dict[str, str], directory: Path) -> Iterator[Serving]:
    """Give a gateway at the base URL of `BASE`, with an admin's client."""
    settings = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": f"https://{BASE}",
        **front,
        **UNLIMITED,
    }
    key = make_key(settings)
    with (
        Serving(settings, directory) as gateway,
        httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        gateway.api, gateway.settings = client, settings
        yield gateway
