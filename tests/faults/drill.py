"""One drill: a load runs, something breaks and heals, and when all is quiet the ledger is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from tests.faults.figures import Window, figures
from tests.faults.http_client import HttpClient
from tests.faults.journal import JournalWriter, Kind, Operation, Outcome, Reply, of_kind
from tests.faults.ledger import Violation
from tests.faults.load import api_key_of, perform
from tests.faults.observer import settle
from tests.faults.stage import Stage
from tests.faults.watch import Watch

Fault = Callable[[Stage], AbstractContextManager[None]]


class CannotPlay(Exception):
    """This machine does not allow what the fault needs."""


@dataclass(frozen=True)
class Timing:
    """
    How long the load runs before the fault, during it and after it, and how long draining may take.

    With `hurry`, what the relay has put off for later is made due while it drains.
    """

    before_s: float = 10.0
    during_s: float = 20.0
    after_s: float = 10.0
    drain_s: float = 60.0
    hurry: bool = False


QUICK = Timing(before_s=1.5, during_s=3.5, after_s=2.0, hurry=True)


@dataclass(frozen=True)
class Outcomes:
    """What a drill found: promises broken, and figures by name (see `figures.py`)."""

    violations: list[Violation]
    figures: Mapping[str, float] = field(default_factory=dict)


def run(stage: Stage, fault: Fault, timing: Timing, **load: object) -> Outcomes:
    """Play *fault* on *stage* under a load."""
    started = time.monotonic()
    running = stage.start_load(**load)
    began = time.monotonic()
    time.sleep(timing.before_s)
    begin = time.monotonic()
    with Watch(stage) as watch:
        with fault(stage):
            time.sleep(timing.during_s)
            heal = time.monotonic()
        healed = time.monotonic()
        watch.healed()
        time.sleep(timing.after_s)
    running.stop()
    replay(stage)
    found, drain_s = settle(stage, within_s=timing.drain_s, hurry=timing.hurry)
    history = [op for op in stage.history() if op.intent.sent_at >= started]
    window = Window(began, begin, heal, healed)
    measured = {**figures(history, window), **watch.figures(window)}
    restart_s = max(stage.restarts_s, default=0.0)
    return Outcomes(found, {**measured, "drain_s": drain_s, "restart_s": restart_s})


def replay(stage: Stage) -> int:
    """
    Send creates of unknown outcome once more, if they carry a key, and some that succeeded.

    Returns how many. Their answers are written to the same operations.
    """
    history = stage.history()
    keyed = [op for op in of_kind(history, Kind.CREATE) if op.intent.key is not None]
    again = [op for op in keyed if op.outcome is Outcome.UNKNOWN]
    again += [op for op in keyed if op.outcome is Outcome.DONE][-10:]

    async def send() -> None:
        client = HttpClient(stage.gateways[0].port)
        with JournalWriter(stage.directory / "replayed.journal") as journal:
            for op in again:
                journal.write(await _answered(op, client, stage))
        await client.aclose()

    asyncio.run(send())
    return len(again)


async def _answered(op: Operation, client: HttpClient, stage: Stage) -> Reply:
    """Send a create until something is known, for ten seconds at most."""
    for _ in range(20):
        # A key of the API names a request together with its Idempotency-Key: the same one again.
        reply = await perform(op.intent, client, api_key_of(op.intent.client, stage.api_keys))
        if 0 < reply.status < 500:
            break
        await asyncio.sleep(0.5)
    return reply
