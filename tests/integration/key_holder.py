"""Clients with keys of their own, restricted or not, at a gateway that speaks every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.api_calls import LINKS
from tests.integration.domain_gateway import Serving, serving

KEYS = "/api/v1/keys"


def serving_all(front: str, folders: pytest.TempPathFactory) -> Iterator[Serving]:
    """Give a gateway with the front *on* or *off*, and every dialect."""
    settings = {
        "HOPGATE_FRONT": front,
        "HOPGATE_TRUSTED_PROXIES": "127.0.0.0/8",
        "HOPGATE_DIALECTS": "yourls,shlink,bitly",
    }
    yield from serving(settings, folders.mktemp("restrictions"))


class Holder(httpx.Client):
    """A client with a key of its own."""

    def __init__(self, gateway: Serving, *scopes: str, **restrictions: object) -> None:
        body = {"name": "made", "scopes": scopes or ["links:read", "links:write"], **restrictions}
        answer = gateway.api.post(KEYS, json=body)
        assert answer.status_code == 201, answer.text
        self.document = answer.json()
        self.key_id = self.document["key_id"]
        super().__init__(base_url=gateway.url, headers={"Authorization": f"Bearer {self.document['key']}"})

    def titles(self, **query: Any) -> list[str]:
        """Return the titles of all links that *query* lists, page by page."""
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.get(LINKS, params={"limit": 1, **query, **cursor})
            assert page.status_code == 200, page.text
            found += [link["title"] for link in page.json()["links"]]
            if page.json()["next_cursor"] is None:
                return found
            cursor = {"cursor": page.json()["next_cursor"]}


def hand(gateway: Serving, link: dict, owner: str | None) -> httpx.Response:
    return gateway.api.patch(f"{LINKS}/{link['slug']}", json={"owner": owner})
