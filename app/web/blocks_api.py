"""The API of blocks: the hosts and slugs that no redirect leads to or comes from."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated
from urllib.parse import unquote

import msgspec

from app.domain.blocks import Block, BlockKind, blocked_host, blocked_slug
from app.domain.errors import FieldError, InvalidInput
from app.domain.slug import MAX_LENGTH
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.blocks import Blocks
from app.service.keys import Scope
from app.web import errors, patterns
from app.web.endpoint import Operation, Parameter
from app.web.middleware import ApiMiddleware, Call
from app.web.response import Response, empty_response, json_response
from app.web.robyn_app import Router
from app.web.schemas import described

MAX_BLOCKS = 1000
_DEFAULT_PAGE, _MAX_PAGE = 100, 1000
_CURSOR = re.compile(patterns.CURSOR)

LIMIT = Parameter(
    "limit", "query", {"type": "integer", "minimum": 1, "maximum": _MAX_PAGE, "default": _DEFAULT_PAGE}
)
CURSOR = Parameter(
    "cursor",
    "query",
    {"type": "string", "pattern": patterns.CURSOR},
    description="`next_cursor` of the page before.",
)


_Host = Annotated[
    str,
    described(
        pattern=patterns.BLOCKED_HOST,
        examples=["evil.example"],
        description="Every host that matches is accepted. So are addresses, Punycode and every other script.",
    ),
]
_BlockedSlug = Annotated[
    str,
    described(
        minLength=1,
        maxLength=MAX_LENGTH,
        pattern=patterns.SLUG,
        examples=["spring-sale"],
        description="Every slug that matches is accepted. So are those of every other script.",
    ),
]
_Hosts = Annotated[tuple[_Host, ...], described(maxItems=MAX_BLOCKS)]
_BlockedSlugs = Annotated[tuple[_BlockedSlug, ...], described(maxItems=MAX_BLOCKS)]


class AddBlocks(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/blocks`. A host stands for its subdomains as well."""

    hosts: _Hosts = ()
    slugs: _BlockedSlugs = ()

    def blocks(self) -> list[Block]:
        """
        Return what the body names.

        Raises:
            InvalidInput: with everything that cannot be blocked.
        """
        count = len(self.hosts) + len(self.slugs)
        if not 1 <= count <= MAX_BLOCKS:
            message = f"must name 1 to {MAX_BLOCKS} hosts and slugs, and names {count}"
            raise InvalidInput([FieldError("body", "blocks_count", message)])
        problems: list[FieldError] = []
        found = [*_read(self.hosts, blocked_host, problems), *_read(self.slugs, blocked_slug, problems)]
        if problems:
            raise InvalidInput(problems)
        return found


class BlocksAdded(msgspec.Struct):
    """How many blocks are new; the others were there already."""

    added: int
    present: int


class BlockDocument(msgspec.Struct):
    """A block: `value` is in the form in which hosts are compared."""

    kind: BlockKind
    value: str
    created_at: datetime


class BlockList(msgspec.Struct):
    """One page of blocks, latest first; `next_cursor` is null on the last."""

    blocks: list[BlockDocument]
    next_cursor: str | None


def register(api: Router, middleware: ApiMiddleware, blocks: Blocks) -> None:
    """Declare the endpoints of blocks on *api*, the router of `/api/v1`."""

    @api.get("/blocks")
    @middleware.endpoint(
        Operation(
            summary="List blocked hosts and slugs, latest first",
            scope=Scope.ADMIN,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, BlockList),
            problems=(422,),
            parameters=(LIMIT, CURSOR),
        )
    )
    async def list_blocks(call: Call[None]) -> Response:
        query = call.request.query
        page = await blocks.page(before=_before(query.get("cursor")), limit=_limit(query.get("limit")))
        documents = [BlockDocument(one.block.kind, one.block.value, one.created_at) for one in page.blocks]
        return json_response(200, BlockList(documents, _cursor(page.next_before)))

    @api.post("/blocks")
    @middleware.endpoint(
        Operation(
            summary="Block hosts and slugs",
            scope=Scope.ADMIN,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(200, BlocksAdded),
            problems=(411, 413, 415, 422),
        ),
        body=AddBlocks,
    )
    async def add_blocks(call: Call[AddBlocks]) -> Response:
        asked = set(call.body.blocks())
        added = await blocks.add(list(asked))
        return json_response(200, BlocksAdded(len(added), len(asked) - len(added)))

    def declare_removal(path: str, read: Callable[[str], Block], *, summary: str, name: str) -> None:
        parameter = path.rpartition(":")[2]

        async def remove(call: Call[None]) -> Response:
            block = read(unquote(call.request.path_params[parameter]))
            removed = await blocks.remove([block])
            return empty_response(204) if removed else errors.not_found()

        remove.__name__ = name
        operation = Operation(
            summary=summary,
            scope=Scope.ADMIN,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(204, None),
            problems=(404, 411, 422),
        )
        api.delete(path)(middleware.endpoint(operation)(remove))

    declare_removal("/blocks/hosts/:value", blocked_host, summary="Unblock a host", name="unblock_host")
    declare_removal("/blocks/slugs/:slug", blocked_slug, summary="Unblock a slug", name="unblock_slug")


def _read(texts: Iterable[str], read: Callable[[str], Block], problems: list[FieldError]) -> Iterable[Block]:
    for text in texts:
        try:
            yield read(text)
        except InvalidInput as error:
            problems += error.errors


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_PAGE
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= _MAX_PAGE:
        raise InvalidInput([FieldError("limit", "limit_invalid", f"must be 1 to {_MAX_PAGE}")])
    return int(text)


def _cursor(before: int | None) -> str | None:
    return None if before is None else base64.urlsafe_b64encode(b"%d" % before).decode().rstrip("=")


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if _CURSOR.fullmatch(cursor) is None:
        raise InvalidInput([FieldError("cursor", "cursor_invalid", "is not a cursor of this listing")])
    return int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
