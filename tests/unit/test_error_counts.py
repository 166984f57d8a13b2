"""Errors by kind: of requests and of events, each once, and under few names."""

from __future__ import annotations

import asyncio
import inspect
import json

import pytest

from app.adapters.memory.bus import InProcessBus
from app.bootstrap.worker import new_deliveries
from app.domain import errors
from app.domain.errors import Contended, HopgateError, NotStarted, SettingsError, Unavailable
from app.domain.events import LinkChanged, WorkQueue
from app.telemetry.errors import KINDS, ErrorCounts, kind_of
from app.telemetry.families import ERRORS
from tests.unit.services import SLUG
from tests.unit.whole_application import Application
from worker.main import observed

LINKS = "/api/v1/links"


def counted(samples) -> dict[str, float]:
    """The kinds that were counted, with their counts."""
    return {
        labels[0]: values[0] for (family, labels), values in samples.items() if family is ERRORS and values[0]
    }


def of(application: Application) -> dict[str, float]:
    return counted(application.services.metrics.own())


def test_kinds_are_those_of_the_tree():
    """Settings are read before there is a process that counts."""
    tree = {
        name for name, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, HopgateError)
    }

    assert set(KINDS) == tree - {"HopgateError", SettingsError.__name__} | {"TimeoutError", "unexpected"}
    assert {labels[0] for _, labels in ErrorCounts().samples()} == set(KINDS)


def test_kind_is_the_nearest_class_of_the_tree():
    class Private(NotStarted):
        pass

    assert kind_of(Private("store", "x")) == "NotStarted"
    assert kind_of(Contended("store", "x")) == "Contended"
    assert kind_of(TimeoutError()) == "TimeoutError"
    assert kind_of(HopgateError()) == kind_of(OSError()) == "unexpected"


# --- requests ----------------------------------------------------------------------------


async def test_expected_answers_count_nothing(application):
    for path in ("/healthz", "/absent", "/a/b", LINKS, "/metrics"):
        await application.ask(path)

    assert of(application) == {}


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (RuntimeError("a bug"), "unexpected", 500),
        (Unavailable("store", "away"), "Unavailable", 503),
        (NotStarted("store", "open"), "NotStarted", 503),
    ],
)
async def test_failed_api_request_is_counted_once(application, error, kind, status):
    def fails(*_):
        raise error

    application.services.authenticator.was_valid = fails

    assert await application.status(LINKS) == status
    assert of(application) == {kind: 1}


async def test_redirect_that_fails_is_counted_once(application):
    async def fails(*_, **__):
        raise Unavailable("store", "away")

    application.services.redirects._resolver.resolve = fails

    assert await application.status("/unseen") == 503
    assert of(application) == {"Unavailable": 1}


async def test_requests_that_are_shed_are_counted(application):
    application.press(10**6)

    assert await application.status(LINKS) == 503
    assert await application.status("/unseen") == 503
    assert of(application) == {"Overloaded": 2}


async def test_counts_have_no_other_label(application):
    """A client chooses no series, whatever it sends."""
    for number in range(50):
        await application.ask(f"/unseen-{number}", "BREW")

    assert len(ErrorCounts().samples()) == len(KINDS)
    assert json.dumps(of(application)) == "{}"


# --- events ------------------------------------------------------------------------------


async def test_failed_events_are_counted_at_each_attempt():
    failures = ErrorCounts()
    deliveries = new_deliveries(failures)[WorkQueue.CACHE]
    outcomes = [ValueError("canary"), Unavailable("store", "away"), None]

    async def handle(_events):
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return 0

    async def no_pause(_seconds):
        return

    bus = InProcessBus(sleep=no_pause)
    await bus.consume(WorkQueue.CACHE, observed(handle, deliveries, lambda: 0.0), deliveries)
    await bus.publish([LinkChanged(SLUG, 1)])
    async with asyncio.timeout(20):
        while outcomes:
            await asyncio.sleep(0)
    await bus.aclose()

    assert counted(failures.samples()) == {"unexpected": 1, "Unavailable": 1}
