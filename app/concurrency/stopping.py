"""
Stopping tasks, and closing components, within a bound.

One cancellation is not enough: `asyncio.wait_for` of Python 3.11 and before drops one that arrives
in the same turn as the result it waits for, and drivers use it for every reply. The task then goes
on. So it is cancelled again until it ends; after the bound it is abandoned, and the log names it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

# Long enough for a task to finish its own clean-up, which the next cancellation would interrupt.
CANCEL_EVERY_S = 0.5
STOP_S = 3.0
CLOSE_S = 8.0


async def stop(tasks: Iterable[asyncio.Task[Any]], what: str, *, within_s: float | None = STOP_S) -> bool:
    """
    Cancel *tasks* until they end, for at most *within_s*; return whether they did.

    Their results and errors are left to the caller. A cancellation of the caller is delivered when
    *tasks* have ended or are abandoned: a stop inside a task that is being stopped is not cut short.
    """
    left = {task for task in tasks if not task.done()}
    loop = asyncio.get_running_loop()
    end = math.inf if within_s is None else loop.time() + within_s
    cancelled: asyncio.CancelledError | None = None
    while left and loop.time() < end:
        for task in left:
            task.cancel()
        again = min(end, loop.time() + CANCEL_EVERY_S)
        while left and (pause_s := again - loop.time()) > 0:
            try:
                _, left = await asyncio.wait(left, timeout=pause_s)
            except asyncio.CancelledError as error:
                cancelled = error
                left = {task for task in left if not task.done()}
    for task in left:
        task.add_done_callback(retrieve)
    if left:
        log.error("%s did not end within %g s of its cancellation and is abandoned", what, within_s)
    if cancelled is not None:
        raise cancelled
    return not left


async def close(what: str, closing: Coroutine[Any, Any, object], *, within_s: float = CLOSE_S) -> bool:
    """
    Await *closing* for at most *within_s*, then cancel it; return whether it finished.

    Raises:
        Exception: that of *closing*.
    """
    task = asyncio.create_task(closing, name=f"close {what}")
    try:
        await asyncio.wait({task}, timeout=within_s)
    except asyncio.CancelledError:
        await stop([task], f"closing {what}")
        raise
    if not task.done():
        log.error("closing %s took longer than %g s and is cancelled", what, within_s)
        await stop([task], f"closing {what}")
        return False
    task.result()
    return True


async def outlast(task: asyncio.Task[T]) -> T:
    """Return the result of *task*. A cancellation of the caller is delivered after *task* has ended."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        retrieve(task)
        raise cancelled
    return task.result()


async def together(works: Sequence[Coroutine[Any, Any, None]], what: str) -> None:
    """
    Do *works* at the same time, until one fails or all end; then stop the others.

    `asyncio.TaskGroup` cancels each of its tasks once, and then waits without a bound.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        # Shorter than the bound of the stop that cancels this one.
        await stop(tasks, what, within_s=STOP_S / 2)


def retrieve(task: asyncio.Task[Any]) -> None:
    """Mark the error of *task* as retrieved: asyncio would log it."""
    if not task.cancelled():
        task.exception()
