"""The first page: the numbers of all links, and what the key may do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from app.concurrency.actors import reach
from app.console.chart import Chart, chart_of
from app.console.gate import Gate
from app.console.links import hosts
from app.console.numbers import EXTRAS, not_found_of, visits_of
from app.console.rendering import Pages, Viewer
from app.domain.reach import EVERYTHING
from app.resilience.deadline import ADMIN_S
from app.service.stats import Overall, reaches_total, total
from app.web.middleware import Call
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services

# What bookmarks may hold as it is.
_READABLE = "()+=',.:?&;/"


def bookmarklet(public_url: str) -> str:
    """Return a bookmark that opens the form for a link to the page that a browser shows; it holds no key."""
    form = json.dumps(f"{public_url}/console/links/new?long_url=")
    here = f"{form}+encodeURIComponent(location.href)+'&title='+encodeURIComponent(document.title)"
    return f"javascript:{quote(f'void(open({here}))', safe=_READABLE)}"


def register(app: Router, gate: Gate, pages: Pages, services: Services) -> None:
    """Declare the page on *app*."""

    @app.get("/console")
    @gate.page(None, deadline_s=ADMIN_S)
    async def overview(call: Call[Any], viewer: Viewer) -> Response:
        # These numbers are of all links: no key that reaches some alone may see them.
        sees_all = viewer.can_read and reaches_total(None)
        totals = await services.listings.totals() if sees_all else None
        counted = [one.host for one in services.domains.index if viewer.can_read and reaches_total(one)]
        asked = call.request.query.get("of", "")
        domain = services.domains.index.named(asked) if asked in counted else None
        overall = None
        if reaches_total(domain) and viewer.can_read:
            of = total(services.domains.index, domain, None)
            overall = await services.stats.overall(of, extras=EXTRAS)
        return pages.page(
            "overview.html",
            viewer,
            totals=totals,
            visits=visits_of(overall.visits, pages.texts) if overall else None,
            not_found=not_found_of(overall.refusals) if overall else None,
            over_time=_chart(overall, pages.texts) if overall else None,
            counted=counted,
            of="" if domain is None else domain.host,
            sees_all=sees_all,
            scopes=sorted(call.principal.scopes),
            key_id=call.principal.key_id,
            until=call.principal.expires_at,
            hosts=hosts(services.domains, call.principal),
            bookmarklet=bookmarklet(services.public_url) if viewer.can_write else "",
            is_restricted=reach() != EVERYTHING,
            # The stream has the figures of all links.
            is_live=sees_all and domain is None and services.event_streams > 0,
        )


def _chart(overall: Overall, texts: Mapping[str, str]) -> Chart:
    points = overall.series or ()
    return chart_of([sum(one.by_kind.values()) for one in points], overall.since, points, texts)
