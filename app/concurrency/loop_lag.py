"""Measures how late the event loop runs its timers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def watch_loop_lag(
    report: Callable[[float], None], *, period_s: float, monotonic: Callable[[], float]
) -> None:
    """Every *period_s*, call *report* with the lag of the event loop in seconds, until cancelled."""
    while True:
        due = monotonic() + period_s
        await asyncio.sleep(period_s)
        report(max(0.0, monotonic() - due))
