"""`Agents` by ua-parser: its rules name browsers, systems, devices and bots."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from app.domain.visits import UNKNOWN, Agent

if TYPE_CHECKING:
    from ua_parser import Parser

# Browsers of people begin like this; HTTP libraries and most other programs do not.
_BROWSER = re.compile(r"(?:Mozilla|Opera)/")
# Programs that fetch a page as soon as its link is shared, to show what is there.
_PREVIEWS = re.compile(
    "facebookexternalhit|facebookcatalog|meta-external|twitterbot|whatsapp/|slackbot|slack-imgproxy|discordbot"
    "|telegrambot|linkedinbot|pinterestbot|redditbot|skypeuripreview|mastodon/|bluesky|cardyb|iframely|embedly"
    "|vkshare|viber/|line-poker|preview|unfurl|snippet",
    re.IGNORECASE,
)
# Crawlers name themselves, or the page that says what they are.
_BOTS = re.compile(
    r"(?<!cu)bot\b|crawler|spider|slurp|headlesschrome|lighthouse|pingdom|uptimerobot|google(?:other|-\w)"
    r"|mediapartners|feedfetcher|archiver|monitor|[(; ]\+https?:",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?:\(compatible; )?([A-Za-z][A-Za-z0-9 ._-]{0,40}?)[/;)\s]")
_DESKTOPS = ("Windows", "Mac OS X", "Linux", "Chrome OS", "Ubuntu", "Fedora", "FreeBSD", "OpenBSD", "NetBSD")
_MAX_KNOWN = 4096


@cache
def rules() -> Parser:
    """
    Return the rules of this process for browsers and systems.

    Compiling them keeps every thread waiting, for 50 ms of a processor. Those of devices take 70 more, and
    tell bots that their names tell as well.
    """
    from ua_parser import Parser
    from ua_parser.loaders import load_lazy_builtins
    from ua_parser.regex import Resolver

    browsers, systems, _ = load_lazy_builtins()
    return Parser(Resolver((browsers, systems, [])))


class UserAgents:
    """
    Reads `User-Agent` by the rules of ua-parser. Calls may come from any thread.

    Made before requests are served, as it compiles the rules.
    """

    def __init__(self) -> None:
        self._rules = rules()
        self.agent = lru_cache(maxsize=_MAX_KNOWN)(self._agent)

    def _agent(self, user_agent: str) -> Agent:
        # The rules are of another language, which has no surrogates.
        user_agent = user_agent.encode(errors="replace").decode()
        parsed = self._rules.parse(user_agent)
        family = parsed.user_agent.family if parsed.user_agent else None
        if _PREVIEWS.search(user_agent):
            return Agent(bot=family or _named(user_agent), is_preview=True)
        if _BOTS.search(user_agent) or _BROWSER.match(user_agent) is None:
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
