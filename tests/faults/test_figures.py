"""Figures of a drill follow from its journal."""

from __future__ import annotations

import math

import pytest

from tests.faults.harness.figures import Window, failures, figures, quantile, stale_s
from tests.faults.harness.journal import Intent, Kind, Operation, Reply
from tests.faults.harness.resources import Held, grown

WINDOW = Window(began=0, fault=10, heal=20, healed=21)


def op(name: str, kind: Kind, at: float, status: int, took: float = 0.1, **more) -> Operation:
    location, version = more.pop("location", None), more.pop("version", None)
    intent = Intent(id=name, kind=kind, due_at=at, sent_at=at, **more)
    reply = Reply(id=name, status=status, at=at + took, location=location, version=version, retry_after=True)
    return Operation(intent, (reply,) if status else ())


def test_errors_count_in_the_phase_they_were_due():
    history = [
        op("a", Kind.VISIT, 5, 503),
        op("b", Kind.VISIT, 10.5, 503),
        op("c", Kind.VISIT, 10.6, 302),
        op("d", Kind.VISIT, 15, 302, took=0.4),
        op("e", Kind.VISIT, 16, 0),
    ]

    found = figures(history, WINDOW)

    assert found["visit_errors"] == 0.5
    assert found["visit_errors_1s"] == 0.5
    assert found["visit_errors_after_1s"] == 0.5
    assert found["visit_max_s"] == pytest.approx(0.4)
    assert found["visit_errors_late"] == 0


def test_failures_tell_what_the_client_received():
    timed_out = Operation(
        Intent(id="v", kind=Kind.VISIT, due_at=15, sent_at=15),
        (Reply(id="v", status=503, at=15.3, detail="postgresql is not available."),),
    )
    history = [timed_out, op("a", Kind.VISIT, 11, 302), op("b", Kind.CREATE, 5, 0)]

    assert failures(history, WINDOW) == {
        "visit during the fault: 503 postgresql is not available.": 1,
        "create before the fault: none": 1,
    }


def test_first_success_counts_from_the_healing():
    history = [op("a", Kind.CREATE, 20.5, 201), op("b", Kind.CREATE, 22, 503), op("c", Kind.CREATE, 23, 201)]

    assert figures(history, WINDOW)["first_create_s"] == pytest.approx(2.1)
    assert figures([], WINDOW)["first_create_s"] == math.inf


def test_warm_links_precede_the_load():
    window = Window(began=1, fault=10, heal=20, healed=21)
    history = [
        op("w", Kind.CREATE, 0, 201, slug="warm", url="u1", version=1),
        op("c", Kind.CREATE, 2, 201, slug="cold", url="u2", version=1),
        op("v1", Kind.VISIT, 1.5, 302, took=0.9, slug="warm"),  # the load has just begun
        op("v2", Kind.VISIT, 5, 302, took=0.1, slug="warm"),
        op("v3", Kind.VISIT, 11, 302, took=0.15, slug="warm"),
        op("v4", Kind.VISIT, 12, 503, took=0.5, slug="cold"),
    ]

    found = figures(history, window)

    assert found["warm_errors"] == 0
    assert found["warm_p99_ratio"] == pytest.approx(1.5)


def test_found_again_counts_stored_creates_of_unknown_outcome():
    def create(name: str, *answers: tuple[int, bool]) -> Operation:
        replies = [
            Reply(id=name, status=status, at=at, replayed=replayed)
            for at, (status, replayed) in enumerate(answers)
        ]
        return Operation(Intent(id=name, kind=Kind.CREATE, key=name), tuple(replies))

    stored = [create("a", (503, False), (201, True)), create("b", (0, False), (503, False), (201, True))]
    not_stored = create("c", (503, False), (201, False))
    known = create("d", (201, False), (201, True))
    silent = create("e", (0, False))

    found = figures([*stored, not_stored, known, silent], WINDOW)

    assert found["found_again"] == 2
    assert found["replayed"] == 3


def test_staleness_counts_from_the_acknowledged_replacement():
    history = [
        op("c", Kind.CREATE, 0, 201, slug="abc", url="u1", version=1),
        op("e", Kind.EDIT, 1, 200, slug="abc", url="u2", version=2),
        op("v1", Kind.VISIT, 1.05, 302, slug="abc", location="u1"),
        op("v2", Kind.VISIT, 1.6, 302, slug="abc", location="u1"),
        op("v3", Kind.VISIT, 9, 302, slug="abc", location="u2"),
    ]

    assert stale_s(history) == pytest.approx(0.5)


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.99, 4), (1, 4)])
def test_quantile(share, value):
    assert quantile([4, 1, 3, 2], share) == value


def test_growth_beyond_the_allowance_is_named():
    before = {"worker": Held(100_000, 20, 5, 10)}

    assert grown(before, {"worker": Held(120_000, 25, 6, 12)}) == []
    assert grown(before, {"worker": Held(100_000, 60, 5, 10)}) == ["worker: fds 20 → 60"]
