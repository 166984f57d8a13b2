"""Calls of `/api/v1/links/bulk`."""

from __future__ import annotations

import httpx

from tests.integration.api_calls import LINKS

BULK = f"{LINKS}/bulk"
URL = "https://example.com/"


def results(answer: httpx.Response) -> list[dict]:
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def statuses(answer: httpx.Response) -> list[int]:
    return [one["status"] for one in results(answer)]


def post(api, *links, **options):
    return api.post(BULK, json={"links": list(links), **options})


def patch(api, *links, **options):
    return api.patch(BULK, json={"links": list(links), **options})


def delete(api, *links, **options):
    return api.request("DELETE", BULK, json={"links": list(links), **options})


def version(api, slug: str) -> int:
    return api.get(f"{LINKS}/{slug}").json()["version"]
