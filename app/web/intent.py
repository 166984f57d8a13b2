"""Tells a visitor from a program that only looks at a link: a prefetch, or a maker of previews."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Any

# Where browsers announce a request that the user has not asked for yet.
_PURPOSE = ("sec-purpose", "purpose", "x-purpose", "x-moz")
_AHEAD = frozenset({"prefetch", "prerender", "preview"})
# Programs that show a preview of a link, or crawl. Not the names of apps that open links in a browser of
# their own: there, the same name is a visitor's. Cubot makes telephones.
_PREVIEWS = re.compile(
    r"(?<!cu)bot\b|crawler|spider|preview|unfurl|facebookexternalhit|facebookcatalog|meta-external"
    r"|whatsapp/|slack-imgproxy|facebot|mastodon/|pleroma|akkoma|misskey|firefish|friendica|lemmy"
    r"|gotosocial|peertube|iframely|embedly|vkshare|viber/|kakaotalk-scrap|cardyb|synapse|rocket\.chat"
    r"|google-pagerenderer|google-safety|snippet|microsoft office|ms-office|skype for business"
    r"|flipboardproxy|quora link|w3c_validator|validator\.nu|checklink|linkcheck|urlscan"
    r"|xing-contenttabreceiver|yahoo! slurp|qwantify|line-poker|^tumblr/|headlesschrome"
    r"|barracuda sentinel|proofpoint|mimecast",
    re.IGNORECASE,
)


class Intent(Enum):
    """Why a link is requested."""

    VISIT = auto()
    PREFETCH = auto()
    PREVIEW = auto()


def intent_of(headers: Any) -> Intent:
    """
    Return why a request with *headers* was made.

    Anyone can claim to be a preview: the answer depends on it only where nothing is lost by that.
    """
    for name in _PURPOSE:
        if _AHEAD & _tokens(",".join(headers.get_all(name))):
            return Intent.PREFETCH
    return Intent.PREVIEW if _PREVIEWS.search(" ".join(headers.get_all("user-agent"))) else Intent.VISIT


def _tokens(value: str) -> set[str]:
    return {token.strip().lower() for token in re.split("[;,]", value)}
