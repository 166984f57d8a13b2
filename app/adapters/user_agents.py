"""`Agents` by ua-parser: its rules name browsers, systems, devices and bots."""

from __future__ import annotations

import re
from functools import lru_cache

from app.domain.visits import UNKNOWN, Agent

# Browsers of people begin like this; HTTP libraries and most other programs do not.
_BROWSER = re.compile(r"(?:Mozilla|Opera)/")
# Programs that fetch a page as soon as its link is shared, to show what is there.
_PREVIEWS = re.compile(
    "facebookexternalhit|facebookcatalog|meta-external|twitterbot|whatsapp/|slackbot|slack-imgproxy|discordbot"
    "|telegrambot|linkedinbot|pinterestbot|redditbot|skypeuripreview|mastodon/|bluesky|cardyb|iframely|embedly"
    "|vkshare|viber/|line-poker|preview|unfurl|snippet",
    re.IGNORECASE,
)
# Beside what ua-parser knows.
_BOTS = re.compile(
    r"(?<!cu)bot\b|crawler|spider|headlesschrome|lighthouse|pingdom|uptimerobot", re.IGNORECASE
)
_NAME = re.compile(r"(?:\(compatible; )?([A-Za-z][A-Za-z0-9 ._-]{0,40}?)[/;)\s]")
_DESKTOPS = ("Windows", "Mac OS X", "Linux", "Chrome OS", "Ubuntu", "Fedora", "FreeBSD", "OpenBSD", "NetBSD")
_MAX_KNOWN = 4096


class UserAgents:
    """
    Reads `User-Agent` by the rules of ua-parser. Calls may come from any thread.

    The first one compiles the rules, which takes up to a second.
    """

    def __init__(self) -> None:
        self.agent = lru_cache(maxsize=_MAX_KNOWN)(_agent)


def _agent(user_agent: str) -> Agent:
    import ua_parser

    # Its rules are of another language, which has no surrogates.
    user_agent = user_agent.encode(errors="replace").decode()
    parsed = ua_parser.parse(user_agent)
    family = parsed.user_agent.family if parsed.user_agent else None
    if _PREVIEWS.search(user_agent):
        return Agent(bot=family or _named(user_agent), is_preview=True)
    is_spider = parsed.device is not None and parsed.device.brand == "Spider"
    if is_spider or _BOTS.search(user_agent) or _BROWSER.match(user_agent) is None:
        return Agent(bot=family or _named(user_agent))
    os = parsed.os.family if parsed.os else UNKNOWN
    return Agent(browser=family or UNKNOWN, os=os, device=_device(os, user_agent))


def _device(os: str, user_agent: str) -> str:
    match os:
        case "iOS":
            return "tablet" if "iPad" in user_agent else "phone"
        case "Android":
            # Android's own rule: browsers of tablets leave the word out.
            return "phone" if "Mobile" in user_agent else "tablet"
        case _ if os.startswith(_DESKTOPS):
            return "desktop"
    return "phone" if "Mobile" in user_agent else UNKNOWN


def _named(user_agent: str) -> str:
    match = _NAME.match(f"{user_agent} ")
    return match[1] if match else UNKNOWN
