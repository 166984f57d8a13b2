"""The page of one link: what it is, its numbers and its history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from app.console.gate import Gate
from app.console.links import condition_of
from app.console.numbers import EXTRAS, numbers_of
from app.console.rendering import Pages, Viewer
from app.domain.errors import InvalidInput
from app.domain.link import Link, Slug
from app.domain.link_key import name_of
from app.resilience.deadline import ADMIN_S
from app.service.domains import Domains
from app.service.keys import Scope
from app.service.stats import HourlyStats
from app.web import cursors, errors, history_api, qr, qr_codes
from app.web.middleware import Call
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services

PATH = "/console/link"
_CHANGES = 10
# What the address may say was done; the page shows the text of it alone.
_DONE = frozenset({"created", "changed", "unchanged", "undone"})
# How far the numbers reach back, by what the address says.
RANGES = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
_DEFAULT_RANGE = "7d"


def register(
    app: Router, gate: Gate, pages: Pages, services: Services, *, clock: Callable[[], datetime]
) -> None:
    """Declare the pages on *app*."""
    links, domains = services.links, services.domains
    codes = qr_codes.QrCodes()
    style = qr.public_style(services.qr_logo, size=256)

    @app.get(PATH)
    @gate.page(Scope.STATS_READ, deadline_s=ADMIN_S)
    async def show(call: Call[Any], viewer: Viewer) -> Response:
        query = call.request.query
        key, now = await key_of(query, domains), clock()
        wanted = range_of(query)
        since = now - RANGES[wanted]
        counted = await services.stats.hourly(key, since=since, extras=EXTRAS) if key else None
        if counted is None or key is None:
            return errors.not_found()
        link, done = counted.link, query.get("done", "")
        return pages.page(
            "link.html",
            viewer,
            status=200 if link.removed_at is None else 410,
            link=link,
            slug=name_of(link.slug),
            host=domains.index.of(link.slug).host,
            short_url=domains.index.short_url(link.slug),
            condition=condition_of(link.fields, now).value,
            is_removed=link.removed_at is not None,
            numbers=numbers_of(counted, pages.texts) if isinstance(counted, HourlyStats) else None,
            wanted=wanted,
            ranges=list(RANGES),
            is_live=services.event_streams > 0,
            notice=pages.text(f"notice_{done}") if done in _DONE else "",
            **await past(key, query.get("cursor") or None, viewer),
        )

    async def past(key: Slug, cursor: str | None, viewer: Viewer) -> Mapping[str, Any]:
        """Return a page of the changes of the link, for a key that may see them."""
        found = None
        if viewer.can_read:
            before = cursors.number_in(key, cursor)
            found = await services.history.page(key, before=before, limit=_CHANGES)
        if found is None:
            return {"changes": [], "next_cursor": None}
        page = history_api.history_page(found, domains.index)
        return {"changes": [_shown(change) for change in page.changes], "next_cursor": page.next_cursor}

    @app.get("/console/link/qr")
    @gate.page(Scope.LINKS_READ, deadline_s=ADMIN_S)
    async def draw(call: Call[Any], viewer: Viewer) -> Response:
        del viewer
        key = await key_of(call.request.query, domains)
        link = await links.get(key) if key else None
        if not isinstance(link, Link):
            return errors.not_found()
        text = domains.index.short_url(link.slug)
        image = await codes.image(text, "svg", style)
        tag = qr_codes.etag(text, "svg", style)
        return qr_codes.answer(image, "svg", tag, name=name_of(link.slug), is_public=False)


async def key_of(named: Mapping[str, str], domains: Domains) -> Slug | None:
    """Return the key of the link that *named* has as slug and domain; None if there can be none."""
    host, text = named.get("domain") or None, named.get("slug", "").strip()
    try:
        domain = await domains.find(host, "domain")
    except InvalidInput:
        return None
    return domain.known_key(text) if domain is not None else None


def range_of(query: Mapping[str, str]) -> str:
    """Return the name of the range of time that *query* asks for, or of the one that is shown without."""
    wanted = query.get("range", "")
    return wanted if wanted in RANGES else _DEFAULT_RANGE


def _shown(change: history_api.LinkChangeDocument) -> dict[str, Any]:
    """Return a change as the page shows it: its fields before and after."""
    before, after = msgspec.to_builtins(change.before), msgspec.to_builtins(change.after)
    rows = [(name, _text(before[name]), _text(after.get(name))) for name in before]
    return {
        "version": change.version,
        "at": change.at,
        "by": change.by,
        "action": change.action,
        "rows": rows,
    }


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
