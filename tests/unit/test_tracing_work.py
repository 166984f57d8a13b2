"""Spans of calls and events, and how an event keeps the request that it comes from."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.concurrency.batches import Batches
from app.concurrency.origins import on_behalf_of, origins
from app.domain.errors import Unavailable
from app.domain.events import Event, LinkChanged, LinksMissed, WorkQueue
from app.domain.link import Slug
from app.domain.origin import Origin
from app.telemetry.traced import traced_bus, traced_cache, traced_replica, traced_store
from app.telemetry.tracing import FRESH_S
from app.wire import decode_origin, encode_origin, origin_headers, read_origin
from tests.unit.spans import CALLER, ORIGIN, Spans


async def test_every_method_of_every_port_has_a_row(spans, embedded_store, cache, bus):
    """A port with a method more would end a process with tracing on, and no other."""
    tracing = spans.tracing

    traced_store(embedded_store, tracing, "sqlite")
    traced_cache(cache, tracing, "memory")
    traced_bus(bus, tracing, "memory")
    traced_replica(embedded_store, tracing)


async def test_work_for_one_request_is_its_child(cache):
    spans = Spans(wall=lambda: ORIGIN.at + FRESH_S - 1)
    traced = traced_cache(cache, spans.tracing, "memory")

    with on_behalf_of([ORIGIN]):
        await traced.get_many([Slug("a"), Slug("b")])

    [span] = spans.all
    assert (span.context.trace_id, span.parent.span_id) == (ORIGIN.trace_id, ORIGIN.span_id)
    assert dict(span.attributes) == {
        "db.system.name": "memory",
        "db.operation.name": "MGET",
        "db.collection.name": "links",
        "db.operation.batch.size": 2,
    }


async def test_work_for_no_recorded_request_is_not_recorded(cache, spans):
    await traced_cache(cache, spans.tracing, "memory").get_many([Slug("a")])

    assert spans.all == ()


async def test_work_for_an_old_request_links_to_it(cache):
    spans = Spans(wall=lambda: ORIGIN.at + FRESH_S + 1)

    with on_behalf_of([ORIGIN]):
        await traced_cache(cache, spans.tracing, "memory").get_many([Slug("a")])

    [span] = spans.all
    assert span.parent is None
    assert span.context.trace_id != ORIGIN.trace_id
    assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [
        (ORIGIN.trace_id, ORIGIN.span_id)
    ]


async def test_batch_links_to_every_request(cache):
    spans = Spans(wall=lambda: ORIGIN.at)
    traced = traced_cache(cache, spans.tracing, "memory")

    async def ask(slugs: list[Slug]) -> None:
        await traced.get_many(slugs)

    batches = Batches(ask, max_under_way=1, max_batch=10)
    others = [replace(ORIGIN, span_id=n) for n in (1, 2)]
    for other, slug in zip(others, ("a", "b"), strict=True):
        with on_behalf_of([other]):
            batches.add(Slug(slug))
    batches.add(Slug("c"))

    await batches.drain()

    [span] = spans.all
    assert span.parent is None
    assert [link.context.span_id for link in span.links] == [1, 2]


async def test_failed_call_names_the_error_and_not_its_message(spans, cache):
    async def away(_slugs):
        raise Unavailable("redis", "canary")

    cache.get_many = away
    with pytest.raises(Unavailable), on_behalf_of([replace(ORIGIN, at=9e9)]):
        await traced_cache(cache, spans.tracing, "redis").get_many([Slug("a")])

    [span] = spans.all
    assert (span.attributes["error.type"], span.status.is_ok) == ("Unavailable", False)
    [event] = span.events
    assert (event.name, event.attributes["exception.type"]) == ("exception", "app.domain.errors.Unavailable")
    assert event.attributes["exception.stacktrace"].endswith(".away")
    assert "exception.message" not in event.attributes


async def test_events_carry_their_request_through_the_bus(bus):
    spans = Spans(wall=lambda: ORIGIN.at)
    traced, handled = traced_bus(bus, spans.tracing, "memory"), asyncio.Event()
    seen: list[Origin] = []

    async def handler(events):
        seen.extend(origins())
        handled.set()

    await traced.consume(WorkQueue.CACHE, handler)
    with on_behalf_of([ORIGIN]):
        await traced.publish([LinkChanged(Slug("a"), 1)])
    await asyncio.wait_for(handled.wait(), 10)
    await asyncio.sleep(0)

    published, processed = sorted(spans.all, key=lambda span: span.start_time)
    assert [published.name, processed.name] == ["publish hopgate.events", "process hopgate.cache"]
    assert published.parent.span_id == ORIGIN.span_id
    assert processed.parent.span_id == published.context.span_id
    assert [one.span_id for one in seen] == [processed.context.span_id]


async def test_shared_publish_leaves_each_event_its_request(bus):
    spans = Spans(wall=lambda: ORIGIN.at)
    taken, handled = [], asyncio.Event()

    async def handler(events):
        taken.extend(events)
        if len(taken) == 3:
            handled.set()

    await bus.consume(WorkQueue.CACHE, handler)
    others = [replace(ORIGIN, span_id=n) for n in (1, 2)]
    events: list[Event] = [
        LinkChanged(Slug("a"), 1, origin=others[0]),
        LinkChanged(Slug("b"), 1, origin=others[1]),
        LinksMissed((Slug("c"),)),
    ]
    with on_behalf_of(others):
        await traced_bus(bus, spans.tracing, "memory").publish(events)
    await asyncio.wait_for(handled.wait(), 10)

    [published] = spans.all
    assert [link.context.span_id for link in published.links] == [1, 2]
    assert [event.origin.span_id for event in taken] == [1, 2, published.context.span_id]


def test_origin_survives_headers_and_rows():
    origin = replace(ORIGIN, tracestate="a=1,b=2", baggage="c=d")

    assert read_origin(origin_headers(origin)) == origin
    assert decode_origin(encode_origin(origin)) == origin
    assert encode_origin(None) is None
    assert decode_origin(None) is None
    assert origin_headers(None) == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": b"x"},
        {"traceparent": 7},
        {"traceparent": CALLER[:-2] + "00"},
        {"tracestate": "a=1"},
    ],
)
def test_headers_of_other_publishers_are_no_origin(headers):
    assert read_origin(headers) is None


def test_headers_of_other_publishers_are_checked():
    headers = {
        "traceparent": CALLER,
        "tracestate": "é" * 3,
        "baggage": "x" * 2000,
        "x-hopgate-traced-at": "n",
    }

    assert read_origin(headers) == replace(ORIGIN, at=0.0)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"traceparent": 1}'])
def test_unreadable_row_has_no_origin(text):
    assert decode_origin(text) is None


def test_origin_is_no_part_of_an_event():
    assert LinkChanged(Slug("a"), 1, origin=ORIGIN) == LinkChanged(Slug("a"), 1)
    assert hash(LinkChanged(Slug("a"), 1, origin=ORIGIN)) == hash(LinkChanged(Slug("a"), 1))
