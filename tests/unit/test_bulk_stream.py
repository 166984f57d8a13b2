"""Streams of lines as they arrive: the time of a client is that of its lines, however they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.web import bulk_stream
from app.web.bulk_stream import Line, Lines


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(bulk_stream, "BATCH_BODY_S", 0.2)
    monkeypatch.setattr(bulk_stream, "_PAUSE_S", 0.02)


async def trickle(*chunks: bytes, pause_s: float) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(pause_s)
        yield chunk


async def numbers(lines: Lines) -> list[int]:
    return [line.number async for batch in lines.batches() for line in batch]


@pytest.mark.parametrize("pause_s", [0.01, 0.05])
async def test_line_that_trickles_has_no_more_time(pause_s):
    lines = Lines(trickle(b"{}\n", *[b" "] * 1000, pause_s=pause_s), None, waits=False)
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        await numbers(lines)

    assert time.monotonic() - began < 2


async def test_each_line_has_its_time():
    lines = Lines(trickle(*[b"{", b"}\n"] * 4, pause_s=0.07), None, waits=False)

    assert await numbers(lines) == [1, 2, 3, 4]


async def test_time_of_storing_is_not_that_of_the_client():
    lines = Lines(trickle(b"{}\n{", b"}\n", b"{}\n", pause_s=0.05), None, waits=False)
    found: list[Line] = []

    async for batch in lines.batches():
        found += batch
        await asyncio.sleep(0.3)

    assert [line.number for line in found] == [1, 2, 3]
