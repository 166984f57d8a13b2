"""One operation over HTTP, and its reply."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.faults.harness.http_client import HttpClient, HttpResponse
from tests.faults.harness.journal import Intent, Kind, Reply

# Longer than every deadline of the gateway: a request that takes this long has no deadline.
GIVE_UP_S = 6.0


_LINKS = "/api/v1/links"


def api_key_of(address: str, api_keys: Sequence[str]) -> str:
    """Return the API key of the client at *address*; the same one for every call."""
    return api_keys[int(address.rpartition(".")[2]) % len(api_keys)]


async def perform(intent: Intent, client: HttpClient, api_key: str) -> Reply:
    """Send *intent* and return the reply. A network error is a reply with status 0."""
    headers = {} if intent.kind is Kind.VISIT else {"Authorization": f"Bearer {api_key}"}
    body: dict[str, object] | None = None
    match intent.kind:
        case Kind.VISIT:
            method, path = "GET", f"/{intent.slug}"
        case Kind.DELETE:
            method, path = "DELETE", f"{_LINKS}/{intent.slug}"
        case Kind.EDIT:
            method, path, body = "PATCH", f"{_LINKS}/{intent.slug}", {"long_url": intent.url}
        case Kind.CREATE:
            method, path, body = "POST", _LINKS, {"long_url": intent.url, "title": intent.id}
            if intent.slug is not None:
                body["slug"] = intent.slug
            if intent.key is not None:
                headers["Idempotency-Key"] = intent.key
    try:
        async with asyncio.timeout(GIVE_UP_S):
            response = await client.ask(method, path, headers=headers, body=body)
    except (OSError, TimeoutError) as error:
        return Reply(id=intent.id, status=0, at=time.monotonic(), error=type(error).__name__)
    return _reply(intent, response)


def _reply(intent: Intent, response: HttpResponse) -> Reply:
    has_document = response.status in {200, 201} or response.status >= 500
    document = response.json() if has_document else {}
    slug, version = document.get("slug"), document.get("version")
    return Reply(
        id=intent.id,
        status=response.status,
        at=time.monotonic(),
        slug=slug if isinstance(slug, str) else intent.slug,
        version=version if isinstance(version, int) else None,
        location=response.headers.get("location") if intent.kind is Kind.VISIT else None,
        replayed="idempotency-replayed" in response.headers,
        retry_after="retry-after" in response.headers,
        detail=str(document.get("detail", "")),
    )
