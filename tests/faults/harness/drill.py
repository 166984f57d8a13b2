"""One drill: run a load, inject a fault, heal it, drain, and check the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from tests.faults.harness.figures import Window, failures, figures
from tests.faults.harness.http_client import HttpClient
from tests.faults.harness.journal import JournalWriter, Kind, Operation, Outcome, Reply, of_kind
from tests.faults.harness.ledger import Violation
from tests.faults.harness.observer import settle
from tests.faults.harness.operations import api_key_of, perform
from tests.faults.harness.stage import Stage
from tests.faults.harness.watch import Watch

Fault = Callable[[Stage], AbstractContextManager[None]]
Figures = Mapping[str, float]
Story = Callable[[Stage], Figures]


FULL_LOAD: Mapping[str, Any] = {"visits": 200.0, "creates": 20.0, "edits": 5.0, "warm": 200}


class CannotPlay(Exception):
    """The machine lacks something that the fault needs; the message names it."""


@dataclass(frozen=True)
class Timing:
    """
    How long the load runs before, during and after the fault, and how long draining may take.

    With `hurry`, outbox rows with a later attempt become due at once while the stage drains.
    """

    before_s: float = 10.0
    during_s: float = 20.0
    after_s: float = 10.0
    drain_s: float = 60.0
    hurry: bool = False


QUICK = Timing(before_s=1.0, during_s=2.5, after_s=1.5, hurry=True)


@dataclass(frozen=True)
class Outcomes:
    """The result of a drill: violations, figures by name, and failures (for both see `figures.py`)."""

    violations: list[Violation]
    figures: Figures = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)


def run(stage: Stage, fault: Fault, timing: Timing, **load: Any) -> Outcomes:
    """Inject *fault* into *stage* under a load."""
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
    outcomes = {**measured, "drain_s": drain_s, "restart_s": restart_s}
    return Outcomes(found, outcomes, failures(history, window))


def replay(stage: Stage) -> int:
    """
    Retry the keyed creates of unknown outcome, and ten that succeeded.

    Returns how many. The journal adds the new replies to the same operations.
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
    """Retry a create until its outcome is known, for ten seconds at most."""
    for _ in range(20):
        # An Idempotency-Key belongs to an API key: the retry uses the same one.
        reply = await perform(op.intent, client, api_key_of(op.intent.client, stage.api_keys))
        if 0 < reply.status < 500:
            break
        await asyncio.sleep(0.5)
    return reply
