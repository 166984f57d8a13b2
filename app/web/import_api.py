"""`POST /api/v1/import`: a file of links, recognised or refused; lines tell what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
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
from app.resilience.admission import WorkKind
from app.resilience.deadline import BATCH_BODY_S, BATCH_S
from app.service.domains import Domains
from app.service.imports import Imports
from app.service.keys import Principal, Scope
from app.service.link_import import Done
from app.web import errors, patterns
from app.web.endpoint import Operation, Upload
from app.web.find_links import DOMAIN
from app.web.middleware import ApiMiddleware, Call
from app.web.parameters import FLAG, Kind, QueryReader, one, printable, several
from app.web.response import SECURITY_HEADERS, Response
from app.web.robyn_app import Router

PATH = "/api/v1/import"
# They wait on the disk until they are whole; a JSON document is read into memory.
MAX_FILE_BYTES = 1024 * 1024 * 1024
MAX_DOCUMENT = 32 * 1024 * 1024
# Files that a process receives at once, and imports that it makes at once.
_RECEIVED, _RUNNING = 2, 2
_UPLOAD_S = 3600.0
_encoder = msgspec.json.Encoder()
# Of the text of a refused row, so many characters are shown.
_SHOWN = 200
_LINES = "application/x-ndjson"

FORMAT = one(
    "format",
    Kind({"type": "string", "maxLength": 80, "examples": ["yourls"]}, str),
    "The format of the file, if it is not recognised.",
)
IGNORE = several(
    "ignore",
    printable(1, 200, "column_invalid", pattern=patterns.PRINTABLE),
    100,
    "A column to leave out, whatever it restricts. Sent several times: all of them.",
)
DRY_RUN = one("dry_run", FLAG, "Store nothing; tell what an import would do.")
UPDATE = one("update", FLAG, "Change links that exist to what the file says of them.")
ALLOW_REFUSED = one("allow_refused", FLAG, "`succeeded` is true although rows were refused.")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What to do with a file."""

    dry_run: bool
    updates: bool
    allows_refused: bool


def register(
    api: Router,
    middleware: ApiMiddleware,
    imports: Imports,
    *,
    domains: Domains,
    is_draining: Callable[[], bool],
) -> None:
    """Declare the import of links on *api*, the router of `/api/v1`."""
    files = _Files(middleware, imports, domains, is_draining)

    @api.post("/import")
    @middleware.endpoint(
        Operation(
            summary="Import a file of links, of Hopgate or another shortener",
            scope=Scope.ADMIN,
            work=WorkKind.LIST,
            deadline_s=_UPLOAD_S,
            success=(200, None),
            problems=(411, 413, 415, 422),
            parameters=(FORMAT, IGNORE, DOMAIN, DRY_RUN, UPDATE, ALLOW_REFUSED),
            upload=Upload(max_bytes=MAX_FILE_BYTES, body_s=BATCH_BODY_S),
            takes=("text/csv", "application/json", _LINES, "text/plain", "application/octet-stream"),
            gives=(_LINES,),
        )
    )
    async def import_links(call: Call[None]) -> Response:
        return await files.serve(call)


class _Files:
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

    async def serve(self, call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        form, host = reader.one(FORMAT), reader.one(DOMAIN)
        ignore = reader.several(IGNORE)
        dry_run, updates, allows_refused = (reader.one(flag) for flag in (DRY_RUN, UPDATE, ALLOW_REFUSED))
        asked = _Asked(bool(dry_run), bool(updates), bool(allows_refused))
        reader.check()
        if self._running >= _RUNNING or not await self._places.enter(0.0):
            return errors.overloaded()
        is_taken, file = False, None
        try:
            file = self._imports.new_file()
            refusal = await _received(call, file)
            if refusal is not None:
                return refusal
            await self._domains.refresh()
            if host is not None:
                await self._domains.named(host)
            size = file.seek(0, 2)
            file.seek(0)
            check = self._imports.check(self._domains.index, host)
            reading = await asyncio.to_thread(
                partial(
                    Reading, file, check=check, dialect=form, ignore=ignore, longest_document=MAX_DOCUMENT
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
        headers = [("content-type", _LINES), *SECURITY_HEADERS]
        parts = self._parts(call, asked, reading, file, size)
        return Response(200, headers, stream=parts)

    async def _parts(
        self, call: Call[None], asked: _Asked, reading: Reading, file: BinaryIO, size: int
    ) -> AsyncGenerator[bytes, None]:
        """Import *file*; yield lines. A client that is gone ends it after the batch under way."""
        principal = call.principal
        tally = Tally(reading.unit)
        self._running += 1
        try:
            async with (
                self._imports.open(updates=asked.updates, dry_run=asked.dry_run) as links,
                aclosing(links.run(reading)) as batches,
            ):
                while (batch := await self._next(batches, principal)) is not None:
                    refusals = _noted(batch, tally)
                    progress = {"bytes": file.tell(), "of": size, **tally.counts}
                    yield refusals + _line({"progress": progress})
                    refusal = errors.overloaded() if self._is_draining() else None
                    refusal = refusal or await self._middleware.lapsed(Scope.ADMIN, call.request)
                    refusal = refusal or await self._middleware.charge(
                        Policy.BULK, principal.key_id, len(batch), longest_s=BATCH_BODY_S
                    )
                    if refusal is not None:
                        yield _failed(refusal)
                        return
            summary = tally.summary(ignored_columns=reading.left_out, notes=reading.notes)
            report = ImportReport(reading.dialect, reading.unit, asked.dry_run, summary)
            succeeded = asked.allows_refused or not summary.refused
            yield _line({"summary": {**report.document(), "succeeded": succeeded}})
        except (Unavailable, TimeoutError) as error:
            yield _failed(errors.unavailable(error, may_have_written=True))
        finally:
            self._running -= 1
            file.close()

    @staticmethod
    async def _next(
        batches: AsyncGenerator[Sequence[Done | Refused], None], principal: Principal
    ) -> Sequence[Done | Refused] | None:
        with acting_as(principal.key_id):
            async with within(BATCH_S):
                return await anext(batches, None)


async def _received(call: Call[None], file: BinaryIO) -> Response | None:
    """Write the body to *file*; return the answer that refuses it."""
    large = call.request.large
    if large is not None:
        return await large.spool(file)
    file.write(call.request.body)
    return None


def _noted(batch: Sequence[Done | Refused], tally: Tally) -> bytes:
    """Count what became of each row; return a line for each that was refused."""
    lines = []
    for row in batch:
        tally.read()
        if isinstance(row, Done):
            tally.accept(row.outcome)
            continue
        tally.refuse(row)
        reasons = [{"field": one.field, "code": one.code, "message": one.message} for one in row.errors]
        told = {"line": row.line, "last_line": row.last_line, "text": _safe(row.text), "errors": reasons}
        lines.append(_line({"refused": told}))
    return b"".join(lines)


def _safe(text: str) -> str:
    """Return *text* of a file without what has no UTF-8 form."""
    return text[:_SHOWN].encode("utf-8", "replace").decode()


def _failed(problem: Response) -> bytes:
    """Return the last line of an import that is not whole: *problem*, which tells why."""
    return _line({"error": msgspec.Raw(problem.body)})


def _line(document: Any) -> bytes:
    return _encoder.encode(document) + b"\n"
