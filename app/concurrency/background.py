"""Background tasks that live as long as an `async with` body."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from app.concurrency.stopping import close, stop

log = logging.getLogger(__name__)


class Service(Protocol):
    """A component with work of its own."""

    async def run(self) -> None:
        """Work until cancelled."""

    async def aclose(self) -> None:
        """Finish or give up what is left, after `run` was cancelled."""


S = TypeVar("S", bound=Service)


@asynccontextmanager
async def running(name: str, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """
    Run *work* in the background of the body, and cancel it afterwards, until it ends or is abandoned.

    If *work* fails, the process is stopped by SIGTERM: a process that looks alive without one of
    its tasks is worse than none, and its supervisor starts another.
    """

    def check(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("%s failed; stopping this process", name, exc_info=task.exception())
            os.kill(os.getpid(), signal.SIGTERM)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(check)
    try:
        yield
    finally:
        if await stop([task], name) and not task.cancelled():
            task.result()


@asynccontextmanager
async def serving(name: str, service: S) -> AsyncIterator[S]:
    """Run *service* in the background of the body, as `running` does, and close it in bounded time."""
    try:
        async with running(name, service.run()):
            yield service
    finally:
        await close(name, service.aclose())
