"""The details of 503: true for reads, for writes, and for lost races."""

from __future__ import annotations

import json

import pytest

from app.domain.errors import Contended, Unavailable
from app.web import errors

AWAY = Unavailable("postgresql", "no answer within 0.3 s")


def detail(*args, **kwargs):
    response = errors.unavailable(*args, **kwargs)
    document = json.loads(response.body)
    assert (response.status, document["code"]) == (503, "unavailable")
    assert ("retry-after", "1") in response.headers
    return document["detail"]


@pytest.mark.parametrize("error", [AWAY, TimeoutError()])
def test_read_mentions_no_write(error):
    assert "write" not in detail(error).lower()


@pytest.mark.parametrize("error", [AWAY, TimeoutError()])
def test_write_may_have_taken_place(error):
    assert detail(error, may_have_written=True).endswith("The write may or may not have taken place.")


def test_lost_race_stored_nothing():
    lost = Contended("store", "8 edits of abc lost the race to others")

    assert detail(lost, may_have_written=True) == "Other writers were faster each time. Nothing was stored."


def test_dependency_is_named_and_its_reason_is_not():
    assert detail(AWAY) == "postgresql is not available."
