"""Whether a store takes writes: learned from the writes themselves, shown by its `ping`, and logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from app.domain.errors import Refused, Unavailable

log = logging.getLogger(__name__)

_LOG_EVERY_S = 60.0
# A small write may fit where the last one did not: a refusal is shown for this long at least.
_SHOWN_S = 5.0


class WriteState:
    """
    The last refusal of a write, until the store takes writes again. Belongs to one event loop.

    Args:
        monotonic: seconds that never go back.
    """

    def __init__(self, *, monotonic: Callable[[], float] | None = None) -> None:
        self._monotonic = monotonic or asyncio.get_running_loop().time
        self._refusal: Refused | None = None
        self._refused_at = self._logged_at = 0.0
        self._unlogged = 0

    def refuse(self, error: Refused) -> None:
        """Note that a write was refused. Logged at once, and then once a minute."""
        now = self._monotonic()
        if self._refusal is None or now - self._logged_at >= _LOG_EVERY_S:
            log.error("store refuses writes: %s (%d more since the last line)", error, self._unlogged)
            self._logged_at, self._unlogged = now, 0
        else:
            self._unlogged += 1
        self._refusal, self._refused_at = error, now

    def accept(self) -> None:
        """Note that a write was taken. A refusal is shown on for its time: this write may be smaller."""
        if self._refusal is not None and self._monotonic() - self._refused_at >= _SHOWN_S:
            log.warning("store takes writes again")
            self._refusal = None

    async def check(self, try_write: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """
        Raise the last refusal unless *try_write*, which raises `Unavailable`, now succeeds.

        Without a refusal nothing is written.
        """
        if self._refusal is None:
            return
        if self._monotonic() - self._refused_at < _SHOWN_S:
            raise self._refusal
        try:
            await try_write()
        except Refused as error:
            self.refuse(error)
            raise
        except Unavailable:
            return
        self.accept()
