"""`POST /api/v1/import`: a file of links, recognised or refused; lines tell what became of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, BinaryIO

import msgspec

from app.interchange.recognition import DIALECTS
from app.resilience.admission import WorkKind
from app.resilience.deadline import BATCH_BODY_S
from app.service.domains import Domains
from app.service.imports import Imports
from app.service.keys import Scope
from app.web import patterns
from app.web.endpoint import Operation, Upload
from app.web.find_links import DOMAIN
from app.web.import_files import UPLOAD_S, Asked, ImportFiles
from app.web.middleware import ApiMiddleware, Call, bearer
from app.web.parameters import FLAG, QueryReader, choice, one, printable, several
from app.web.request import Request
from app.web.response import SECURITY_HEADERS, Response
from app.web.robyn_app import Router

PATH = "/api/v1/import"
# They wait on the disk until they are whole.
MAX_FILE_BYTES = 1024 * 1024 * 1024
_encoder = msgspec.json.Encoder()
_LINES = "application/x-ndjson"

FORMAT = one(
    "format",
    choice(DIALECTS, "format_unknown"),
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


def register(
    api: Router,
    middleware: ApiMiddleware,
    imports: Imports,
    *,
    domains: Domains,
    is_draining: Callable[[], bool],
) -> None:
    """Declare the import of links on *api*, the router of `/api/v1`."""
    files = ImportFiles(middleware, imports, domains, is_draining)

    @api.post("/import")
    @middleware.endpoint(
        Operation(
            summary="Import a file of links, of Hopgate or another shortener",
            scope=Scope.ADMIN,
            work=WorkKind.LIST,
            deadline_s=UPLOAD_S,
            success=(200, None),
            problems=(411, 413, 415, 422),
            parameters=(FORMAT, IGNORE, DOMAIN, DRY_RUN, UPDATE, ALLOW_REFUSED),
            upload=Upload(max_bytes=MAX_FILE_BYTES, body_s=BATCH_BODY_S),
            takes=("text/csv", "application/json", _LINES, "text/plain", "application/octet-stream"),
            gives=(_LINES,),
        )
    )
    async def import_links(call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        form, host = reader.one(FORMAT), reader.one(DOMAIN)
        ignore = reader.several(IGNORE)
        dry_run, updates = reader.one(DRY_RUN), reader.one(UPDATE)
        allows_refused = reader.one(ALLOW_REFUSED)
        asked = Asked(
            form=form,
            ignore=ignore,
            host=host,
            dry_run=bool(dry_run),
            updates=bool(updates),
            allows_refused=bool(allows_refused),
        )
        reader.check()

        async def receive(file: BinaryIO) -> Asked | Response:
            return await received(call.request, file) or asked

        taken = await files.take(receive)
        if isinstance(taken, Response):
            return taken
        headers = [("content-type", _LINES), *SECURITY_HEADERS]
        return Response(200, headers, stream=_lines(files.run(call.principal, bearer(call.request), taken)))


async def received(request: Request, file: BinaryIO) -> Response | None:
    """Write the body of *request* to *file*; return the answer that refuses it."""
    if request.large is not None:
        return await request.large.spool(file)
    file.write(request.body)
    return None


def _encoded(documents: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(_encoder.encode(one) + b"\n" for one in documents)


async def _lines(
    batches: AsyncGenerator[Sequence[Mapping[str, Any]], None],
) -> AsyncGenerator[bytes, None]:
    async with aclosing(batches):
        async for batch in batches:
            yield _encoded(batch)
