"""Records of a front become spans and lines: those of `app.web.traced` and `app.web.logged`."""

from __future__ import annotations

import pytest

from app.telemetry.access_log import AccessLog
from app.web.front_records import FrontRecords, LookUpOrigins, read_noted, watch
from app.web.scope import Noted
from app.web.traced import server_attributes
from tests.unit.spans import ALWAYS, NEVER, Spans
from tests.unit.test_access_log import lines

RECORDED, LATE, LOGGED, NOTHING = (
    (True, False, False),
    (False, True, False),
    (False, False, True),
    (False,) * 3,
)
TRACE, SPAN, PARENT = 0x4BF9, 0xF067, 0xAA
# The clock of the front, and what unix time it is then.
BEGAN, WALL = 100.0, 1_700_000_100.0


class Fronted:
    """Stands for a front: what it hands out, once."""

    def __init__(self, *records) -> None:
        self.records = list(records)
        self.records_dropped = 0, 0

    def take_records(self, limit):
        taken, self.records = self.records[:limit], self.records[limit:]
        return taken

    def origins(self, slugs):
        return {slug: (TRACE, SPAN, BEGAN, "a=1", "b=2") for slug in slugs if slug == "recorded"}


def record(
    status=302,
    whether=RECORDED,
    *,
    is_missed=False,
    is_redirect=True,
    client="203.0.113.77",
    method="GET",
):
    ids, said = (TRACE, SPAN, PARENT, "a=1"), (client, "of-the-client")
    return ids, (BEGAN, 0.25, status), (*whether, is_missed, is_redirect), (method, "1.1"), said


async def taken(front: Fronted, spans: Spans | None, log: AccessLog | None = None) -> None:
    server = server_attributes("http://hop.example")
    tracing = None if spans is None else spans.tracing
    records = FrontRecords(front, tracing, log, server, monotonic=lambda: BEGAN, wall=lambda: WALL)
    await records.aclose()


async def test_span_of_a_record(spans):
    await taken(Fronted(record()), spans)

    [span] = spans.all
    assert (span.context.trace_id, span.context.span_id, span.parent.span_id) == (TRACE, SPAN, PARENT)
    assert span.context.trace_state.to_header() == "a=1"
    assert (span.start_time, span.end_time) == (1_700_000_100_000_000_000, 1_700_000_100_250_000_000)
    assert span.resource.attributes["service.name"] == "tests"


@pytest.mark.parametrize(
    ("status", "is_missed", "error"),
    [(302, True, None), (404, False, None), (503, False, "503"), (0, True, "no_answer")],
)
async def test_attributes_of_a_record(spans, status, is_missed, error):
    await taken(Fronted(record(status, is_missed=is_missed)), spans)

    [span] = spans.all
    assert span.attributes.get("http.response.status_code", 0) == status
    assert span.attributes["hopgate.l1"] == ("miss" if is_missed else "hit")
    assert span.attributes.get("error.type") == error
    assert span.status.is_ok is (error is None)


async def test_late_spans_are_as_many_as_a_second_has_room_for():
    spans = Spans(monotonic=lambda: 1.0)
    await taken(Fronted(*[record(503, LATE)] * 60, record()), spans)

    assert len(spans.all) == 50 + 1
    assert spans.tracing.omitted == 10


async def test_spans_that_did_not_fit_are_counted_once(spans):
    front = Fronted()
    front.records_dropped = 3, 0
    records = FrontRecords(front, spans.tracing, None, {}, monotonic=lambda: BEGAN, wall=lambda: WALL)
    await records.aclose()
    front.records_dropped = 5, 0
    await records.aclose()

    assert spans.tracing.omitted == 5


@pytest.mark.parametrize(("method", "name"), [("POST", "POST"), ("_OTHER", "HTTP")])
async def test_record_of_another_route_names_none(spans, method, name):
    """The front answers what it cannot pass on, whatever that is."""
    log = AccessLog(1.0, random=lambda: 0.0)
    ones = [record(503, whether, is_redirect=False, method=method) for whether in (RECORDED, LOGGED)]
    with lines() as found:
        await taken(Fronted(*ones), spans, log)

    [span] = spans.all
    assert (span.name, span.attributes["url.path"]) == (name, "REDACTED")
    assert not {"http.route", "hopgate.l1"} & span.attributes.keys()
    assert [line["route"] for line in found] == ["unknown"]


async def test_lines_that_did_not_fit_are_logged_once(caplog):
    front = Fronted()
    front.records_dropped = 3, 2
    records = FrontRecords(front, None, None, {}, monotonic=lambda: BEGAN, wall=lambda: WALL)
    await records.aclose()
    await records.aclose()

    assert [entry.getMessage() for entry in caplog.records] == [
        "the access log lacks 2 lines: they did not fit"
    ]


async def test_record_is_only_what_it_says(spans):
    log = AccessLog(1.0, random=lambda: 0.0)
    with lines() as found:
        await taken(Fronted(record(whether=LOGGED), record(whether=NOTHING)), spans, log)

    assert spans.all == ()
    assert len(found) == 1


@pytest.mark.parametrize(
    ("client", "network"),
    [("203.0.113.77", "203.0.113.0/24"), ("2001:db8:1::/48", "2001:db8:1::/48"), ("", None)],
)
async def test_line_of_a_record(client, network):
    with lines() as found:
        await taken(Fronted(record(whether=LOGGED, client=client)), None, AccessLog(1.0, random=lambda: 0.0))

    [line] = found
    del line["pid"]
    assert line == {
        "time": "2023-11-14T22:15:00.250+00:00",
        "level": "info",
        "logger": "hopgate.access",
        "message": "GET /{slug} 302",
        "request_id": "of-the-client",
        "method": "GET",
        "route": "/{slug}",
        "status": 302,
        "duration_s": 0.25,
        "client": network,
    }


async def test_line_of_a_connection_that_ended_first():
    with lines() as found:
        await taken(Fronted(record(0, LOGGED)), None, AccessLog(1.0, random=lambda: 0.0))

    assert found[0]["status"] == 499


def test_look_up_has_the_origin_of_its_request():
    origins = LookUpOrigins(Fronted(), monotonic=lambda: BEGAN, wall=lambda: WALL)

    found = origins.of(["other", "recorded"])

    [origin] = found.pop("recorded")
    assert (origin.trace_id, origin.span_id, origin.at) == (TRACE, SPAN, WALL)
    assert (origin.tracestate, origin.baggage) == ("a=1", "b=2")
    assert found == {}


def test_what_the_front_has_decided_is_read():
    assert read_noted(f"{TRACE:032x}-{SPAN:016x}-5-100.250000000") == Noted(
        TRACE, SPAN, is_recorded=True, is_logged=False, is_missed=True, began=100.25
    )


def test_front_watches_only_if_something_asks_for_requests():
    log = AccessLog(0.25, random=lambda: 0.0)

    assert watch(None, 0.5, None) is None
    assert watch(ALWAYS, 0.5, log) == ((2**64, True, 0.5), 2**62, 8192)
    assert watch(NEVER, 0.5, None) == ((0, True, 0.5), None, 8192)
