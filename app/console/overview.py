"""The first page: the numbers of all links, and what the key may do."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from app.concurrency.actors import reach
from app.console.gate import Gate
from app.console.links import hosts
from app.console.numbers import visits_of
from app.console.rendering import Pages, Viewer
from app.domain.reach import EVERYTHING
from app.resilience.deadline import ADMIN_S
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
        sees_all = viewer.can_read and reach() == EVERYTHING
        totals = await services.listings.totals() if sees_all else None
        visits = visits_of((await services.stats.overall()).visits, pages.texts) if sees_all else None
        return pages.page(
            "overview.html",
            viewer,
            totals=totals,
            visits=visits,
            scopes=sorted(call.principal.scopes),
            key_id=call.principal.key_id,
            until=call.principal.expires_at,
            hosts=hosts(services.domains, call.principal),
            bookmarklet=bookmarklet(services.public_url) if viewer.can_write else "",
            is_restricted=reach() != EVERYTHING,
        )
