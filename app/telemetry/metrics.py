"""The metrics of one process, and of all processes of its gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from app.domain.errors import Unavailable
from app.telemetry import prometheus
from app.telemetry.samples import Samples, merge
from app.telemetry.sharing import SharedSamples

_WRITE_EVERY_S = 1.0

Source = Callable[[], Samples]


class Metrics:
    """
    The metrics of a gateway; any of its processes reports for all of them.

    Args:
        sources: read for every scrape.
        shared: where the processes put their samples together; None for a single process.
    """

    def __init__(self, sources: Sequence[Source], shared: SharedSamples | None = None) -> None:
        self._sources = sources
        self._shared = shared
        # Writes are serialized: otherwise older counts could be written after newer ones.
        self._turn = asyncio.Lock()

    def own(self) -> Samples:
        """Return the samples of this process."""
        return merge(source() for source in self._sources)

    async def text(self) -> bytes:
        """Return the metrics of all processes in the format of Prometheus. Raises as `samples`."""
        return await asyncio.to_thread(prometheus.text, await self.samples())

    async def samples(self) -> Samples:
        """
        Return the samples of all processes.

        Raises:
            Unavailable: the shared folder cannot be written.
        """
        async with self._turn:
            return await asyncio.to_thread(self._samples, self.own())

    async def run(self) -> None:
        """Share the samples of this process every second, until cancelled."""
        while self._shared is not None:
            # A full disk must not end the process; scrapes report it.
            with suppress(Unavailable):
                async with self._turn:
                    await asyncio.to_thread(self._shared.write, self.own())
            await asyncio.sleep(_WRITE_EVERY_S)
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Leave the counters to the next process that takes this one's place."""
        if self._shared is not None:
            with suppress(Unavailable):  # the folder may be gone already
                self._shared.close(self.own())

    def _samples(self, own: Samples) -> Samples:
        if self._shared is None:
            return own
        # Written before it is shown: a counter that was shown survives a crash.
        self._shared.write(own)
        return self._shared.read()
