"""`GET /api/v1/export`: links as a file, in parts as the store gives them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from app.concurrency.time_limit import within
from app.domain.errors import Unavailable
from app.domain.link import Link
from app.interchange import writing
from app.interchange.writing import ExportFormat
from app.ports import LinkQuery
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S
from app.service.domains import Domains
from app.service.find import Filters
from app.service.keys import Scope
from app.service.link_export import Exports
from app.web import errors
from app.web.endpoint import Operation
from app.web.find_links import DOMAIN, FILTERS, SORT, filters_of
from app.web.middleware import ApiMiddleware, Call, bearer
from app.web.parameters import QueryReader, member, one
from app.web.request import Request
from app.web.response import SECURITY_HEADERS, Response
from app.web.robyn_app import Router

# Exports that a process answers at once.
_STREAMS = 4
_MEDIA_TYPES = {ExportFormat.JSONL: "application/x-ndjson", ExportFormat.CSV: "text/csv; charset=utf-8"}
FORMAT = one(
    "format",
    member(ExportFormat, "format_unknown"),
    "Lines of JSON, or CSV for spreadsheets. Default: jsonl. An import takes either back, exactly.",
)


def register(
    api: Router,
    middleware: ApiMiddleware,
    exports: Exports,
    *,
    domains: Domains,
    is_draining: Callable[[], bool],
) -> None:
    """Declare the export of links on *api*, the router of `/api/v1`."""
    files = _Files(exports, domains, middleware, is_draining)

    @api.get("/export")
    @middleware.endpoint(
        Operation(
            summary="Export links as a file: all, oldest first, or those that pass filters",
            scope=Scope.LINKS_READ,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, None),
            problems=(422,),
            parameters=(FORMAT, DOMAIN, *FILTERS, SORT),
            gives=tuple(media_type.partition(";")[0] for media_type in _MEDIA_TYPES.values()),
        )
    )
    async def export_links(call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        form = reader.one(FORMAT) or ExportFormat.JSONL
        host = reader.one(DOMAIN)
        filters = filters_of(reader, call.principal.key_id)
        domain = await domains.named(host) if host is not None else None
        filters = replace(filters, domain=None if domain is None else domain.domain_id)
        query = None if filters == Filters() else filters.query()
        if query is not None and filters.sort is None:
            query = replace(query, descending=False)
        return files.answer(query, form, call.request)


class _Files:
    """Answers exports: a few at a time, a page each in memory."""

    def __init__(
        self,
        exports: Exports,
        domains: Domains,
        middleware: ApiMiddleware,
        is_draining: Callable[[], bool],
    ) -> None:
        self._middleware = middleware
        self._exports = exports
        self._domains = domains
        self._is_draining = is_draining
        self._streams = 0

    def answer(self, query: LinkQuery | None, form: ExportFormat, request: Request) -> Response:
        if self._streams >= _STREAMS:
            return errors.overloaded()
        headers = [
            ("content-type", _MEDIA_TYPES[form]),
            ("content-disposition", f'attachment; filename="links.{form}"'),
            *SECURITY_HEADERS,
        ]
        if request.method == "HEAD":
            return Response(200, headers)
        # The stream goes on outside of the request, whose key says which links there are.
        return Response(200, headers, stream=self._parts(self._exports.pages(query), form, request))

    async def _parts(
        self,
        exported: AsyncGenerator[Sequence[tuple[Link, int]], None],
        form: ExportFormat,
        request: Request,
    ) -> AsyncGenerator[bytes, None]:
        self._streams += 1
        try:
            yield writing.header(form).encode()
            async with aclosing(exported) as pages:
                while True:
                    if self._is_draining():
                        yield _ended("the gateway stops", form)
                        return
                    if await self._middleware.lapsed(Scope.LINKS_READ, bearer(request)) is not None:
                        yield _ended("the key counts no longer", form)
                        return
                    async with within(ADMIN_S):
                        links = await anext(pages, None)
                        if links is None:
                            return
                        await self._domains.know([link for link, _ in links])
                    yield await asyncio.to_thread(self._rendered, links, form)
        except (Unavailable, TimeoutError) as error:
            yield _ended(str(error) or "the store took too long", form)
        except Exception:
            # A stream that breaks off here ends like one that is whole.
            yield _ended("it failed", form)
            raise
        finally:
            self._streams -= 1

    def _rendered(self, links: Sequence[tuple[Link, int]], form: ExportFormat) -> bytes:
        return "".join(writing.rows(form, links, self._domains.index)).encode()


def _ended(reason: str, form: ExportFormat) -> bytes:
    """Return the last line of an export that is not whole: no import takes it for a link."""
    return writing.failure(form, f"the export ended early: {reason}").encode()
