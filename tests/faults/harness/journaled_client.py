"""A client for stories: single operations, in the journal like those of a load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count
from types import TracebackType
from typing import Self

from tests.faults.harness.http_client import HttpClient
from tests.faults.harness.journal import Intent, JournalWriter, Kind, Operation, Reply
from tests.faults.harness.observer import wait_until_quiet
from tests.faults.harness.operations import perform
from tests.faults.harness.stage import Stage

_NUMBERS = count(1)


class JournaledClient:
    """Sends operations one by one or concurrently; used as a context manager."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._name = f"t{next(_NUMBERS)}"
        self._count = 0
        self._journal = JournalWriter(stage.directory / f"{self._name}.journal")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def intent(
        self, kind: Kind, slug: str | None = None, *, gateway: int = 0, key: str | None = None
    ) -> Intent:
        """Return an intent that is not sent yet; each write has a unique target."""
        self._count += 1
        name = f"{self._name}-{self._count}"
        url = f"https://example.com/{name}" if kind in (Kind.CREATE, Kind.EDIT) else None
        now = time.monotonic()
        return Intent(
            id=name, kind=kind, slug=slug, url=url, gateway=gateway, key=key, due_at=now, sent_at=now
        )

    def send(self, intents: Sequence[Intent]) -> list[Operation]:
        """Send *intents* concurrently, one connection each, and return them with their replies."""

        async def send_one(intent: Intent) -> Operation:
            client = HttpClient(self._stage.gateways[intent.gateway].port)
            reply = await perform(intent, client, self._stage.api_keys[0])
            await client.aclose()
            return Operation(intent, (reply,))

        async def send_all() -> list[Operation]:
            return await asyncio.gather(*map(send_one, intents))

        for intent in intents:
            self._journal.write(intent)
        done = asyncio.run(send_all())
        for op in done:
            self._journal.write(op.replies[0])
        return done

    def create(self, slug: str | None = None, *, gateway: int = 0) -> str:
        """Create a link and return its slug."""
        [op] = self.send([self.intent(Kind.CREATE, slug, gateway=gateway)])
        assert op.status == 201, op
        assert op.slug is not None
        return op.slug

    def create_many(self, number: int) -> list[str]:
        """Create *number* links and return their slugs."""
        found: list[str] = []
        while len(found) < number:
            some = [self.intent(Kind.CREATE) for _ in range(min(8, number - len(found)))]
            found += [op.slug for op in self.send(some) if op.slug is not None and op.status == 201]
        return found

    def create_cached(self, number: int) -> list[str]:
        """Create *number* links, visit each on both gateways, and wait until their events are applied."""
        slugs = self.create_many(number)
        for slug in slugs:
            self.visit(slug)
            self.visit(slug, gateway=1)
        # Events are acknowledged too: a redelivered one would repair the cache and hide a fault.
        wait_until_quiet(self._stage, 40)
        time.sleep(2.0)
        return slugs

    def edit(self, slug: str, *, gateway: int = 0) -> int:
        """Give *slug* a new target and return its status."""
        return self.send([self.intent(Kind.EDIT, slug, gateway=gateway)])[0].status

    def remove(self, slug: str, *, gateway: int = 0) -> int:
        """Remove *slug* and return the status."""
        return self.send([self.intent(Kind.DELETE, slug, gateway=gateway)])[0].status

    def visit(self, slug: str, *, gateway: int = 0) -> Operation:
        """Visit *slug*."""
        return self.send([self.intent(Kind.VISIT, slug, gateway=gateway)])[0]

    def record(self, intent: Intent, reply: Reply) -> None:
        """Add an operation that was not sent over HTTP to the journal."""
        self._journal.write(intent)
        self._journal.write(reply)
