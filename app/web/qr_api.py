"""`GET /api/v1/links/{slug}/qr`: the QR code of a link, in a style of the client's choice."""

from __future__ import annotations

from typing import cast

from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link
from app.domain.link_key import name_of
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S
from app.service.domains import Domains
from app.service.keys import Scope
from app.service.links import Links
from app.web import qr, qr_codes, qr_logo
from app.web.endpoint import Operation, Parameter
from app.web.links_api import DOMAIN, key_in_path, outcome_response
from app.web.middleware import ApiMiddleware, Call
from app.web.parameters import FLAG, Kind, QueryReader, choice, number, one
from app.web.qr import Style
from app.web.qr_logo import Logo
from app.web.response import Response
from app.web.robyn_app import Router

_DEFAULT = Style()
FORMAT = one("format", choice(tuple(qr.MEDIA_TYPES), "format_unknown"), "Default: svg.")
SIZE = one(
    "size",
    number(qr.MIN_SIZE, qr.MAX_SIZE, "size_invalid", _DEFAULT.size),
    "Width and height in pixels. Each module takes whole pixels; the margin takes what is left.",
)
MARGIN = one(
    "margin",
    number(0, qr.MAX_MARGIN, "margin_invalid", _DEFAULT.margin),
    "The light border, in modules. Cameras need four, unless what is around is light.",
)
# What a colour is, is decided together with the contrast.
_COLOR = Kind({"type": "string", "pattern": qr.COLOR, "examples": ["1b3a5c"]}, str)
COLOR = one("color", _COLOR, "Of the dark modules, as rrggbb or rrggbbaa. Default: 000000.")
BACKGROUND = one("background", _COLOR, "Of the rest, likewise. Default: ffffff; ffffff00 is transparent.")
LEVEL = one(
    "error_correction",
    choice(qr.LEVELS, "error_correction_unknown"),
    "How much may be covered or dirty: 7, 15, 25 or 30 percent. Default: M; with a logo H, and no other.",
)
LOGO = one("logo", FLAG, "Put the logo of the service in the middle (`HOPGATE_QR_LOGO`).")
HELD = Parameter(
    "If-None-Match",
    "header",
    {"type": "string"},
    description="Answer by 304 if this is the ETag of the code.",
    is_list=True,
)


def register(
    api: Router,
    middleware: ApiMiddleware,
    links: Links,
    domains: Domains,
    codes: qr_codes.QrCodes,
    *,
    logo: Logo | None,
) -> None:
    """Declare the endpoint on *api*, the router of `/api/v1`; *logo* is that of the service."""

    @api.get("/links/:slug/qr")
    @middleware.endpoint(
        Operation(
            summary="Draw the QR code of a link",
            scope=Scope.LINKS_READ,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, None),
            media_types=tuple(qr.MEDIA_TYPES.values()),
            empty=(304,),
            problems=(404, 410, 422),
            parameters=(DOMAIN, FORMAT, SIZE, MARGIN, COLOR, BACKGROUND, LEVEL, LOGO, HELD),
        )
    )
    async def get_link_qr(call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        wanted = cast("qr.Format", reader.one(FORMAT) or "svg")
        margin = reader.one(MARGIN)
        has_logo = reader.one(LOGO) or False
        style = Style(
            size=reader.one(SIZE) or _DEFAULT.size,
            margin=_DEFAULT.margin if margin is None else margin,
            color=_text(reader.one(COLOR), _DEFAULT.color),
            background=_text(reader.one(BACKGROUND), _DEFAULT.background),
            error_correction=reader.one(LEVEL) or (qr_logo.LEVEL if has_logo else _DEFAULT.error_correction),
            logo=logo if has_logo else None,
        )
        reader.check()
        if has_logo and logo is None:
            raise InvalidInput([FieldError("logo", "logo_missing", "the service has none")])
        qr.check(style)
        name = await key_in_path(call.request, domains)
        link = await links.get(name) if name else None
        if not isinstance(link, Link):
            return outcome_response(link, domains.index, call.principal)
        # As it was asked for: that of an alias is the code of the alias.
        text = domains.index.short_url(name or link.slug)
        tag = qr_codes.etag(text, wanted, style)
        is_held = qr_codes.is_held(tag, call.request.headers.get("if-none-match"))
        image = None if is_held else await codes.image(text, wanted, style)
        return qr_codes.answer(image, wanted, tag, name=name_of(name or link.slug), is_public=False)


def _text(value: str | None, default: str) -> str:
    return default if value is None else value
