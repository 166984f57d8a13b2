"""Injected bugs, the story that exposes each, and the violations that it causes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.faults.harness.drill import Story
from tests.faults.stories import outbox, races, worker


@dataclass(frozen=True)
class InjectedBug:
    """
    A bug of `breaks/code.py`, by its name there.

    Args:
        breaks: the rule of the ledger that it must break.
        may_break: further rules. A violation of any other rule is not the work of this bug.
    """

    story: Story
    breaks: str
    may_break: frozenset[str] = frozenset()

    def explains(self, rules: set[str]) -> bool:
        """Does this bug, and nothing else, break *rules*?"""
        return self.breaks in rules and rules <= {self.breaks, *self.may_break}


_STALE = frozenset({"I4", "I5"})

INJECTED_BUGS: Mapping[str, InjectedBug] = {
    "outbox_skipped": InjectedBug(outbox.edits_during_outage, "I4", _STALE),
    "compare_dropped": InjectedBug(races.late_cache_write, "I4", _STALE),
    "acknowledged_first": InjectedBug(worker.killed_with_unapplied_events, "I4", _STALE),
    "relay_by_cursor": InjectedBug(races.late_commit, "I3", _STALE),
    "channel_kept": InjectedBug(outbox.unconfirmed_publish, "I3", _STALE),
}
