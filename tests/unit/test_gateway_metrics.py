"""The metrics of a gateway: each request is counted once, and no client makes a series."""

from __future__ import annotations

import asyncio
import re

from app.domain.link import LinkFields
from app.telemetry import families
from tests.unit.exposition import as_prometheus_reads, parsed
from tests.unit.whole_application import Application

DECLARED = list(families.declared().values())


async def scrape(application: Application) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = await application.ask("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return parsed(answer.body)


def redirects(got, source: str, status: str) -> float:
    return got.get(("hopgate_redirects_total", (("source", source), ("status", status))), 0)


async def test_every_redirect_request_is_counted_once(application):
    link = (await application.services.links.create(LinkFields(long_url="https://example.com/"))).link
    off = await application.services.links.create(LinkFields(long_url="https://example.com/", enabled=False))
    for _ in range(10):
        await application.status(f"/{link.slug}")
        await application.status(f"/{off.link.slug}")
        await application.status("/unknown")
        await application.status("/x.y")  # no slug: never looked up

    got = await scrape(application)

    assert [redirects(got, "look_up", status) for status in ("3xx", "410", "404")] == [1, 1, 11]
    assert [redirects(got, "memory", status) for status in ("3xx", "410", "404")] == [9, 9, 9]
    total = sum(value for (name, _), value in got.items() if name == "hopgate_redirects_total")
    assert total == 40
    look_ups = {
        labels[0][1]: value for (name, labels), value in got.items() if name == "hopgate_look_ups_total"
    }
    assert sum(look_ups.values()) == 3
    assert look_ups["failed"] == 0
    assert got["hopgate_first_cache_entries", ()] == 3
    assert got["hopgate_processes", ()] == 1


async def test_refusals_are_counted_by_reason(application):
    application.press(10_000)
    assert await application.status("/api/v1/links") == 503
    assert await application.status("/unknown") == 503
    application.press(0)
    for i in range(70):
        await application.status(f"/unknown-{i}")

    got = await scrape(application)

    assert got["hopgate_shed_total", (("kind", "list"),)] == 1
    assert got["hopgate_shed_total", (("kind", "look_up"),)] == 1
    assert redirects(got, "look_up", "503") == 1
    assert redirects(got, "look_up", "429") == got["hopgate_limited_total", (("policy", "not_found"),)] == 10


async def test_page_is_what_prometheus_reads(application):
    await application.status("/unknown")
    page = (await application.ask("/metrics")).body

    assert parsed(page) == as_prometheus_reads(page)


async def test_metrics_are_served_under_overload(application):
    application.press(10_000)

    assert (await scrape(application))["hopgate_admission_in_flight", ()] == 10_000


async def test_clients_cannot_create_series(application):
    async def visit(numbers) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        for i in numbers:
            await application.status(f"/unknown-{i}")
            await application.status(f"/api/v1/links/{i}")
            await asyncio.sleep(0)
        return set(await scrape(application))

    await visit(range(1))
    before = await visit(range(1))
    after = await visit(range(1, 1_000))

    assert after == before
    assert all(
        re.sub(r"_(total|bucket|count|sum)$", "", name) in {family.name for family in DECLARED}
        for name, _ in after
    )
    assert not [series for series in after if "unknown-" in str(series) or "198.51" in str(series)]
