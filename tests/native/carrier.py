"""Carries the requests of shared limiters to a real Redis by hand: late, twice, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from hopgate_limiter._native import _Parcel

_FIELDS = (
    "now node number ttl most_outstanding starts_empty is_reset want held back paid owed needs seen rates"
).split()
# Where answers begin in a reply, and what stands before them.
_HEAD = 10


def _unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Read one number or array of MessagePack at *at*; return it and where the next one begins."""
    first = data[at]
    if first < 0x80:
        return first, at + 1
    if first in (0xCC, 0xCD, 0xCE, 0xCF):
        size = 1 << (first - 0xCC)
        return int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size
    if first == 0x80:
        return [], at + 1  # an empty table of Lua
    if 0x90 <= first < 0xA0:
        count, at = first & 15, at + 1
    else:
        assert first == 0xDC
        count, at = int.from_bytes(data[at + 1 : at + 3], "big"), at + 3
    items = []
    for _ in range(count):
        item, at = _unpack(data, at)
        items.append(item)
    return items, at


def read_request(body: bytes) -> dict[str, Any]:
    """Return what a request says, by name."""
    values, end = _unpack(body)
    assert end == len(body)
    return dict(zip(_FIELDS, values, strict=True))


def _arriving_at(body: bytes, now_us: int) -> bytes:
    """Let Redis's clock show *now_us* when the request is run, whatever the sender's shows."""
    _, end = _unpack(body, 1)
    return body[:1] + b"\xcf" + now_us.to_bytes(8, "big") + body[end:]


@dataclass
class Reply:
    """What the script said, and when."""

    numbers: list[int]
    at_us: int

    @property
    def is_stale(self) -> bool:
        return self.numbers == [0]

    @property
    def grant(self) -> int:
        return 0 if self.is_stale else self.numbers[1]

    @property
    def answers(self) -> list[int]:
        return self.numbers[_HEAD : _HEAD + self.numbers[_HEAD - 1]] if not self.is_stale else []


class CentralState:
    """
    One key in a real Redis whose clock is an argument.

    The server's own clock does not expire the key: `run` asserts that it would have been kept long
    enough, and drops it when its time on the clock of the test is over.
    """

    def __init__(self, client: redis.Redis, key: bytes, script: str | None = None) -> None:
        self.client = client
        self.key = key
        self.script = client.register_script(script or _Parcel.script())
        self.expires_us: int | None = None
        client.delete(key)

    def run(self, body: bytes, now_us: int) -> Reply:
        """Run a request at *now_us*."""
        self.expire(now_us)
        numbers = self.script(keys=[self.key], args=[_arriving_at(body, now_us)])
        left_ms = self.client.pttl(self.key)
        assert left_ms != -1 or self.expires_us is not None, "a key without an end"
        if left_ms > 0:
            self.client.persist(self.key)
            # The server has counted down a little already.
            self.expires_us = now_us + (left_ms + 1) * 1000
        return Reply(numbers, now_us)

    def expire(self, now_us: int) -> None:
        """Drop the key if its time is over."""
        if self.expires_us is not None and now_us >= self.expires_us:
            self.client.delete(self.key)
            self.expires_us = None

    def bytes(self) -> bytes | None:
        return self.client.get(self.key)

    def restore(self, value: bytes | None) -> None:
        """Lose what was written since *value* was there."""
        if value is None:
            self.client.delete(self.key)
        else:
            self.client.set(self.key, value)

    def leases(self) -> dict[int, tuple[int, int]]:
        """Tokens on lease by node: (expiry in µs, tokens)."""
        value = self.bytes()
        leases = _unpack(value)[0][5] if value else []
        return {leases[i]: (leases[i + 1], leases[i + 2]) for i in range(0, len(leases), 5)}
