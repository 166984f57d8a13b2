"""
The pages that people get in place of problem documents, if their browser prefers HTML.

    texts/LANGUAGE.toml   what they say
    page.html             how they look; an operator's own folder may replace it, or the page of one status

They are made once, at the start: what a request brings along is on none of them.
"""

from __future__ import annotations

import html as markup
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from msgspec.structs import replace

from app.domain.errors import SettingsError
from app.web import html
from app.web.accept import wants_page
from app.web.response import Response

DEFAULT_LANGUAGE = "en"
ROOT = "root"
STATUSES = (400, 404, 410, 429, 451, 503)
# The template of all pages that have none of their own.
LAYOUT = "page.html"
MAX_BYTES = 65_536
_NAMES = (ROOT, *map(str, STATUSES))
_FILES = frozenset({LAYOUT, *(f"{name}.html" for name in _NAMES)})
_PLACEHOLDERS = frozenset({"lang", "title", "text", "status"})
_VARY = ("vary", "accept")
_NO_INDEX = ("x-robots-tag", "noindex")
# Headers of a problem that describe its document; the page has its own.
_OF_DOCUMENT = frozenset(
    {"content-type", "cache-control", "content-security-policy", "x-content-type-options"}
)


class Pages:
    """
    Chooses between problems and pages.

    Args:
        by_status: the pages.
        root: of the host itself; None if it has none.
    """

    def __init__(self, by_status: Mapping[int, Response], root: Response | None = None) -> None:
        self._by_status = by_status
        self.root = root if root is None else replace(root, headers=[*root.headers, _VARY])

    def page_of(self, problem: Response) -> Response | None:
        """Return the page in place of *problem*, with its own headers; None if it has none."""
        page = self._by_status.get(problem.status)
        if page is None or not problem.body:
            return None
        own = [pair for pair in problem.headers if pair[0] not in _OF_DOCUMENT]
        return replace(page, headers=[*page.headers, *own])

    def negotiated(self, response: Response, headers: Any) -> Response:
        """Return what a request with *headers*, as granian shows them, gets for *response*."""
        if response.status not in self._by_status or not response.body:
            return response
        page = self.page_of(response) if wants_page(headers) else None
        chosen = response if page is None else page
        return replace(chosen, headers=[*chosen.headers, _VARY])


# Every request gets the problem.
NO_PAGES = Pages({})


def load(language: str, folder: Path | None = None) -> Pages:
    """
    Return the pages in *language*, by the templates in *folder* where it has some.

    Raises:
        SettingsError: there is no such language, or a file that cannot be used.
    """
    texts, templates = _texts(language), {} if folder is None else _templates(folder)
    layout = templates.get(LAYOUT) or Template(_shipped(LAYOUT).decode())
    made: dict[str, Response] = {}
    for name in _NAMES:
        template = templates.get(f"{name}.html", layout)
        fields = {key: markup.escape(texts[name][key]) for key in ("title", "text")}
        status = "" if name == ROOT else name
        page = template.substitute(fields, lang=language, status=status)
        made[name] = html.page(
            page.encode(), status=int(status or 200), headers=[("content-language", language), _NO_INDEX]
        )
    return Pages({status: made[str(status)] for status in STATUSES}, made[ROOT])


def languages() -> list[str]:
    """Return the languages that the pages are there in."""
    files = resources.files("app.web").joinpath("texts").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def _texts(language: str) -> Mapping[str, Mapping[str, str]]:
    known = languages()
    if language not in known:
        message = f"HOPGATE_LANGUAGE: {language!a} is none of {', '.join(known)}"
        raise SettingsError(message)
    return tomllib.loads(_shipped(f"texts/{language}.toml").decode())


def _shipped(path: str) -> bytes:
    return resources.files("app.web").joinpath(path).read_bytes()


def _templates(folder: Path) -> dict[str, Template]:
    try:
        # Those that begin with a dot are of the system that put the others there.
        files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from None
    unknown = next((file for file in files if file.name not in _FILES), None)
    if unknown is not None:
        raise _unusable(unknown, f"the names of templates are {', '.join(sorted(_FILES))}")
    if not files:
        raise _unusable(folder, f"has none of {', '.join(sorted(_FILES))}")
    return {file.name: _template(file) for file in files}


def _template(file: Path) -> Template:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unusable(file, error.strerror or str(error)) from None
    if len(content) > MAX_BYTES:
        raise _unusable(file, f"has more than {MAX_BYTES} bytes")
    try:
        # Browsers read line ends so, and compare the digests of styles afterwards.
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise _unusable(file, "is not UTF-8") from None
    template = Template(text)
    names = template.get_identifiers() if template.is_valid() else None
    if names is None:
        raise _unusable(file, "has a $ that begins no placeholder: write $$ for the character")
    unknown = sorted(set(names) - _PLACEHOLDERS)
    if unknown:
        known = ", ".join(f"${name}" for name in sorted(_PLACEHOLDERS))
        raise _unusable(file, f"has the placeholder ${ascii(unknown[0])[1:-1]}, which is none of {known}")
    if not text.strip():
        raise _unusable(file, "is empty")
    return template


def _unusable(path: Path, why: str) -> SettingsError:
    return SettingsError(f"HOPGATE_PAGES: {path}: {why}")
