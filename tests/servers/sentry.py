"""A receiver of Sentry's envelopes: keeps every event, and everything that arrives as it was sent."""

from __future__ import annotations

import json
from typing import Any

from tests.servers.receiver import Answer, Receiver

_PROJECT = "7"
_KEY = "0123456789abcdef0123456789abcdef"


class Envelopes(Receiver):
    """`is_silent`: each request waits until the end."""

    def __init__(self) -> None:
        super().__init__()
        self.is_silent = False
        self._requests: list[tuple[str, str, bytes]] = []
        self.dsn = f"http://{_KEY}@127.0.0.1:{self.port}/{_PROJECT}"

    @property
    def requests(self) -> list[tuple[str, str, bytes]]:
        """Path, headers and body of every request."""
        with self._lock:
            return list(self._requests)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all envelopes: a line of JSON for the envelope, then two for each item."""
        found = []
        for path, headers, body in self.requests:
            assert path == f"/api/{_PROJECT}/envelope/"
            assert _KEY in headers
            lines = body.split(b"\n")[1:]
            for head, payload in zip(lines[::2], lines[1::2], strict=False):
                if json.loads(head)["type"] == "event":
                    found.append(json.loads(payload))
        return found

    def _take(self, path: str, headers: str, body: bytes) -> Answer | None:
        with self._lock:
            self._requests.append((path, headers, body))
        if self.is_silent:
            self._ends.wait()
            return None
        return Answer(200, "application/json", b"{}")
