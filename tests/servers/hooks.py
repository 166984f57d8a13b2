"""A webhook's server in this process: it keeps what it is sent, and answers as it is asked to."""

from __future__ import annotations

import email
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from standardwebhooks.webhooks import Webhook

from tests.servers.receiver import Answer, Receiver

_NONE: Mapping[str, str] = {}


class Message(NamedTuple):
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def about(self) -> tuple[str, str, int]:
        document = self.document
        return document["type"], document["data"]["slug"], document["data"]["version"]


class HookServer(Receiver):
    """
    Args:
        status: returns the status of the answer to a message; 0 ends the connection instead.
        slow_s: how long each answer takes.
        headers: of each answer.
    """

    def __init__(
        self,
        status: Callable[[Message], int] = lambda _: 204,
        *,
        slow_s: float = 0,
        headers: Mapping[str, str] = _NONE,
    ) -> None:
        super().__init__()
        self._headers = headers
        self._status = status
        self._slow_s = slow_s
        self.messages: list[Message] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in"

    def _take(self, path: str, headers: str, body: bytes) -> Answer | None:
        parsed = {name.lower(): value for name, value in email.message_from_string(headers).items()}
        message = Message(path, parsed, body, time.monotonic())
        if self._slow_s:
            self._ends.wait(self._slow_s)
        with self._lock:
            self.messages.append(message)
        status = self._status(message)
        return Answer(status, "text/plain", b"ok", self._headers) if status else None

    def about(self, slug: str) -> list[tuple[str, int]]:
        """Return what came about a link: kinds and versions, those that came again left out."""
        found = [message.about for message in list(self.messages)]
        return list(dict.fromkeys((kind, version) for kind, name, version in found if name == slug))

    def by_slug(self) -> dict[str, list[tuple[str, int]]]:
        """Return `about` each link."""
        found: dict[str, dict[tuple[str, int], None]] = defaultdict(dict)
        for message in list(self.messages):
            kind, slug, version = message.about
            found[slug][kind, version] = None
        return {slug: list(seen) for slug, seen in found.items()}


def verified(message: Message, secret: str) -> Any:
    """Return what *message* says; raises unless its signature is of *secret*."""
    return Webhook(secret).verify(message.body, dict(message.headers))
