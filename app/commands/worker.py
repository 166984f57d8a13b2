"""`hopgate worker`: one worker process, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import signal

from app.bootstrap import open_worker
from app.settings import Settings

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; the current batch is finished first."""
    asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_worker(settings) as worker:
        log.info("worker started")
        await stop.wait()
        for window_s, counts in worker.sampler.snapshot().items():
            log.info(
                "cache consistency %d s after a change: %d checked, %d inconsistent, %d unanswered",
                window_s,
                counts.checked,
                counts.inconsistent,
                counts.unanswered,
            )
        log.info("worker stopping")
