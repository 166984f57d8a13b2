"""
What may follow the slug of a link in an address: `+`, its preview, and `.qr`, its QR code.

No slug has such a character, so no link is hidden by it. A messenger may write `+` as `%2B`: in a path
both are the same character unless the service gives them different meanings (RFC 3986 section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable

from app.concurrency.tarpit import Tarpit
from app.concurrency.time_limit import within
from app.domain import slug as slugs
from app.domain.errors import InvalidInput, Overloaded, Unavailable
from app.domain.link import REDIRECT_CODES, Link, Slug
from app.domain.link_key import name_of
from app.resilience.admission import AdmissionController, WorkKind
from app.resilience.deadline import REDIRECT_S
from app.service.domains import Domains
from app.service.links import Links
from app.web import errors, preview, qr, qr_codes
from app.web.qr import Format
from app.web.qr_logo import Logo
from app.web.redirects import RedirectHandler
from app.web.request import Request
from app.web.response import Response

_PREVIEW, _QR = "+", ".qr"
# As documents and metrics call them.
SUFFIXES = (_PREVIEW, _QR)
_FORMATS: dict[str, Format] = {_QR: "svg", ".qr.svg": "svg", ".qr.png": "png"}
# Requests that a code counts as if it has to be drawn: so one client takes a tenth of a processor at most,
# under the limit that ships.
DRAWING_COST = 5


def suffix_of(text: str) -> str:
    """Return which of `SUFFIXES` follows the slug in *text*, as it was typed or pasted; empty: none."""
    ending = _ending(text)
    return _QR if ending in _FORMATS else ending


def without_suffix(text: str) -> str:
    """Return *text* without what follows the slug."""
    return slugs.as_pasted(text).removesuffix(_ending(text)) if _ending(text) else text


def _ending(text: str) -> str:
    bare = slugs.as_pasted(text)
    return next((one for one in (_PREVIEW, *_FORMATS) if bare.endswith(one)), "")


class AfterSlug:
    """
    Answers visits of a slug with a suffix.

    A visit of the slug alone is charged to the same limits, and has the same answer if that is no redirect.

    Args:
        has_preview: False: what is asked for by `+` is not there.
        logo: of the codes; None if they have none.
        on_error: is notified of each error that leaves something out of an answer, or ends a request.
    """

    def __init__(
        self,
        *,
        redirects: RedirectHandler,
        links: Links,
        domains: Domains,
        codes: qr_codes.QrCodes,
        admission: AdmissionController,
        tarpit: Tarpit,
        has_preview: bool,
        logo: Logo | None,
        on_error: Callable[[Exception], None],
    ) -> None:
        self._redirects = redirects
        self._links = links
        self._domains = domains
        self._codes = codes
        self._admission = admission
        self._tarpit = tarpit
        self._has_preview = has_preview
        self._style = qr.public_style(logo)
        self._on_error = on_error

    async def answer(self, request: Request, text: str) -> Response:
        """Answer a visit of *text*, which is no slug."""
        host, ending = request.headers.get("host"), _ending(text)
        slug = None
        if ending and (ending != _PREVIEW or self._has_preview):
            name = slugs.as_pasted(text).removesuffix(ending)
            # A look-up would have "no such link" in the cache, and that in place of the page.
            slug = None if slugs.is_page(name) else self._redirects.visited(host, name)
        if slug is None:
            return self._redirects.unknown(host, request.client)
        if ending == _PREVIEW:
            return await self._preview(request, slug)
        return await self._code(request, slug, _FORMATS[ending])

    async def _preview(self, request: Request, slug: Slug) -> Response:
        found = await self._look(slug, request.client)
        if not _redirects(found):
            return found
        link = None if request.method == "HEAD" else await self._link(slug)
        # `render` puts the target first.
        return preview.page(self._domains.index.short_url(slug), found.headers[0][1], link)

    async def _code(self, request: Request, slug: Slug, wanted: Format) -> Response:
        text = self._domains.index.short_url(slug)
        tag = qr_codes.etag(text, wanted, self._style)
        is_held = qr_codes.is_held(tag, request.headers.get("if-none-match"))
        is_free = is_held or self._codes.has(text, wanted, self._style)
        found = await self._look(slug, request.client, cost=1 if is_free else DRAWING_COST)
        if not _redirects(found):
            return found
        image = None
        if not is_held:
            try:
                image = await self._codes.image(text, wanted, self._style)
            except Overloaded as error:
                self._on_error(error)
                return errors.overloaded()
            except InvalidInput as error:
                return errors.invalid(error)
        return qr_codes.answer(image, wanted, tag, name=name_of(slug), is_public=True)

    async def _look(self, slug: Slug, client: str, cost: int = 1) -> Response:
        found = await self._redirects.look(slug, client, cost=cost)
        if found.status in {404, 429} or found.stands_for == 404:
            await self._tarpit.hold()
        return found

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


def _redirects(found: Response) -> bool:
    return found.status in REDIRECT_CODES and not found.stands_for
