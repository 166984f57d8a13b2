"""The HTTP API of batches: up to thousands of links in one request, and one transaction."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

from app.concurrency.actors import acting_as
from app.concurrency.bulkhead import Bulkhead
from app.concurrency.time_limit import within
from app.domain.errors import FieldError, InvalidInput
from app.domain.slug import MOVED, ORDINARY
from app.ports import Answered, IdempotentRequest, Policy, RequestMismatch
from app.resilience.admission import WorkKind
from app.resilience.deadline import BATCH_BODY_S, BATCH_S
from app.service.batch_plans import ItemOutcome
from app.service.bulk import BatchDone, BatchOutcome, Begin, BulkLinks, Render
from app.service.domains import Domains
from app.service.key_management import KeyManagement
from app.service.keys import Principal, Scope
from app.web import bulk_items, errors, i_json
from app.web.bulk_results import Results
from app.web.bulk_schemas import (
    MAX_BATCH_BYTES,
    OPTIONS,
    BatchResults,
    CreateBatch,
    EditBatch,
    RemovalBatch,
)
from app.web.bulk_stream import Lines, Stream
from app.web.endpoint import Operation, Parameter, Upload
from app.web.headers import is_lines
from app.web.links_api import IDEMPOTENCY_KEY, idempotency_key
from app.web.middleware import ApiMiddleware, Call, bearer
from app.web.request import Request
from app.web.response import SECURITY_HEADERS, Response
from app.web.robyn_app import Router

PATH = "/api/v1/links/bulk"
# Batches whose bodies a process holds at once, and those that wait for a place.
_HELD, _WAITING = 3, 32
# How long a batch waits for units that the process may have to lease; a stream waits as for its client.
_LEASE_S = 0.5
# Streams that a process answers at once.
_STREAMS = 8
_UPLOAD = Upload(max_bytes=MAX_BATCH_BYTES, body_s=BATCH_BODY_S)
# Fast: an answer of a few megabytes is written within the transaction.
_LEVEL = 1

UPSERT = Parameter(
    "upsert",
    "query",
    {"type": "string", "enum": ["external_id"]},
    description="As in the body; for lines, which have no other place.",
)
REUSE = Parameter("reuse", "query", {"type": "boolean"}, description="As in the body; for lines.")

# Whom links may be handed to; None: the key may hand none over.
_Owners = Collection[str] | None
# Makes the change of one kind of batch.
_Change = Callable[
    [Any, Sequence[Any], IdempotentRequest | None, Render, Begin | None], Awaitable[BatchOutcome]
]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of batch: its schema, what reads its items, and what is done with them."""

    schema: type
    reader: Callable[[Any, Principal, _Owners], Callable[[Any], Any]]
    change: _Change


def register_bulk(
    api: Router,
    middleware: ApiMiddleware,
    bulk: BulkLinks,
    *,
    domains: Domains,
    keys: KeyManagement,
    is_draining: Callable[[], bool],
) -> None:
    """Declare the endpoints of batches on *api*, the router of `/api/v1`."""
    batches = _Batches(middleware, domains, keys, is_draining)

    def new_items(options: Any, principal: Principal, _: _Owners) -> Callable[[Any], Any]:
        lengths = MOVED if principal.may(Scope.ADMIN) else ORDINARY
        may_find = principal.may(Scope.LINKS_READ)
        return bulk_items.new_item(bulk, domains.index, lengths, reuse=options.reuse, may_find=may_find)

    creates = _Kind(
        CreateBatch,
        new_items,
        lambda options, items, request, render, begin: bulk.create(
            items,
            upserts=options.upsert is not None,
            atomic=options.atomic,
            request=request,
            render=render,
            begin=begin,
        ),
    )
    edits = _Kind(
        EditBatch,
        lambda _options, _principal, owners: partial(bulk_items.edit_item, domains.index, owners),
        lambda options, items, request, render, begin: bulk.change(
            items, atomic=options.atomic, request=request, render=render, begin=begin
        ),
    )
    removals = _Kind(
        RemovalBatch,
        lambda _options, _principal, _owners: partial(bulk_items.removal_item, domains.index),
        lambda options, items, request, render, begin: bulk.remove(
            items, atomic=options.atomic, request=request, render=render, begin=begin
        ),
    )

    @api.post("/links/bulk")
    @middleware.endpoint(_operation("Make links, thousands at once", UPSERT, REUSE), body=CreateBatch)
    async def create_links(call: Call[Any]) -> Response:
        return await batches.serve(call, creates)

    @api.patch("/links/bulk")
    @middleware.endpoint(_operation("Change links, thousands at once"), body=EditBatch)
    async def change_links(call: Call[Any]) -> Response:
        return await batches.serve(call, edits)

    @api.delete("/links/bulk")
    @middleware.endpoint(_operation("Remove links, thousands at once"), body=RemovalBatch)
    async def remove_links(call: Call[Any]) -> Response:
        return await batches.serve(call, removals)


def _operation(summary: str, *more: Parameter) -> Operation:
    return Operation(
        summary=summary,
        scope=Scope.LINKS_WRITE,
        work=WorkKind.LIST,
        deadline_s=BATCH_BODY_S + BATCH_S,
        success=(200, BatchResults),
        problems=(411, 413, 415, 422),
        parameters=(IDEMPOTENCY_KEY, *more),
        upload=_UPLOAD,
    )


class _Batches:
    """Serves batches: a few at a time, and what takes the processor in another thread."""

    def __init__(
        self,
        middleware: ApiMiddleware,
        domains: Domains,
        keys: KeyManagement,
        is_draining: Callable[[], bool],
    ) -> None:
        self._middleware = middleware
        self._domains = domains
        self._keys = keys
        self._is_draining = is_draining
        self._places = Bulkhead(_HELD, _WAITING)
        self._streams = 0
        # The answer to a batch is encoded while the store writes it.
        self._encoders = ThreadPoolExecutor(_HELD, "hopgate-bulk")

    async def serve(self, call: Call[Any], kind: _Kind) -> Response:
        key = idempotency_key(call.request)
        if is_lines(call.request.headers.get("content-type", "")):
            return await self._stream(call, kind, key)
        if call.request.query:
            message = "belongs in the body; in the query, if that is application/x-ndjson"
            raise InvalidInput(
                [FieldError(name, "unknown_parameter", message) for name in call.request.query]
            )
        if not await self._places.enter(BATCH_S):
            return errors.overloaded()
        try:
            body = await call.request.whole_body()
            if isinstance(body, Response):
                return body
            async with within(BATCH_S):
                return await self._batch(call, kind, body, key)
        finally:
            self._places.leave()

    async def _batch(self, call: Call[Any], kind: _Kind, body: bytes, key: str | None) -> Response:
        principal, results = call.principal, Results(self._domains.index, call.principal)
        options: Any
        options, documents = await asyncio.to_thread(_read, body, kind.schema)
        if b'"domain"' in body:
            await self._domains.refresh()
        refusal = await self._middleware.charge(
            Policy.BULK, principal.key_id, len(documents), longest_s=_LEASE_S
        )
        if refusal is not None:
            return refusal
        if _finds(options, documents) and not principal.may(Scope.LINKS_READ):
            return errors.forbidden(Scope.LINKS_READ)
        owners = await self._owners(principal, is_asked=b'"owner"' in body)
        read = kind.reader(options, principal, owners)
        items = await asyncio.to_thread(bulk_items.each, documents, read)
        del documents
        request = None if key is None else _request(call.request, principal, key, body)
        encoded: list[Future[bytes]] = []

        def begin(outcomes: Sequence[ItemOutcome]) -> Future[bytes]:
            encoded[:] = [self._encoders.submit(results.encoded, outcomes)]
            return encoded[-1]

        def render(outcomes: Sequence[ItemOutcome]) -> bytes:
            return zlib.compress(encoded[-1].result(), _LEVEL)

        outcome = await kind.change(options, items, request, render, begin)
        match outcome:
            case BatchDone(outcomes, stored):
                if not stored:
                    return await asyncio.to_thread(results.refused, outcomes)
                return _json(await asyncio.wrap_future(encoded[-1]))
            case Answered(answer):
                return _json(zlib.decompress(answer), ("idempotency-replayed", "true"))
            case RequestMismatch():
                return errors.idempotency_key_reused()
            case _:
                assert_never(outcome)

    async def _stream(self, call: Call[Any], kind: _Kind, key: str | None) -> Response:
        request, principal = call.request, call.principal
        options = OPTIONS[kind.schema](links=[], **_options(request))
        if _finds(options, ()) and not principal.may(Scope.LINKS_READ):
            return errors.forbidden(Scope.LINKS_READ)
        length = len(request.body) if request.large is None else request.large.length
        if key is not None and length is None:
            return errors.length_required()
        if self._streams >= _STREAMS:
            return errors.overloaded()
        await self._domains.refresh()
        owners = await self._owners(principal, is_asked=kind.schema is EditBatch)

        def named(number: int, digest: bytes) -> IdempotentRequest:
            # No client's key has a space. The first batch has the key itself: no other request has it then.
            name = f"{key} {number}" if number else str(key)
            whole = f"{request.method} lines {request.query_string}\n".encode() + digest
            return IdempotentRequest(principal.key_id, name, hashlib.sha256(whole).digest())

        async def admit(count: int) -> Response | None:
            # The client decides how long it sends: a key that was revoked changes nothing more.
            return await self._middleware.lapsed(
                Scope.LINKS_WRITE, bearer(request)
            ) or await self._middleware.charge(Policy.BULK, principal.key_id, count, longest_s=BATCH_BODY_S)

        def change(
            items: Sequence[Any], request: IdempotentRequest | None, render: Render
        ) -> Awaitable[BatchOutcome]:
            return kind.change(options, items, request, render, None)

        stream = Stream(
            Results(self._domains.index, principal),
            read=kind.reader(options, principal, owners),
            change=partial(_acting, principal, change),
            admit=admit,
            request=None if key is None else named,
            ends=self._is_draining,
        )
        chunks = _one(request.body) if request.large is None else request.large.chunks()
        answer = self._held(stream.answer(Lines(chunks, length, waits=key is not None)))
        headers = [("content-type", "application/x-ndjson"), *SECURITY_HEADERS]
        return Response(200, headers, stream=answer)

    async def _owners(self, principal: Principal, *, is_asked: bool) -> _Owners:
        if not principal.may(Scope.ADMIN):
            return None
        return await self._keys.owners() if is_asked else ()

    async def _held(self, answer: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        self._streams += 1
        try:
            async with aclosing(answer):
                async for part in answer:
                    yield part
        finally:
            self._streams -= 1


async def _acting(principal: Principal, change: Callable[..., Awaitable[BatchOutcome]], *args: Any) -> Any:
    """Make *change* as *principal*: a stream goes on after its handler has returned."""
    with acting_as(principal.key_id, principal.reach):
        return await change(*args)


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _options(request: Request) -> dict[str, Any]:
    """Return the options of a stream, which are in its query."""
    options: dict[str, Any] = {}
    for name, text in request.query.items():
        match name, text:
            case "upsert", "external_id":
                options[name] = text
            case "reuse", "true" | "false":
                options[name] = text == "true"
            case _:
                expected = "external_id" if name == "upsert" else "true or false"
                raise InvalidInput([FieldError(name, "option_invalid", f"must be {expected}")])
    return options


def _read(body: bytes, schema: type) -> tuple[Any, Sequence[object]]:
    """Return the options of a batch, and its items as JSON has them."""
    members, documents = bulk_items.read_batch(body)
    if documents:
        members["links"] = []
    # Without items, `links` is missing, or no array: this says so.
    return i_json.converted(members, OPTIONS[schema]), documents


def _finds(options: Any, documents: Sequence[object]) -> bool:
    """Tell whether the batch may answer with links that the client did not send."""
    if not isinstance(options, OPTIONS[CreateBatch]):
        return False
    return bool(
        options.upsert  # type: ignore[attr-defined]
        or options.reuse  # type: ignore[attr-defined]
        or any(isinstance(one, dict) and one.get("reuse") is True for one in documents)
    )


def _request(request: Request, principal: Principal, key: str, body: bytes) -> IdempotentRequest:
    # The methods of a batch share one path, and may share a body.
    digest = hashlib.sha256(f"{request.method} /links/bulk\n".encode())
    digest.update(body)
    return IdempotentRequest(principal.key_id, key, digest.digest())


def _json(body: bytes, *headers: tuple[str, str]) -> Response:
    return Response(200, [("content-type", "application/json"), *SECURITY_HEADERS, *headers], body)
