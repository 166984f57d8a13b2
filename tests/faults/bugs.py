"""The bugs that are put in, with the story that shows each and a promise that it breaks."""

from __future__ import annotations

from collections.abc import Mapping

from tests.faults import stories
from tests.faults.matrix import Story

BUGS: Mapping[str, tuple[Story, str]] = {
    "outbox_skipped": (stories.edits_without_caches, "I4"),
    "compare_dropped": (stories.late_writer, "I4"),
    "acknowledged_first": (stories.worker_killed_at_work, "I4"),
    "relay_by_cursor": (stories.late_commit, "I3"),
    "channel_kept": (stories.unconfirmed_publish, "I3"),
}
