"""
What was asked and what was answered, written down so that a crash of the writer loses nothing.

The intent is in the file before the request leaves, the answer right after it came: an intent
without an answer is an operation of unknown outcome. One JSON object a line. Times are
`time.monotonic()`, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Kind(StrEnum):
    """What was asked for."""

    CREATE = "create"
    EDIT = "edit"
    DELETE = "delete"
    VISIT = "visit"


class Outcome(StrEnum):
    """What the client may conclude: it took effect, it did not, or it may have."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Intent:
    """
    One operation about to be sent.

    `url` is new for each write, so that a stored target names the write it came from; a link's
    title names its create. `due_at` is when an open loop wanted it sent.
    """

    id: str
    kind: Kind
    slug: str | None = None
    url: str | None = None
    key: str | None = None
    gateway: int = 0
    client: str = "127.0.0.1"
    due_at: float = 0.0
    sent_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back; `status` is 0 if nothing did, and `error` says how it ended."""

    id: str
    status: int
    at: float
    slug: str | None = None
    version: int | None = None
    location: str | None = None
    replayed: bool = False
    retry_after: bool = False
    error: str = ""


@dataclass(frozen=True)
class Operation:
    """
    An intent with what came back: nothing, one reply, or several.

    A create with an Idempotency-Key may be sent again; it is one operation all the same.
    """

    intent: Intent
    replies: tuple[Reply, ...] = ()

    @property
    def reply(self) -> Reply | None:
        """The reply that says most: the first that acknowledged, else the last."""
        done = [reply for reply in self.replies if 200 <= reply.status < 400]
        return done[0] if done else self.replies[-1] if self.replies else None

    @property
    def version(self) -> int | None:
        """The version that this operation made, if it is known; replays show later ones."""
        if self.outcome is not Outcome.DONE or self.reply is None:
            return None
        return 1 if self.intent.kind is Kind.CREATE else self.reply.version

    @property
    def outcome(self) -> Outcome:
        """
        A 4xx promises that nothing happened; a 5xx or silence promises nothing.

        A refusal cannot take back what an earlier attempt of unknown outcome did.
        """
        statuses = [reply.status for reply in self.replies]
        if any(200 <= status < 400 for status in statuses):
            return Outcome.DONE
        refused = bool(statuses) and all(400 <= status < 500 for status in statuses)
        return Outcome.REFUSED if refused else Outcome.UNKNOWN

    @property
    def status(self) -> int:
        return self.reply.status if self.reply is not None else 0

    @property
    def slug(self) -> str | None:
        """The slug asked for, or given."""
        return self.intent.slug or (self.reply.slug if self.reply is not None else None)

    @property
    def took_s(self) -> float:
        """From when it was due until its first answer; infinite without one."""
        if not self.replies or self.replies[0].status == 0:
            return float("inf")
        return self.replies[0].at - self.intent.due_at


class JournalWriter:
    """Appends to a file; each line is with the kernel when the call returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, entry: Intent | Reply) -> None:
        line = {"what": type(entry).__name__, **asdict(entry)}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(paths: Iterable[Path]) -> list[Operation]:
    """Return the operations in *paths*, in the order of their intents."""
    intents: dict[str, Intent] = {}
    replies: list[Reply] = []
    for path in paths:
        for line in path.read_bytes().split(b"\n"):
            fields = _fields(line)
            what = fields.pop("what", None)
            if what == "Intent":
                intent = Intent(**{**fields, "kind": Kind(fields["kind"])})
                intents[intent.id] = intent
            elif what == "Reply":
                replies.append(Reply(**fields))
    return joined(intents.values(), replies)


def joined(intents: Iterable[Intent], replies: Iterable[Reply]) -> list[Operation]:
    """Put the replies beside their intents, in the order in which they came."""
    by_id: dict[str, list[Reply]] = {}
    for reply in sorted(replies, key=lambda reply: reply.at):
        by_id.setdefault(reply.id, []).append(reply)
    return [Operation(intent, tuple(by_id.get(intent.id, ()))) for intent in intents]


def of_kind(history: Sequence[Operation], *kinds: Kind) -> list[Operation]:
    """Return the operations of these kinds."""
    return [operation for operation in history if operation.intent.kind in kinds]


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}  # the last line of a writer that was killed in the middle of it
    return fields
