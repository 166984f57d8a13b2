"""Who is still served by a gateway that has too much to do."""

from __future__ import annotations

import asyncio
import json
import time

from app.resilience.admission import USUAL_LIMIT
from app.service import hot_links

LISTING, CREATE, LOOK_UP = ("/api/v1/links", "GET"), ("/api/v1/links", "POST"), ("/unknown", "GET")


async def test_listings_go_first_then_writes_then_missed_redirects(application):
    async def statuses():
        return [await application.status(*request) for request in (LISTING, CREATE, LOOK_UP)]

    assert await statuses() == [401, 401, 404]
    application.press(USUAL_LIMIT * 0.5)
    assert await statuses() == [503, 401, 404]
    application.press(USUAL_LIMIT * 0.75)
    assert await statuses() == [503, 503, 404]
    application.press(USUAL_LIMIT)
    assert [await application.status(*LISTING), await application.status("/another-unknown")] == [503, 503]


async def test_what_is_in_the_first_cache_and_health_are_never_refused(application):
    assert await application.status("/unknown") == 404
    application.press(USUAL_LIMIT * 10)

    assert await application.status("/unknown") == 404
    assert await application.status("/healthz") == 200
    assert await application.status("/readyz") == 200
    assert await application.status("/robots.txt") == 200


async def test_a_refusal_says_when_to_come_back_and_not_to_all_the_same(application):
    application.press(USUAL_LIMIT)

    refusals = [await application.ask(f"/unknown-{i}") for i in range(6)]

    assert {refusal.status for refusal in refusals} == {503}
    assert {refusal.headers["content-type"] for refusal in refusals} == {"application/problem+json"}
    assert {json.loads(refusal.body)["code"] for refusal in refusals} == {"overloaded"}
    assert {refusal.headers["retry-after"] for refusal in refusals} == {"1", "2", "3"}


async def test_being_refused_uses_no_look_up_of_the_budget_up(application):
    application.press(USUAL_LIMIT)
    for i in range(150):
        assert await application.status(f"/unknown-{i}") == 503
    application.press(0)

    assert await application.status("/unknown") == 404


async def test_guesses_are_answered_more_slowly_once_there_are_many_and_links_are_not(application):
    """However many addresses they come from: one event loop answers them all."""
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


async def test_a_link_that_was_known_until_recently_is_served_stale_rather_than_refused(
    application, monkeypatch
):
    link = (await application.services.links.create(fields("https://example.com/"))).link
    assert await application.status(f"/{link.slug}") == 302
    monkeypatch.setattr(
        application.services.lane, "_monotonic", lambda: time.monotonic() + 2 * hot_links.TTL_S
    )
    application.services.lane._redirects._hot._monotonic = lambda: time.monotonic() + 2 * hot_links.TTL_S
    application.press(USUAL_LIMIT)

    assert await application.status(f"/{link.slug}") == 302
    assert await application.status("/unknown") == 503


async def test_everything_that_was_let_in_is_let_out(application):
    requests = [LISTING, CREATE, ("/api/v1/links/abc", "PATCH"), ("/api/v1/cache/invalidate", "POST")]
    requests += [(f"/unknown-{i}", "GET") for i in range(20)]

    await asyncio.gather(*(application.status(*request) for request in requests * 3))

    assert application.services.entrance._admission.in_flight == 0


def fields(long_url: str):
    from app.domain.link import LinkFields

    return LinkFields(long_url=long_url)
