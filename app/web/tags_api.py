"""`/api/v1/tags`: the tags of all links; renaming and removing one changes the links that have it."""

from __future__ import annotations

from app.domain import rules
from app.domain.errors import FieldError, InvalidInput
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S
from app.service.find import Listings, Retagged
from app.service.keys import Scope
from app.web import cursors, patterns
from app.web.endpoint import Operation
from app.web.find_links import DEFAULT_PAGE, LIMIT
from app.web.listing_schemas import RenameTag, RetaggedLinks, TagDocument, TagPage
from app.web.middleware import ApiMiddleware, Call
from app.web.parameters import Kind, QueryReader, one, printable
from app.web.request import Request
from app.web.response import Response, json_response
from app.web.robyn_app import Router

CURSOR = one(
    "cursor",
    Kind({"type": "string", "pattern": patterns.LISTING_CURSOR}, str),
    "`next_cursor` of the page before.",
)
TAG = one(
    "tag",
    printable(1, rules.MAX_TAG_LENGTH, "tag_invalid", pattern=patterns.PRINTABLE, examples=["spring"]),
    "The tag to change.",
    is_required=True,
)


def register_tags(api: Router, middleware: ApiMiddleware, listings: Listings) -> None:
    """Declare the endpoints of tags on *api*, the router of `/api/v1`."""

    @api.get("/tags")
    @middleware.endpoint(
        Operation(
            summary="List tags, and how many links have each",
            scope=Scope.LINKS_READ,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, TagPage),
            problems=(422,),
            parameters=(LIMIT, CURSOR),
        )
    )
    async def list_tags(call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        limit, cursor = reader.one(LIMIT) or DEFAULT_PAGE, reader.one(CURSOR)
        reader.check()
        found = await listings.tags(after=cursors.tag_of(cursor), limit=limit + 1)
        documents = [TagDocument(one.tag, one.links) for one in found[:limit]]
        next_cursor = cursors.of_tags(documents[-1].tag) if len(found) > limit else None
        return json_response(200, TagPage(documents, next_cursor))

    @api.patch("/tags")
    @middleware.endpoint(
        Operation(
            summary="Rename a tag on every link that has it",
            scope=Scope.LINKS_WRITE,
            work=WorkKind.WRITE,
            deadline_s=ADMIN_S,
            success=(200, RetaggedLinks),
            alike=(202,),
            problems=(411, 413, 415, 422),
            parameters=(TAG,),
        ),
        body=RenameTag,
    )
    async def rename_tag(call: Call[RenameTag]) -> Response:
        return _answer(await listings.retag(_tag(call.request), call.body.name))

    @api.delete("/tags")
    @middleware.endpoint(
        Operation(
            summary="Take a tag from every link that has it",
            scope=Scope.LINKS_WRITE,
            work=WorkKind.WRITE,
            deadline_s=ADMIN_S,
            success=(200, RetaggedLinks),
            alike=(202,),
            problems=(422,),
            parameters=(TAG,),
        )
    )
    async def remove_tag(call: Call[None]) -> Response:
        return _answer(await listings.retag(_tag(call.request), None))


def _tag(request: Request) -> str:
    reader = QueryReader(request)
    tag = reader.one(TAG)
    reader.check()
    if tag is None:
        raise InvalidInput([FieldError("tag", "tag_missing", "must name the tag to change")])
    return tag


def _answer(outcome: Retagged) -> Response:
    status = 200 if outcome.is_done else 202
    return json_response(status, RetaggedLinks(outcome.changed, outcome.is_done))
