"""Pages of the console: templates with texts of one language, under a policy that runs nothing of others."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from app.service.keys import Principal, Scope
from app.web.response import NO_SNIFFING, Headers, Response

if TYPE_CHECKING:
    import jinja2

DEFAULT_LANGUAGE = "en"
STYLE, SCRIPT, LIVE = "/console/style.css", "/console/script.js", "/console/live.js"
WORLD = "/console/world.svg"
_MEDIA_TYPES = {STYLE: "text/css; charset=utf-8", WORLD: "image/svg+xml"}
_SCRIPT_TYPE = "text/javascript; charset=utf-8"
_FILES = {STYLE: "console.css", SCRIPT: "console.js", LIVE: "live.js", WORLD: "world/world.svg"}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
# A referrer of the same origin: with none at all, browsers send `Origin: null` with forms.
_HEADERS: Headers = [
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-store"),
    ("content-security-policy", _POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("referrer-policy", "same-origin"),
    ("x-frame-options", "DENY"),
    ("x-robots-tag", "noindex"),
    NO_SNIFFING,
]


# Where a page grows; no value of a template can be this.
_GROWS = "<!-- grows -->"


@dataclass(frozen=True, slots=True)
class Viewer:
    """The key that is signed in, and the token of its forms."""

    principal: Principal
    form_token: str

    @property
    def can_read(self) -> bool:
        """May it see links?"""
        return self.principal.may(Scope.LINKS_READ)

    @property
    def can_write(self) -> bool:
        """May it make links?"""
        return self.principal.may(Scope.LINKS_WRITE)

    @property
    def can_change(self) -> bool:
        """May it change a link that it sees?"""
        return self.can_read and self.can_write

    @property
    def is_admin(self) -> bool:
        """May it do everything?"""
        return self.principal.may(Scope.ADMIN)

    @property
    def can_count(self) -> bool:
        """May it see how often links are visited?"""
        return self.principal.may(Scope.STATS_READ)


class Pages:
    """
    Renders the pages.

    Args:
        language: of the texts; English if they are not there in it.
        base_path: the path of the base URL, which every address of a page begins with.
    """

    def __init__(self, language: str, base_path: str) -> None:
        self.texts = texts(language)
        self._base_path = base_path

    @cached_property
    def _environment(self) -> jinja2.Environment:
        # Importing Jinja takes 50 ms, and most processes never show a page.
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.FunctionLoader(_template),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
        )
        environment.filters |= {"number": self.number, "time": _time, "minute": _minute}
        environment.globals |= {
            "t": self.texts,
            "url": self.url,
            "style": self._versioned(STYLE),
            "script": self._versioned(SCRIPT),
            "live_script": self._versioned(LIVE),
            "world": self._versioned(WORLD),
        }
        return environment

    def url(self, path: str, **query: Any) -> str:
        """Return the address of *path* below the base URL, with those of *query* that are not empty."""
        pairs = [(name, value) for name, value in query.items() if value not in (None, "", (), [])]
        return f"{self._base_path}{path}{'?' if pairs else ''}{urlencode(pairs, doseq=True)}"

    def page(
        self,
        name: str,
        viewer: Viewer | None,
        *,
        status: int = 200,
        headers: Headers = (),
        **values: Any,
    ) -> Response:
        """Return the page of the template *name*."""
        text = self._environment.get_template(name).render(viewer=viewer, **values)
        return Response(status, [*_HEADERS, *headers], text.encode())

    def growing(self, name: str, viewer: Viewer, parts: AsyncGenerator[str, None], **values: Any) -> Response:
        """Return the page of the template *name*, which shows each of *parts* once it is there."""
        template = self._environment.get_template(name)
        head, _, tail = template.render(viewer=viewer, grows=True, **values).partition(_GROWS)

        async def body() -> AsyncGenerator[bytes, None]:
            yield head.encode()
            async with aclosing(parts):
                async for part in parts:
                    yield part.encode()
            yield tail.encode()

        # nginx would collect it first.
        return Response(200, [*_HEADERS, ("x-accel-buffering", "no")], stream=body())

    def fragment(self, name: str, **values: Any) -> str:
        """Return a part of a page, the template *name*."""
        return self._environment.get_template(name).render(**values)

    def redirect(self, path: str, headers: Headers = (), **query: Any) -> Response:
        """Return the answer that sends a browser on with GET."""
        own = [pair for pair in _HEADERS if pair[0] != "content-type"]
        return Response(303, [("location", self.url(path, **query)), *own, *headers])

    def data(self, body: bytes) -> Response:
        """Return the JSON *body*, which the script of a page asks for."""
        own = [pair for pair in _HEADERS if pair[0] != "content-type"]
        return Response(200, [("content-type", "application/json"), *own], body)

    def text(self, name: str, default: str = "") -> str:
        """Return the text *name*."""
        return self.texts.get(name, default)

    def number(self, value: int) -> str:
        """Return *value* as pages show it."""
        return f"{value:,}".replace(",", self.texts["thousands"])

    def _versioned(self, path: str) -> str:
        return self.url(path, v=_digest(path))


def asset(path: str, version: str | None) -> Response:
    """Return the file at *path*; a browser keeps it for good if it asked for this *version*."""
    is_present = version == _digest(path)
    caching = "public, max-age=31536000, immutable" if is_present else "no-cache"
    headers = [
        ("content-type", _MEDIA_TYPES.get(path, _SCRIPT_TYPE)),
        ("cache-control", caching),
        NO_SNIFFING,
    ]
    return Response(200, headers, _file(_FILES[path]))


def texts(language: str) -> Mapping[str, str]:
    """Return the texts in *language*."""
    folder = resources.files("app.console").joinpath("texts")
    file = folder.joinpath(f"{language}.toml")
    if not file.is_file():
        file = folder.joinpath(f"{DEFAULT_LANGUAGE}.toml")
    return tomllib.loads(file.read_text("utf-8"))


def _template(name: str) -> str:
    return _file(f"templates/{name}").decode()


def _file(path: str) -> bytes:
    return resources.files("app.console").joinpath(path).read_bytes()


def _digest(path: str) -> str:
    return hashlib.sha256(_file(_FILES[path])).hexdigest()[:16]


def _time(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _minute(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
