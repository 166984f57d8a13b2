"""An overloaded gateway sheds listings first, then writes, then look-ups."""

from __future__ import annotations

import asyncio
import json
import time

from app.resilience.admission import USUAL_LIMIT
from app.service import l1_cache

LISTING, CREATE, LOOK_UP = ("/api/v1/links", "GET"), ("/api/v1/links", "POST"), ("/unknown", "GET")


async def test_listings_are_shed_first_then_writes(application):
    async def statuses():
        return [await application.status(*request) for request in (LISTING, CREATE, LOOK_UP)]

    assert await statuses() == [401, 401, 404]
    application.press(USUAL_LIMIT * 0.5)
    assert await statuses() == [503, 401, 404]
    application.press(USUAL_LIMIT * 0.75)
    assert await statuses() == [503, 503, 404]
    application.press(USUAL_LIMIT)
    assert [await application.status(*LISTING), await application.status("/another-unknown")] == [503, 503]


async def test_l1_hits_and_health_are_never_shed(application):
    assert await application.status("/unknown") == 404
    application.press(USUAL_LIMIT * 10)

    assert await application.status("/unknown") == 404
    assert await application.status("/healthz") == 200
    assert await application.status("/readyz") == 200
    assert await application.status("/robots.txt") == 200


async def test_retry_after_of_refusals_varies(application):
    application.press(USUAL_LIMIT)

    refusals = [await application.ask(f"/unknown-{i}") for i in range(6)]

    assert {refusal.status for refusal in refusals} == {503}
    assert {refusal.headers["content-type"] for refusal in refusals} == {"application/problem+json"}
    assert {json.loads(refusal.body)["code"] for refusal in refusals} == {"overloaded"}
    assert {refusal.headers["retry-after"] for refusal in refusals} == {"1", "2", "3"}


async def test_shed_look_up_uses_no_budget(application):
    application.press(USUAL_LIMIT)
    for i in range(150):
        assert await application.status(f"/unknown-{i}") == 503
    application.press(0)

    assert await application.status("/unknown") == 404


async def test_tarpit_delays_guesses_only(application):
    """From any number of addresses: one event loop answers them all."""
    link = (await application.services.links.create(fields("https://example.com/"))).link
    assert await application.status(f"/{link.slug}") == 302
    guesses = [
        asyncio.create_task(application.status(f"/unknown-{i}", client=f"198.51.0.{i}:1")) for i in range(100)
    ]
    async with asyncio.timeout(10):
        while not application.services.tarpit.held:
            await asyncio.sleep(0)

    assert await application.status(f"/{link.slug}") == 302
    assert application.services.tarpit.held > 0
    assert set(await asyncio.gather(*guesses)) == {404}


async def test_stale_link_is_served_rather_than_shed(application, monkeypatch):
    link = (await application.services.links.create(fields("https://example.com/"))).link
    assert await application.status(f"/{link.slug}") == 302
    monkeypatch.setattr(
        application.services.redirects, "_monotonic", lambda: time.monotonic() + 2 * l1_cache.TTL_S
    )
    application.services.redirects._resolver._l1._monotonic = lambda: time.monotonic() + 2 * l1_cache.TTL_S
    application.press(USUAL_LIMIT)

    assert await application.status(f"/{link.slug}") == 302
    assert await application.status("/unknown") == 503


async def test_every_admission_is_left(application):
    requests = [LISTING, CREATE, ("/api/v1/links/abc", "PATCH"), ("/api/v1/cache/invalidate", "POST")]
    requests += [(f"/unknown-{i}", "GET") for i in range(20)]

    await asyncio.gather(*(application.status(*request) for request in requests * 3))

    assert application.services.admission.in_flight == 0


def fields(long_url: str):
    from app.domain.link import LinkFields

    return LinkFields(long_url=long_url)
