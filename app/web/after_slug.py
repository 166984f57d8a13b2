"""
What may follow the slug of a link in an address: `+`, its preview.

No slug has such a character, so no link is hidden by it. A messenger may write `+` as `%2B`: in a path
both are the same character unless the service gives them different meanings (RFC 3986 section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable

from app.concurrency.tarpit import Tarpit
from app.concurrency.time_limit import within
from app.domain import slug as slugs
from app.domain.errors import Overloaded, Unavailable
from app.domain.link import REDIRECT_CODES, Link, Slug
from app.resilience.admission import AdmissionController, WorkKind
from app.resilience.deadline import REDIRECT_S
from app.service.links import Links
from app.web import preview
from app.web.redirects import RedirectHandler
from app.web.request import Request
from app.web.response import Response

PREVIEW = "+"
SUFFIXES = (PREVIEW,)


def suffix_of(text: str) -> str:
    """Return what follows the slug in *text*, as a visitor typed or pasted it; empty: nothing does."""
    bare = slugs.as_pasted(text)
    return PREVIEW if bare.endswith(PREVIEW) else ""


class AfterSlug:
    """
    Answers visits of a slug with a suffix.

    A visit of the slug alone is charged to the same limits, and has the same answer if that is no redirect.

    Args:
        has_preview: False: what is asked for by `+` is not there.
        on_error: is notified of each error that leaves something out of an answer.
    """

    def __init__(
        self,
        redirects: RedirectHandler,
        links: Links,
        admission: AdmissionController,
        tarpit: Tarpit,
        *,
        short_url: Callable[[str], str],
        has_preview: bool,
        on_error: Callable[[Exception], None],
    ) -> None:
        self._redirects = redirects
        self._links = links
        self._admission = admission
        self._tarpit = tarpit
        self._short_url = short_url
        self._has_preview = has_preview
        self._on_error = on_error

    async def answer(self, request: Request, text: str) -> Response:
        """Answer a visit of *text*, which is no slug."""
        host, client = request.headers.get("host"), request.client
        suffix = suffix_of(text)
        name = slugs.as_pasted(text).removesuffix(suffix) if suffix else ""
        slug = self._redirects.visited(host, name)
        if slug is None or not self._has_preview:
            return self._redirects.unknown(host, client)
        found = await self._redirects.look(slug, client)
        if found.status not in REDIRECT_CODES or found.stands_for:
            if found.status in {404, 429} or found.stands_for == 404:
                await self._tarpit.hold()
            return found
        link = None if request.method == "HEAD" else await self._link(slug)
        # `render` puts the target first.
        return preview.page(self._short_url(slug), found.headers[0][1], link)

    async def _link(self, slug: Slug) -> Link | None:
        """Return the link *slug* if it can be read now: the page is of use without it."""
        try:
            entered = self._admission.enter(WorkKind.LIST)
        except Overloaded:
            return None
        succeeded = False
        try:
            async with within(REDIRECT_S):
                found = await self._links.get(slug)
            succeeded = True
        except (Unavailable, TimeoutError) as error:
            self._on_error(error)
            return None
        finally:
            self._admission.leave(WorkKind.LIST, entered, succeeded=succeeded)
        return found if isinstance(found, Link) else None
