"""The door to everything that costs more than a redirect from the first cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.domain.errors import Overloaded
from app.resilience.admission import TICK_S, Admission, Kind


class Entrance:
    """
    Lets work in as `Admission` says, and tells it how that went.

    Args:
        monotonic: seconds that never go back.
    """

    def __init__(self, admission: Admission, *, monotonic: Callable[[], float]) -> None:
        self._admission = admission
        self._monotonic = monotonic

    def refuses(self, kind: Kind) -> bool:
        """Would `enter` raise? Then not even what the work is about has to be read."""
        return self._admission.refuses(kind)

    def enter(self, kind: Kind) -> float:
        """
        Begin one piece of work; give what is returned to `leave`.

        Raises:
            Overloaded: do nothing instead.
        """
        if not self._admission.enter(kind):
            raise Overloaded
        return self._monotonic()

    def leave(self, kind: Kind, entered: float, *, succeeded: bool) -> None:
        """End it. How long a failure took says nothing: it may have been very short."""
        self._admission.leave(kind, self._monotonic() - entered if succeeded else None)

    async def run(self) -> None:
        """Watch how late the event loop is, until cancelled."""
        while True:
            due = self._monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self._admission.tick(max(0.0, self._monotonic() - due))
