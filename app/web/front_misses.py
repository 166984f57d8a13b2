"""What the requests of a front wait for: one call of the event loop for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from hopgate_front import Front

from app.concurrency.origins import on_behalf_of
from app.domain.errors import Overloaded, Unavailable
from app.domain.link import Slug
from app.domain.origin import Origin
from app.web.front import template_of
from app.web.front_records import LookUpOrigins
from app.web.pages import NO_PAGES, Pages
from app.web.redirects import RedirectHandler
from app.web.response import Response

# Entries are renewed together: each batch costs as much as several of its slugs. Short beside the time that
# is left of an entry when it is to be renewed.
RENEWAL_S = 0.02
# More slugs than ever wait at a time.
_NEVER = 2**32


class FrontMisses:
    """
    Looks up the slugs that a front has no fresh entry for, and leases the visits that it has none of.

    A look-up fills the L1 cache, and with it the front's table, which answers all that wait; see
    `app.service.resolver.Crowd`. The front answers by itself what is late.

    Args:
        failed: makes the answer to what ends with an error that is a bug.
        origins: finds the traces that look-ups are a part of; None if there are none.
        pages: what people get in place of problems.
    """

    def __init__(
        self,
        front: Front,
        redirects: RedirectHandler,
        failed: Callable[[str, Exception], Response],
        origins: LookUpOrigins | None = None,
        pages: Pages = NO_PAGES,
    ) -> None:
        self._front = front
        self._redirects = redirects
        self._failed = failed
        self._origins = origins
        self._pages = pages
        self._renewal: asyncio.TimerHandle | None = None
        self._leasing: set[asyncio.Task[None]] = set()

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take questions from now on."""
        self._loop = loop
        loop.add_reader(self._front.look_up(is_open=True), self._take)
        self._redirects.call_on_room(self._take)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take no more."""
        self._redirects.call_on_room(lambda: None)
        loop.remove_reader(self._front.look_up(is_open=False))
        if self._renewal is not None:
            self._renewal.cancel()
        for task in self._leasing:
            task.cancel()

    def awaited(self, slugs: Sequence[Slug]) -> Sequence[Slug]:
        """Return those of *slugs* that a request waits for; the front forgets the others."""
        counts = self._front.awaited(slugs)
        return [slug for slug, count in zip(slugs, counts, strict=True) if count]

    def set_exception(self, slugs: Sequence[Slug], error: Exception, /) -> None:
        """Answer those that wait for *slugs*: stale if possible."""
        front, refused = self._front, []
        is_expected = isinstance(error, Unavailable | Overloaded)
        for slug, count in zip(slugs, front.awaited(slugs), strict=True):
            if count and not (is_expected and self._redirects.stale(slug, count)):
                refused.append(slug)
        if refused:
            answers = [template_of(one, self._pages) for one in self._answers(error)]
            self._note(error, front.refuse(refused, answers))

    def _answers(self, error: Exception) -> list[Response]:
        if isinstance(error, Unavailable | Overloaded):
            return self._redirects.refusals(error)
        return [self._failed("GET /{slug}", error)]

    def _note(self, error: Exception, requests: int) -> None:
        """Note that *requests* were answered. Known only afterwards: others join until then."""
        if isinstance(error, Unavailable | Overloaded):
            self._redirects.note_refused(error, requests)

    def _take(self) -> None:
        slugs, leases, has_renewals = self._front.take_misses()
        for some, origins in self._by_origin(slugs):
            with on_behalf_of(origins):
                self._look_up(some)
        for slug, version in leases:
            [(_, origins)] = self._by_origin([slug])
            with on_behalf_of(origins):
                task = self._loop.create_task(self._lease(Slug(slug), version))
            self._leasing.add(task)
            task.add_done_callback(self._leasing.discard)
        room_from = self._redirects.room_from
        self._front.ring_from(_NEVER if room_from is None else room_from)
        if has_renewals and self._renewal is None:
            self._renewal = self._loop.call_later(RENEWAL_S, self._renew)

    def _by_origin(self, slugs: list[str]) -> Iterator[tuple[list[Slug], tuple[Origin, ...]]]:
        """Part *slugs* into those of one trace each, which are few, and all others."""
        traced = {} if self._origins is None or not slugs else self._origins.of(slugs)
        for slug, origins in traced.items():
            yield [Slug(slug)], origins
        others = [Slug(slug) for slug in slugs if slug not in traced]
        if others:
            yield others, ()

    def _look_up(self, slugs: Sequence[Slug]) -> None:
        try:
            held = self._redirects.look_up(slugs, self)
            # Those that were put between the front's look at its table and its question.
            gone = self._front.send_held(held) if held else ()
        except Exception as error:  # noqa: BLE001 - a bug: nothing else would answer
            self.set_exception(slugs, error)
            return
        if gone:
            self._front.refuse(gone, [template_of(self._failed("GET /{slug}", KeyError(*gone)))])

    def _renew(self) -> None:
        self._renewal = None
        self._redirects.renew([Slug(slug) for slug in self._front.take_renewals()])

    async def _lease(self, slug: Slug, version: int) -> None:
        front = self._front
        try:
            has_limit = await self._redirects.lease(slug, version)
        except Exception as error:  # noqa: BLE001 - as above
            [answer, *_] = self._answers(error)
            self._note(error, front.refuse_lease(slug, template_of(answer, self._pages)))
        else:
            front.leased(slug, version, has_limit)
