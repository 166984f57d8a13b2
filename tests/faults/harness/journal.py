"""
A journal of every operation that a client sent, and of every reply; it survives a crash of its writer.

The intent is written before the request is sent, the reply as soon as it arrives: an intent without
a reply is an operation of unknown outcome. The format is one JSON object a line. Times are
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
    """The kind of an operation."""

    CREATE = "create"
    EDIT = "edit"
    DELETE = "delete"
    VISIT = "visit"


class Outcome(StrEnum):
    """What a client may conclude: the operation took effect, it did not, or it may have."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Intent:
    """
    One operation, before it is sent.

    `url` is unique to each write, so a stored target identifies the write that set it; the title of
    a link is the id of its create. `due_at` is when the open loop scheduled the operation.
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
    """
    What a client received; without a response, `status` is 0 and `error` names the exception.

    `detail` is what a 5xx says about its cause.
    """

    id: str
    status: int
    at: float
    slug: str | None = None
    version: int | None = None
    location: str | None = None
    replayed: bool = False
    retry_after: bool = False
    error: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Operation:
    """
    An intent with its replies: none, one or several.

    A create with an Idempotency-Key may be retried and remains one operation.
    """

    intent: Intent
    replies: tuple[Reply, ...] = ()

    @property
    def reply(self) -> Reply | None:
        """The first reply that acknowledged the operation, else the last reply."""
        done = [reply for reply in self.replies if 200 <= reply.status < 400]
        return done[0] if done else self.replies[-1] if self.replies else None

    @property
    def version(self) -> int | None:
        """The version that this operation created, if known. A replayed reply may show a later one."""
        if self.outcome is not Outcome.DONE or self.reply is None:
            return None
        return 1 if self.intent.kind is Kind.CREATE else self.reply.version

    @property
    def outcome(self) -> Outcome:
        """
        A 4xx guarantees that the operation had no effect; a 5xx or a lost reply guarantees nothing.

        A refusal does not undo the effect of an earlier attempt of unknown outcome.
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
        """The slug that was requested or assigned."""
        return self.intent.slug or (self.reply.slug if self.reply is not None else None)

    @property
    def took_s(self) -> float:
        """Seconds from when the operation was due until its first reply; infinite without a reply."""
        if not self.replies or self.replies[0].status == 0:
            return float("inf")
        return self.replies[0].at - self.intent.due_at


class JournalWriter:
    """Appends to a file without a buffer: a line is with the kernel when `write` returns."""

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
    """Return the operations in the journals *paths*, in the order of their intents."""
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
    """Match replies to their intents, in the order in which they arrived."""
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
        return {}  # an incomplete last line: the writer was killed
    return fields
