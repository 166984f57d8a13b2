"""
Streams of items: one line in, one line out, in order (NDJSON).

Lines are stored in batches, each a transaction, and answered once their batch is stored. No more than one
batch and what the connection has buffered is held: a client that does not read is not read from either.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, assert_never

from app.concurrency.time_limit import within
from app.domain.errors import FieldError, InvalidInput, Unavailable
from app.ports import Answered, IdempotentRequest, RequestMismatch
from app.resilience.deadline import BATCH_BODY_S, BATCH_S
from app.service.batch_plans import Fault, ItemOutcome
from app.service.bulk import BatchDone, BatchOutcome, Render
from app.web import errors, i_json
from app.web.body import MAX_BODY_BYTES
from app.web.bulk_results import Results
from app.web.response import Response

# A batch has at most so many lines, and bytes.
MAX_LINES, _MAX_BYTES = 500, 4 * 1024 * 1024
# Lines that wait for more of their batch are stored after this pause, unless the request is repeatable.
_PAUSE_S = 0.05
_BLANK = re.compile(rb"[ \t\r]*\Z")

Change = Callable[[Sequence[Any], IdempotentRequest | None, Render], Awaitable[BatchOutcome]]


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank, and its number from 1 on. No text: it is too long."""

    number: int
    text: bytes | None


class Lines:
    """
    Cuts the *chunks* of a body into batches of lines.

    Args:
        length: of the body in bytes; None if it is not known.
        waits: a batch is not ended by a pause, so that the same body has the same batches.
    """

    def __init__(self, chunks: AsyncIterator[bytes], length: int | None, *, waits: bool) -> None:
        self._chunks = chunks
        self._missing = length
        self._waits = waits
        self._lines: list[Line] = []
        self._held = 0
        self._number = 0
        self._rest = b""
        self._is_skipping = False
        # For the rest of the line: only time that is spent waiting for the client.
        self._left_s = BATCH_BODY_S

    async def batches(self) -> AsyncIterator[Sequence[Line]]:
        """
        Yield the lines in batches.

        Raises:
            TimeoutError: a line took longer than `BATCH_BODY_S`, however it arrived.
            InvalidInput: the body ended early; what came after the last whole batch is left out.
        """
        async for chunk in self._received():
            if chunk is None:
                if self._lines and not self._waits:
                    yield self._taken()
                continue
            self._missing = None if self._missing is None else self._missing - len(chunk)
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            for text in whole:
                self._add(text)
                if len(self._lines) >= MAX_LINES or self._held >= _MAX_BYTES:
                    yield self._taken()
            if len(self._rest) > MAX_BODY_BYTES:
                # The rest of the line is as useless.
                self._rest, self._is_skipping = b"", True
        if self._missing:
            message = f"ended {self._missing} bytes early; its last lines were left out"
            raise InvalidInput([FieldError("body", "body_cut_off", message)])
        if self._rest or self._is_skipping:
            self._add(self._rest)
        if self._lines:
            yield self._taken()

    async def _received(self) -> AsyncIterator[bytes | None]:
        """Yield what arrives, and None at a pause. A read is never cancelled: it would lose its chunk."""
        iterator = aiter(self._chunks)
        while True:
            read = asyncio.ensure_future(anext(iterator, None))
            try:
                if not await self._has_come(read, within_s=_PAUSE_S):
                    yield None
                    if not await self._has_come(read, within_s=BATCH_BODY_S):
                        raise TimeoutError
            finally:
                if not read.done():
                    read.cancel()
            chunk = read.result()
            if chunk is None:
                return
            yield bytes(chunk)

    async def _has_come(self, read: asyncio.Future[bytes | None], *, within_s: float) -> bool:
        """Wait for *read*, for as long as the line has left at most."""
        began = monotonic()
        await asyncio.wait((read,), timeout=min(within_s, self._left_s))
        self._left_s -= monotonic() - began
        return read.done()

    def _add(self, text: bytes) -> None:
        self._number += 1
        self._left_s = BATCH_BODY_S
        if self._is_skipping or len(text) > MAX_BODY_BYTES:
            self._is_skipping = False
            self._lines.append(Line(self._number, None))
        elif not _BLANK.match(text):
            self._held += len(text)
            self._lines.append(Line(self._number, text))

    def _taken(self) -> Sequence[Line]:
        lines, self._lines, self._held = self._lines, [], 0
        return lines


class Stream:
    """
    Answers the lines of one request.

    Args:
        read: makes an item of what a line says.
        change: stores a batch of items.
        admit: waits until so many items are within their limit, or returns the refusal.
        request: names the request of a batch, if the whole can be repeated.
        ends: tells whether the process is about to stop.
    """

    def __init__(
        self,
        results: Results,
        *,
        read: Callable[[Any], Any],
        change: Change,
        admit: Callable[[int], Awaitable[Response | None]],
        request: Callable[[int, bytes], IdempotentRequest] | None,
        ends: Callable[[], bool],
    ) -> None:
        self._results = results
        self._read = read
        self._change = change
        self._admit = admit
        self._request = request
        self._ends = ends

    async def answer(self, lines: Lines) -> AsyncGenerator[bytes, None]:
        """Yield the answers to *lines*; the first batch that is not stored ends them."""
        last = 0
        try:
            number = 0
            async for batch in lines.batches():
                if number and self._ends():
                    yield b"".join(self._results.failed(line.number, errors.overloaded()) for line in batch)
                    return
                refusal = await self._admit(len(batch))
                text, failure = (b"", refusal) if refusal else await self._stored(batch, number)
                if failure is not None:
                    yield b"".join(self._results.failed(line.number, failure) for line in batch)
                    return
                yield text
                number += 1
                last = batch[-1].number
        except TimeoutError:
            yield self._results.failed(last + 1, errors.body_timeout())
        except InvalidInput as error:
            yield self._results.failed(last + 1, errors.unreadable(str(error)))

    async def _stored(self, batch: Sequence[Line], number: int) -> tuple[bytes, Response | None]:
        """Store *batch*; return the lines of its answer, or why none of it may count as stored."""
        request = None
        if self._request is not None:
            digest = hashlib.sha256()
            for line in batch:
                digest.update(b"%d %s\n" % (line.number, line.text or b""))
            request = self._request(number, digest.digest())

        def render(outcomes: Sequence[ItemOutcome]) -> bytes:
            return zlib.compress(self._rendered(batch, outcomes), 1)

        try:
            async with within(BATCH_S):
                items = await asyncio.to_thread(self._items, batch)
                outcome = await self._change(items, request, render)
                match outcome:
                    case BatchDone(outcomes):
                        return await asyncio.to_thread(self._rendered, batch, outcomes), None
                    case Answered(answer):
                        return zlib.decompress(answer), None
                    case RequestMismatch():
                        return b"", errors.idempotency_key_reused()
                    case _:
                        assert_never(outcome)
        except (Unavailable, TimeoutError) as error:
            return b"", errors.unavailable(error, may_have_written=True)

    def _items(self, batch: Sequence[Line]) -> list[Any]:
        return [self._item(line) for line in batch]

    def _item(self, line: Line) -> Any:
        if line.text is None:
            message = f"is longer than {MAX_BODY_BYTES} bytes"
            return Fault(InvalidInput([FieldError("body", "line_too_long", message)]))
        try:
            return self._read(i_json.document_of(line.text))
        except (InvalidInput, i_json.UnreadableBody) as error:
            return Fault(error)

    def _rendered(self, batch: Sequence[Line], outcomes: Sequence[ItemOutcome]) -> bytes:
        pairs = zip(batch, outcomes, strict=True)
        return b"".join(self._results.line(outcome, line.number) for line, outcome in pairs)
