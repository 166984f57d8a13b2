"""Visitors of tests: their browsers and bots, and what describes their visits."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from app.adapters.places import NoPlaces
from app.adapters.user_agents import UserAgents
from app.domain.errors import Unavailable
from app.domain.link import Slug
from app.service.visits import VisitDescriber, VisitorKeys
from app.wire import decode_event, encode_event

NOON = datetime(2030, 1, 31, 12, 34, tzinfo=UTC)
SALE = Slug("sale")
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/17.0 Mobile/15E148 Safari/604.1"
)
PIXEL = (
    "Mozilla/5.0 (Linux; Android 13; Pixel 7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/112.0.0.0"
    " Mobile Safari/537.36"
)
TABLET = PIXEL.replace("Pixel 7", "SM-X900").replace(" Mobile", "")
EDGE = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/91.0.4472.124"
    " Safari/537.36 Edg/91.0.864.59"
)
GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


class Keys:
    """A store of visitor keys that may be away."""

    def __init__(self):
        self.keys = {}
        self.is_away = False

    async def visitor_key(self, day, proposed):
        if self.is_away:
            raise Unavailable("store", "away")
        return self.keys.setdefault(day, proposed)

    async def forget_visitor_keys(self, *, before):
        raise AssertionError


def describer(looks, *, places=None, honours=False, keys=None, agents=None, monotonic=lambda: 0.0):
    numbers = itertools.count()
    return VisitDescriber(
        looks if callable(looks) else lambda: looks,
        VisitorKeys(keys or Keys(), random=lambda size: bytes([next(numbers) % 256]) * size),
        agents or UserAgents(),
        places or NoPlaces(),
        honours_objections=honours,
        monotonic=monotonic,
        new_id=lambda: f"{next(numbers):032x}",
    )


async def take(one, now=NOON):
    one.cut(now)
    return await one.take()


async def described(*looks, **options):
    [event] = await take(describer([(look, 1) for look in looks], **options))
    assert decode_event(encode_event(event)) == event
    return event
