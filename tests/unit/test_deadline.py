"""The table of deadlines: the steps of a redirect fit into it."""

from __future__ import annotations

from app.resilience import deadline


def test_look_ups_leave_time_to_answer():
    assert deadline.RESOLVE_S < deadline.REDIRECT_S


def test_look_up_steps_fit_their_share():
    steps = deadline.CACHE_S, deadline.REPLICA_S, deadline.LOOKUP_WAIT_S, deadline.LOOKUP_S

    assert min(steps) > 0
    assert sum(steps) <= deadline.RESOLVE_S + 1e-9
    assert deadline.LOOKUP_S >= 0.2


def test_write_is_answered_within_two_seconds():
    assert deadline.PUBLISH_S < deadline.WRITE_S < 2
