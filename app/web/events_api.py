"""`GET /api/v1/events`: what happens to links, as server-sent events; a client goes on where it stopped."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from time import monotonic

from app.concurrency.actors import reach
from app.domain.reach import Reach
from app.domain.webhooks import EventFilter, EventKind, LinkEvent
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S
from app.service.domains import Domains
from app.service.event_feed import EventFeed, Place, Portion
from app.service.keys import Scope
from app.service.webhooks import checked_kinds
from app.web import errors, patterns
from app.web.endpoint import Operation, Parameter
from app.web.event_streams import HEADERS, MEDIA_TYPE, RETRY_MS, TICK_S, OpenStreams
from app.web.middleware import ApiMiddleware, Call, bearer
from app.web.parameters import Kind, QueryReader, listed, one, printable
from app.web.response import SECURITY_HEADERS, Response
from app.web.robyn_app import Router

# Proxies close connections that are silent for half a minute.
_HEARTBEAT_S = 10.0
_HEADERS = (*HEADERS, *SECURITY_HEADERS)

KINDS = listed(
    "kinds",
    Kind({"type": "string", "enum": [str(kind) for kind in EventKind]}, str),
    "Only events of these kinds, separated by commas.",
)
DOMAIN = one(
    "domain", Kind({"type": "string", "pattern": patterns.HOST}, str), "Only of links of this domain."
)
TAG = one("tag", printable(1, 50, "tag_invalid"), "Only of links with this tag.")
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    {"type": "string", "pattern": "^0-0{8}$"},
    description="The `id` of the last message that was read. Those after it come first; if not all are kept,"
    " or the id is of another history of the store, a message `reset` comes instead.",
)


def register(
    api: Router,
    middleware: ApiMiddleware,
    feed: EventFeed,
    domains: Domains,
    *,
    most: int,
    is_draining: Callable[[], bool],
) -> None:
    """Declare the stream on *api*, the router of `/api/v1`; *most* are served at a time."""
    streams = _Streams(feed, OpenStreams(middleware, is_draining, most=most))

    @api.get("/events")
    @middleware.endpoint(
        Operation(
            summary="Follow what happens to links, as server-sent events",
            scope=Scope.LINKS_READ,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, None),
            stream_type=MEDIA_TYPE,
            problems=(422,),
            parameters=(KINDS, DOMAIN, TAG, LAST_EVENT_ID),
            asks_others=True,
        )
    )
    async def follow_events(call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        kinds, host, tag = reader.listed(KINDS), reader.one(DOMAIN), reader.one(TAG)
        reader.check()
        if host is not None:
            await domains.refresh()
            host = domains.index.served(host).host
        if streams.open.are_full():
            return errors.overloaded()
        wanted = EventFilter(kinds=checked_kinds(kinds), domain=host, tag=tag)
        return await streams.started(call, wanted)


class _Streams:
    """The streams of this process."""

    def __init__(self, feed: EventFeed, streams: OpenStreams) -> None:
        self._feed = feed
        self.open = streams

    async def started(self, call: Call[None], wanted: EventFilter) -> Response:
        """Return a stream whose first portion is there: what is wrong with its id is an answer of its own."""
        end = self.open.watch(Scope.LINKS_READ, bearer(call.request))

        async def goes_on() -> bool:
            return await end() is None

        portions = self._feed.read(
            wanted, call.request.headers.get("last-event-id"), pause_s=TICK_S, goes_on=goes_on
        )
        first = await anext(portions)
        if call.request.method == "HEAD":
            await portions.aclose()
            return Response(200, list(_HEADERS))
        # The stream goes on outside of the request, whose key it is for.
        return Response(200, list(_HEADERS), stream=self._stream(first, portions, reach()))

    async def _stream(
        self, first: Portion, portions: AsyncGenerator[Portion, None], within: Reach
    ) -> AsyncGenerator[bytes, None]:
        with self.open.place():
            async with aclosing(portions):
                yield self._began(first)
                sent_at = monotonic()
                async for portion in portions:
                    if portion.is_reset:
                        yield self._began(portion)
                        sent_at = monotonic()
                        continue
                    events = [pair for pair in portion.events if within.holds(pair[1].link)]
                    if events:
                        yield self._messages(events)
                    elif monotonic() - sent_at >= _HEARTBEAT_S:
                        # A message without data moves the id on, and clients show none.
                        yield f": \nid: {portion.place}\n\n".encode()
                    else:
                        continue
                    sent_at = monotonic()

    def _began(self, first: Portion) -> bytes:
        began = f"retry: {RETRY_MS}\nid: {first.place}\n"
        if first.is_reset:
            began += 'event: reset\ndata: {"detail": "Events were missed: read the links anew"}\n'
        return f"{began}\n".encode()

    def _messages(self, events: Sequence[tuple[Place, LinkEvent]]) -> bytes:
        view = self._feed.view
        return b"".join(
            b"id: %b\nevent: %b\ndata: %b\n\n"
            % (str(place).encode(), event.kind.encode(), view.message(event))
            for place, event in events
        )
