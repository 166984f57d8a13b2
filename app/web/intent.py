"""Tells a visitor from a program that only looks at a link: a prefetch, or a maker of previews."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Any

# Where browsers announce a request that the user has not asked for yet.
_PURPOSE = ("sec-purpose", "purpose", "x-purpose", "x-moz")
_AHEAD = frozenset({"prefetch", "prerender", "preview"})
# Programs that show a preview of a link, or crawl, by words of their `User-Agent` in lower case. Not the
# names of apps that open links in a browser of their own: there, the same name is a visitor's.
PREVIEW_WORDS = (
    *("crawler", "spider", "preview", "unfurl", "facebookexternalhit", "facebookcatalog", "meta-external"),
    *("whatsapp/", "slack-imgproxy", "facebot", "mastodon/", "pleroma", "akkoma", "misskey", "firefish"),
    *("friendica", "lemmy", "gotosocial", "peertube", "iframely", "embedly", "vkshare", "viber/"),
    *("kakaotalk-scrap", "cardyb", "synapse", "rocket.chat", "google-pagerenderer", "google-safety"),
    *("snippet", "microsoft office", "ms-office", "skype for business", "flipboardproxy", "quora link"),
    *("w3c_validator", "validator.nu", "checklink", "linkcheck", "urlscan", "xing-contenttabreceiver"),
    *("yahoo! slurp", "qwantify", "line-poker", "headlesschrome", "barracuda sentinel", "proofpoint"),
    "mimecast",
)
# The same, where it begins with them.
PREVIEW_STARTS = ("tumblr/",)
# And any word that ends with bot. Cubot makes telephones.
_PREVIEWS = re.compile(
    "|".join(
        (
            r"(?<!cu)bot\b",
            *map(re.escape, PREVIEW_WORDS),
            *(f"^{re.escape(start)}" for start in PREVIEW_STARTS),
        )
    ),
    re.IGNORECASE | re.ASCII,
)


class Intent(Enum):
    """Why a link is requested."""

    VISIT = auto()
    PREFETCH = auto()
    PREVIEW = auto()
    # The page of this service about a link.
    LOOK = auto()


def intent_of(headers: Any) -> Intent:
    """
    Return why a request with *headers* was made.

    Anyone can claim to be a preview: the answer depends on it only where nothing is lost by that.
    """
    if is_ahead(headers):
        return Intent.PREFETCH
    return Intent.PREVIEW if _PREVIEWS.search(" ".join(headers.get_all("user-agent"))) else Intent.VISIT


def is_ahead(headers: Any) -> bool:
    """Does a browser that sends *headers* ask before its user does?"""
    values = (headers.get_all(name) for name in _PURPOSE)
    return any(_AHEAD & _tokens(",".join(lines)) for lines in values if lines)


def _tokens(value: str) -> set[str]:
    return {token.strip().lower() for token in re.split("[;,]", value)}
