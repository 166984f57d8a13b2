"""Reports of errors: what reaches a receiver of Sentry's envelopes, and what never does."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from app.concurrency.origins import on_behalf_of
from app.domain.errors import Unavailable
from app.domain.origin import Origin
from app.settings.reports import report_settings
from app.telemetry.reports import ErrorReports
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_key
from tests.servers.sentry import Envelopes
from tests.unit.exposition import samples

pytestmark = pytest.mark.timeout(120)
LINKS = "/api/v1/links"
KEY = "hg_Abcdefgh_0123456789012345678901234567890123456789abc_000000"
CANARIES = (
    KEY,
    "canary-of-the-body",
    "canary-of-the-query",
    "canary-of-a-header",
    "canary-of-a-variable",
    "postgresql://hopgate:geheim@db",
    "203.0.113.77",
)


@pytest.fixture
def receiver() -> Iterator[Envelopes]:
    with Envelopes() as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_BASE_URL": "http://hop.example", **UNLIMITED}


def reports(receiver: Envelopes, monotonic=lambda: 0.0, **variables: str) -> ErrorReports:
    asked = report_settings({"SENTRY_DSN": receiver.dsn, **variables})
    assert asked is not None
    return ErrorReports(asked, "hopgate-tests", monotonic=monotonic)


def record(error: BaseException | None, *, name: str = "app.web.rsgi", level: int = logging.ERROR):
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord(name, level, __file__, 1, "failed: %s", (error,), info)


def failed(message: str) -> Exception:
    # Put together: lines of the program are in a report.
    secret = "-".join(["canary", "of", "a", "variable"])
    try:
        try:
            raise KeyError(message)
        except KeyError as cause:
            raise ValueError(f"{message} {secret}") from cause
    except ValueError as error:
        return error


# --- the handler -------------------------------------------------------------------------


async def test_report_names_the_error_and_nothing_of_the_request(receiver):
    handler = reports(receiver, SENTRY_ENVIRONMENT="staging", SENTRY_RELEASE="hopgate@tests")

    with on_behalf_of([Origin(0xABC, 0xDEF, at=1.0)]):
        handler.handle(record(failed(" ".join(CANARIES))))
    await handler.aclose()

    [event] = receiver.events
    assert [one["type"] for one in event["exception"]["values"]] == ["KeyError", "ValueError"]
    assert event["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"] == "failed"
    assert (event["logger"], event["level"]) == ("app.web.rsgi", "error")
    assert (event["environment"], event["release"]) == ("staging", "hopgate@tests")
    assert event["contexts"]["trace"] == {"trace_id": f"{0xABC:032x}", "span_id": f"{0xDEF:016x}"}
    assert event["tags"]["service"] == "hopgate-tests"
    assert not event.keys() & {"request", "user", "breadcrumbs", "extra", "modules", "logentry", "message"}
    [(_, headers, body)] = receiver.requests
    assert "secret" in str(event)
    sent = headers + body.decode()
    assert not [canary for canary in CANARIES if canary in sent]


async def test_only_unexpected_errors_are_reported(receiver):
    """What has no traceback is none, and what the SDK logs would report itself for ever."""
    handler = reports(receiver)
    logger = logging.getLogger("tests.reports")
    logger.addHandler(handler)
    try:
        logger.error("the store refuses writes: %s", Unavailable("store", "full"))
        logger.warning("a look-up failed", exc_info=failed("x"))
    finally:
        logger.removeHandler(handler)
    handler.handle(record(failed("x"), name="urllib3.connectionpool"))
    await handler.aclose()

    assert receiver.requests == []


async def test_reports_of_one_second_are_bounded(receiver, monotonic):
    handler = reports(receiver, monotonic)

    for _ in range(50):
        handler.handle(record(failed("x")))
    monotonic.now += 1
    handler.handle(record(failed("x")))
    await handler.aclose()

    assert len(receiver.events) == 5 + 1


async def test_silent_receiver_delays_no_caller_and_ends_in_time(receiver, monotonic):
    receiver.is_silent = True
    handler = reports(receiver, monotonic)

    async with asyncio.timeout(30):
        for _ in range(1_000):
            monotonic.now += 1
            handler.handle(record(failed("x")))
        assert handler._client.transport._worker._queue.qsize() <= 100
        await handler.aclose()


# --- processes ---------------------------------------------------------------------------


def test_failures_of_requests_and_events_are_reported(settings, tmp_path, receiver):
    """A stored link that cannot be read: a fault that neither the API nor a redirect nor a worker expects."""
    key = make_key(settings)
    variables = {"SENTRY_DSN": receiver.dsn, "HOPGATE_TRUSTED_PROXIES": "127.0.0.1"}
    headers = {
        "Authorization": f"Bearer {key}",
        "X-Forwarded-For": "203.0.113.77",
        "X-Request-Id": "canary-of-a-header",
    }
    with (
        Gateway({**settings, **variables}, tmp_path) as gateway,
        httpx.Client(base_url=gateway.url, headers=headers) as api,
    ):
        body = {"long_url": "https://example.com/canary-of-the-body", "slug": "sound"}
        assert api.post(LINKS, json=body).status_code == 201
        with closing(sqlite3.connect(tmp_path / "data" / "hopgate.db")) as database, database:
            # No tag is a number.
            database.execute(
                """
                INSERT INTO links (slug, tags, long_url, title, redirect_code, forward_query, enabled,
                    version, created_at, updated_at)
                SELECT 'broken', '["canary-of-the-body", 1]', long_url, title, redirect_code, forward_query,
                    enabled, version, created_at, updated_at
                FROM links
                """
            )
            # The relay publishes it, and the consumer reads the link.
            row = "INSERT INTO outbox (slug, version, next_attempt_at, created_at) VALUES ('broken', 1, 0, ?)"
            database.execute(row, (time.time_ns() // 1000,))
        assert api.get(f"{LINKS}/broken", params={"x": "canary-of-the-query"}).status_code == 422
        assert api.get(f"{LINKS}/broken").status_code == 500
        eventually(lambda: len(reporters(receiver)) == 2, 30, "both are reported")
        eventually(lambda: kinds(gateway)["unexpected"] >= 2, 30, "both are counted")
        assert kinds(gateway)["InvalidInput"] == 1
        assert gateway.stop(timeout=30) == 0

    assert reporters(receiver) == {"app.web.rsgi", "app.adapters.dispatcher"}
    assert {event["tags"]["service"] for event in receiver.events} == {"hopgate-gateway"}
    sent = b"\n".join(body for _, _, body in receiver.requests).decode()
    assert not [canary for canary in (key, *CANARIES, "127.0.0.1") if canary in sent]
    assert receiver.dsn not in gateway.output
    assert "unexpected errors are reported to http://127.0.0.1" in gateway.output


def reporters(receiver: Envelopes) -> set[str]:
    return {event["logger"] for event in receiver.events}


def kinds(gateway: Gateway) -> dict[str, float]:
    text = httpx.get(f"{gateway.url}/metrics").raise_for_status().text
    return {one.labels["kind"]: one.value for one in samples(text, "hopgate_errors_total")}


def test_missing_extra_is_one_line_and_no_end(settings, tmp_path):
    package = tmp_path / "without" / "sentry_sdk"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not installed', name='sentry_sdk')")
    settings |= {"SENTRY_DSN": "http://geheim@127.0.0.1:1/1", "PYTHONPATH": str(package.parent)}

    with Gateway(settings, tmp_path) as gateway:
        assert httpx.get(f"{gateway.url}/absent").status_code == 404

    [line] = [line for line in gateway.output.splitlines() if "sentry" in line]
    assert "run `make sentry`, or pip install 'hopgate[sentry]'" in line
    assert "geheim" not in gateway.output


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_unreadable_dsn_ends_the_start(settings, command):
    done = hopgate({**settings, "SENTRY_DSN": "https://geheim@sentry.example/"}, command)

    assert done.returncode == 1
    assert done.stderr.startswith("hopgate: SENTRY_DSN: a URL such as ")
    assert "geheim" not in done.stderr
