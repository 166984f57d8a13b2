"""Runs requests of shared limiters in a real Redis: late, twice, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from hopgate_limiter._native import _Request

_FIELDS = (
    "now node number ttl most_outstanding starts_empty is_reset want held back paid owed costs seen rates"
).split()
# Numbers of a reply before the verdicts.
_HEAD = 10


def _unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Read one number or array of MessagePack at *at*; return it and the offset of the next one."""
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
    """Return the fields of a request by name."""
    values, end = _unpack(body)
    assert end == len(body)
    return dict(zip(_FIELDS, values, strict=True))


def _arriving_at(body: bytes, now_us: int) -> bytes:
    """Replace the sender's time by *now_us*, the time at which Redis runs the request."""
    _, end = _unpack(body, 1)
    return body[:1] + b"\xcf" + now_us.to_bytes(8, "big") + body[end:]


@dataclass
class Reply:
    """The script's reply, and the time at which it ran."""

    numbers: list[int]
    at_us: int

    @property
    def is_stale(self) -> bool:
        return self.numbers == [0]

    @property
    def grant(self) -> int:
        return 0 if self.is_stale else self.numbers[1]

    @property
    def verdicts(self) -> list[int]:
        return self.numbers[_HEAD : _HEAD + self.numbers[_HEAD - 1]] if not self.is_stale else []


class CentralState:
    """
    One key in a real Redis whose clock is an argument.

    The server's own clock does not expire the key: `run` notes its expiry on the clock of the test, and
    drops it then.
    """

    def __init__(self, client: redis.Redis, key: bytes, script: str | None = None) -> None:
        self.client = client
        self.key = key
        self.script = str(client.script_load(script or _Request.script()))
        self.expires_us: int | None = None
        client.delete(key)

    def run(self, body: bytes, now_us: int) -> Reply:
        """Run a request at *now_us*."""
        self.expire(now_us)
        return Reply(self.call([self.key], [_arriving_at(body, now_us)], now_us), now_us)

    def call(self, keys: list[bytes], arguments: list[bytes], now_us: int) -> Any:
        """Run the script, and note the expiry that it set, in one transaction: the server counts down."""
        with self.client.pipeline(transaction=True) as together:
            together.evalsha(self.script, len(keys), *keys, *arguments)
            together.pttl(self.key)
            together.persist(self.key)
            reply, left_ms, _ = together.execute()
        assert left_ms != -1 or self.expires_us is not None, "a key without an end"
        if left_ms > 0:
            self.expires_us = now_us + (left_ms + 1) * 1000
        return reply

    def expire(self, now_us: int) -> None:
        """Drop the key if it has expired."""
        if self.expires_us is not None and now_us >= self.expires_us:
            self.client.delete(self.key)
            self.expires_us = None

    def stored(self) -> bytes | None:
        value = self.client.get(self.key)
        assert value is None or isinstance(value, bytes)
        return value

    def restore(self, value: bytes | None) -> None:
        """Lose every write since the key had this *value*."""
        if value is None:
            self.client.delete(self.key)
        else:
            self.client.set(self.key, value)

    def leases(self) -> dict[int, tuple[int, int]]:
        """Tokens on lease by node: (expiry in µs, tokens)."""
        value = self.stored()
        leases = _unpack(value)[0][5] if value else []
        return {leases[i]: (leases[i + 1], leases[i + 2]) for i in range(0, len(leases), 5)}
