"""The preview of a link: a page that shows where it leads, and redirects no visitor."""

from __future__ import annotations

import functools
from datetime import datetime
from html import escape
from importlib import resources
from string import Template

from msgspec.structs import replace

from app.domain import target
from app.domain.link import Link
from app.web import html
from app.web.response import Response

_NOT_INDEXED = ("x-robots-tag", "noindex, nofollow")
_UNKNOWN = '<p class="note">Its title and age cannot be read at the moment.</p>\n'


def page(short_url: str, url: str, link: Link | None) -> Response:
    """
    Return the page of the link at *short_url*.

    Args:
        url: where a visit leads now, in canonical form.
        link: has the title and the date; None: they cannot be read.
    """
    before, name, after = map(escape, target.parts(url))
    text = _template().substitute(
        short_url=escape(short_url),
        href=escape(url),
        target=f"{before}<strong>{name}</strong>{after}",
        details=_in_unicode(url) + (_UNKNOWN if link is None else _details(link)),
    )
    response = html.page(text.encode())
    return replace(response, headers=[*response.headers, _NOT_INDEXED])


def _in_unicode(url: str) -> str:
    host = target.unicode_host(url)
    if not host:
        return ""
    return (
        f"<p>The name of this site in its own letters: <bdi>{escape(host)}</bdi>."
        " Letters of different scripts can look alike.</p>\n"
    )


def _details(link: Link) -> str:
    title = link.fields.title
    shown = f"<dt>Title</dt><dd><bdi>{escape(title)}</bdi></dd>" if title else ""
    return f"<dl>{shown}<dt>Created</dt><dd>{_day(link.created_at)}</dd></dl>\n"


def _day(moment: datetime) -> str:
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d}</time>'


@functools.cache
def _template() -> Template:
    return Template(resources.files("app.web").joinpath("preview.html").read_text("utf-8"))
