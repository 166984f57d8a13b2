"""Counters over the last seconds."""

from __future__ import annotations


class Window:
    """
    Counts of several kinds over the last *buckets* × *bucket_s* seconds.

    Older counts expire a bucket at a time, so the span is exact to one bucket.
    """

    def __init__(self, kinds: int, *, buckets: int = 10, bucket_s: float = 1.0) -> None:
        self._bucket_s = bucket_s
        self._buckets = [[0] * kinds for _ in range(buckets)]
        self._totals = [0] * kinds
        self._tick = 0

    def add(self, now: float, kind: int) -> None:
        """Count one of *kind* at *now*, in seconds that never go back."""
        tick = int(now / self._bucket_s)
        if tick > self._tick:
            self._advance(tick)
        self._buckets[self._tick % len(self._buckets)][kind] += 1
        self._totals[kind] += 1

    def totals(self, now: float) -> tuple[int, ...]:
        """Return the counts by kind."""
        tick = int(now / self._bucket_s)
        if tick > self._tick:
            self._advance(tick)
        return tuple(self._totals)

    def clear(self) -> None:
        """Forget everything."""
        for bucket in [*self._buckets, self._totals]:
            bucket[:] = [0] * len(bucket)

    def _advance(self, tick: int) -> None:
        for passed in range(max(self._tick + 1, tick - len(self._buckets) + 1), tick + 1):
            bucket = self._buckets[passed % len(self._buckets)]
            for kind, count in enumerate(bucket):
                self._totals[kind] -= count
                bucket[kind] = 0
        self._tick = tick
