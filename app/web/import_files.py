"""Receives files of links, and imports them: a few at a time, in batches that tell of each row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import msgspec

from app.concurrency.actors import acting_as
from app.concurrency.bulkhead import Bulkhead
from app.concurrency.time_limit import within
from app.domain.errors import FieldError, InvalidInput, Unavailable
from app.interchange.errors import FileRefused
from app.interchange.reading import Reading
from app.interchange.records import Refused
from app.interchange.report import ImportReport, Tally
from app.ports import Policy
from app.resilience.deadline import BATCH_BODY_S, BATCH_S
from app.service.domains import Domains
from app.service.imports import Imports
from app.service.keys import Credential, Principal, Scope
from app.service.link_import import Done
from app.web import errors
from app.web.middleware import ApiMiddleware
from app.web.response import Response

UPLOAD_S = 3600.0
# Where the console, if it is on, takes files as well.
CONSOLE_PATH = "/console/import"
# A JSON document is read into memory.
MAX_DOCUMENT = 32 * 1024 * 1024
# Files that a process receives at once, and imports that it makes at once.
_RECEIVED, _RUNNING = 2, 2
# Of the text of a refused row, so many characters are shown.
_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to do with a file. `form`: its format, None recognises it; `host`: the domain of its links."""

    form: str | None = None
    ignore: Sequence[str] = ()
    host: str | None = None
    dry_run: bool = False
    updates: bool = False
    allows_refused: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """A file that is recognised, and what to do with it."""

    asked: Asked
    reading: Reading
    file: BinaryIO
    size: int


# Writes the body of a request to a file; returns what to do with it, or the answer that refuses it.
Receive = Callable[[BinaryIO], Awaitable[Asked | Response]]


class ImportFiles:
    """Receives files, and imports them: a few at a time."""

    def __init__(
        self,
        middleware: ApiMiddleware,
        imports: Imports,
        domains: Domains,
        is_draining: Callable[[], bool],
    ) -> None:
        self._middleware = middleware
        self._imports = imports
        self._domains = domains
        self._is_draining = is_draining
        self._places = Bulkhead(_RECEIVED, 0)
        self._running = 0

    def new_file(self) -> BinaryIO:
        """As `Imports.new_file`."""
        return self._imports.new_file()

    async def take(self, receive: Receive) -> Taken | Response:
        """
        Return the file that *receive* writes, or the answer that refuses it.

        Raises:
            InvalidInput: it is not recognised.
            Unavailable: it could not be kept.
        """
        if self._running >= _RUNNING or not await self._places.enter(0.0):
            return errors.overloaded()
        is_taken, file = False, None
        try:
            file = self._imports.new_file()
            asked = await receive(file)
            if isinstance(asked, Response):
                return asked
            await self._domains.refresh()
            if asked.host is not None:
                await self._domains.named(asked.host)
            size = file.seek(0, 2)
            file.seek(0)
            check = self._imports.check(self._domains.index, asked.host)
            reading = await asyncio.to_thread(
                partial(
                    Reading,
                    file,
                    check=check,
                    dialect=asked.form,
                    ignore=asked.ignore,
                    longest_document=MAX_DOCUMENT,
                )
            )
            is_taken = True
        except OSError as error:
            raise Unavailable("the disk", f"a file could not be kept: {error.strerror}") from error
        except FileRefused as error:
            raise InvalidInput([FieldError("body", "file_refused", str(error))]) from None
        finally:
            self._places.leave()
            if file is not None and not is_taken:
                file.close()
        return Taken(asked, reading, file, size)

    async def run(
        self, principal: Principal, key: Credential, taken: Taken
    ) -> AsyncGenerator[Sequence[Mapping[str, Any]], None]:
        """
        Import a file; yield what became of it, batch by batch. A caller that stops ends it after a batch.

        So does *key*, that of *principal*, when it no longer counts.

        Each `refused` row, then `progress`; the last is a `summary`, or an `error`: it is not whole.
        """
        reading, asked = taken.reading, taken.asked
        tally = Tally(reading.unit)
        self._running += 1
        try:
            async with (
                self._imports.open(updates=asked.updates, dry_run=asked.dry_run) as links,
                aclosing(links.run(reading)) as batches,
            ):
                while (batch := await self._next(batches, principal)) is not None:
                    refusals = _noted(batch, tally)
                    progress = {"bytes": taken.file.tell(), "of": taken.size, **tally.counts}
                    yield [*refusals, {"progress": progress}]
                    refusal = errors.overloaded() if self._is_draining() else None
                    refusal = refusal or await self._middleware.lapsed(Scope.ADMIN, key)
                    refusal = refusal or await self._middleware.charge(
                        Policy.BULK, principal.key_id, len(batch), longest_s=BATCH_BODY_S
                    )
                    if refusal is not None:
                        yield [_failed(refusal)]
                        return
            summary = tally.summary(ignored_columns=reading.left_out, notes=reading.notes)
            report = ImportReport(reading.dialect, reading.unit, asked.dry_run, summary)
            succeeded = asked.allows_refused or not summary.refused
            yield [{"summary": {**report.document(), "succeeded": succeeded}}]
        except (Unavailable, TimeoutError) as error:
            yield [_failed(errors.unavailable(error, may_have_written=True))]
        finally:
            self._running -= 1
            taken.file.close()

    @staticmethod
    async def _next(
        batches: AsyncGenerator[Sequence[Done | Refused], None], principal: Principal
    ) -> Sequence[Done | Refused] | None:
        with acting_as(principal.key_id):
            async with within(BATCH_S):
                return await anext(batches, None)


def _noted(batch: Sequence[Done | Refused], tally: Tally) -> list[Mapping[str, Any]]:
    """Count what became of each row; return a document for each that was refused."""
    refused: list[Mapping[str, Any]] = []
    for row in batch:
        tally.read()
        if isinstance(row, Done):
            tally.accept(row.outcome)
            continue
        tally.refuse(row)
        reasons = [{"field": one.field, "code": one.code, "message": one.message} for one in row.errors]
        told = {"line": row.line, "last_line": row.last_line, "text": _safe(row.text), "errors": reasons}
        refused.append({"refused": told})
    return refused


def _safe(text: str) -> str:
    """Return *text* of a file without what has no UTF-8 form."""
    return text[:_SHOWN].encode("utf-8", "replace").decode()


def _failed(problem: Response) -> Mapping[str, Any]:
    """Return the last document of an import that is not whole: *problem*, which tells why."""
    return {"error": msgspec.Raw(problem.body)}
