"""Consume cache events and relay the outbox until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal

from app.bootstrap import open_worker
from app.settings import Settings

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; the batch in hand is finished first."""
    asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_worker(settings) as sampler:
        log.info("worker started")
        await stop.wait()
        for window_s, counts in sampler.snapshot().items():
            log.info(
                "after %d s: %d changes looked at, %d inconsistent in the cache, %d unanswered",
                window_s,
                counts.checked,
                counts.inconsistent,
                counts.unanswered,
            )
        log.info("worker stops")
