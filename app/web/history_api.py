"""`/api/v1/links/{slug}/history` and `/undo`: what a link was before each change, and the way back."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any, Literal

import msgspec

from app.domain.domains import DomainIndex
from app.domain.errors import InvalidInput
from app.domain.link import Link, LinkFields, Slug
from app.domain.link_key import name_of
from app.ports import AddressTaken, ExternalIdTaken, LinkHistory, LinkState, PastChange
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.domains import Domains
from app.service.history import History, NothingToUndo
from app.service.keys import Scope
from app.web import cursors, errors, patterns, schemas
from app.web.endpoint import Operation
from app.web.find_links import DEFAULT_PAGE, LIMIT
from app.web.links_api import (
    DOMAIN,
    IF_MATCH,
    IF_NONE_MATCH,
    conditionally,
    etag,
    key_in_path,
    may_read,
    outcome_response,
)
from app.web.middleware import ApiMiddleware, Call
from app.web.parameters import Kind, QueryReader, one
from app.web.response import Response, empty_response, json_response
from app.web.robyn_app import Router

CURSOR = one(
    "cursor",
    Kind({"type": "string", "pattern": patterns.LISTING_CURSOR}, str),
    "`next_cursor` of the page before.",
)
_NAMES = [field.name for field in fields(LinkFields)]
_State: Any = msgspec.defstruct(
    "_State",
    [
        *(
            (field.name, field.type | msgspec.UnsetType, msgspec.UNSET)
            for field in msgspec.structs.fields(schemas.LinkDocument)
            if field.name in _NAMES
        ),
        ("removed", bool | msgspec.UnsetType, msgspec.UNSET),
        ("domain", str | msgspec.UnsetType, msgspec.UNSET),
        ("slug", str | msgspec.UnsetType, msgspec.UNSET),
        ("aliases", list[schemas.AliasDocument] | msgspec.UnsetType, msgspec.UNSET),
    ],
)


class LinkStateDocument(_State):  # type: ignore[misc]
    """What a change of a link concerns: the fields and slugs that differ, and whether it is removed."""


class LinkChangeDocument(msgspec.Struct):
    """
    A change of a link: what it made of the link is `version`, `before` and `after` are what differs.

    `by` is the id of the API key, `cli` for the command line, null if it is unknown.
    """

    version: int
    at: datetime
    by: str | None
    action: Literal["edit", "remove", "undo"]
    before: LinkStateDocument
    after: LinkStateDocument


class LinkHistoryPage(msgspec.Struct):
    """One page of the changes of a link, newest first; `next_cursor` is null on the last."""

    domain: str
    slug: str
    created_at: datetime
    created_by: str | None
    removed: bool
    changes: list[LinkChangeDocument]
    next_cursor: str | None


def history_page(found: LinkHistory, domains: DomainIndex) -> LinkHistoryPage:
    """Return a page of the history of a link of one of *domains* as the API shows it."""
    link = found.link
    return LinkHistoryPage(
        domain=domains.of(link.slug).host,
        slug=name_of(link.slug),
        created_at=link.created_at,
        created_by=found.created_by,
        removed=link.removed_at is not None,
        changes=[_change(change, link, domains) for change in found.changes],
        next_cursor=cursors.of_history(link.slug, found.next_before),
    )


def register(api: Router, middleware: ApiMiddleware, history: History, domains: Domains) -> None:
    """Declare the endpoints of the history on *api*, the router of `/api/v1`."""

    @api.get("/links/:slug/history")
    @middleware.endpoint(
        Operation(
            summary="Read what a link was before each change, and by which key it was changed",
            scope=Scope.LINKS_READ,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, LinkHistoryPage),
            problems=(404, 422),
            parameters=(DOMAIN, LIMIT, CURSOR),
        )
    )
    async def get_link_history(call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        limit, cursor = reader.one(LIMIT) or DEFAULT_PAGE, reader.one(CURSOR)
        reader.check()
        name = await key_in_path(call.request, domains)
        if name is None:
            return errors.not_found()
        found = await history.page(name, before=cursors.number_in(name, cursor), limit=limit)
        return errors.not_found() if found is None else json_response(200, history_page(found, domains.index))

    _register_undo(api, middleware, history, domains)


def _register_undo(api: Router, middleware: ApiMiddleware, history: History, domains: Domains) -> None:
    @api.post("/links/:slug/undo")
    @middleware.endpoint(
        Operation(
            summary="Undo the last change of a link, its removal too",
            scope=Scope.LINKS_WRITE,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(200, schemas.LinkDocument),
            empty=(204,),
            problems=(404, 409, 411, 412, 422),
            parameters=(DOMAIN, IF_MATCH, IF_NONE_MATCH),
        )
    )
    async def undo_link(call: Call[None]) -> Response:
        can_read = may_read(call.principal)

        async def undo(name: Slug, version: int | None) -> Any:
            try:
                return await history.undo(name, expected_version=version)
            except InvalidInput:
                if can_read:
                    raise
                # What is wrong is not what this key has sent.
                return errors.undo_refused()

        outcome = await conditionally(history.get, domains, call.request, undo)
        match outcome:
            case Response():
                return outcome
            case NothingToUndo():
                return errors.nothing_to_undo()
            case AddressTaken():
                return errors.undo_refused()
            case ExternalIdTaken() if not can_read:
                return errors.undo_refused()
            case Link() if outcome.removed_at is not None or not can_read:
                return empty_response(204, [etag(outcome)])
        return outcome_response(outcome, domains.index, call.principal)


def _change(change: PastChange, link: Link, domains: DomainIndex) -> LinkChangeDocument:
    before, after = (_document(state, link, domains) for state in (change.before, change.after))
    differing = [name for name, value in before.items() if value != after[name]]
    return LinkChangeDocument(
        version=change.version,
        at=change.at,
        by=change.by,
        action=_action(change),
        before=LinkStateDocument(**{name: before[name] for name in differing}),
        after=LinkStateDocument(**{name: after[name] for name in differing}),
    )


def _action(change: PastChange) -> Literal["edit", "remove", "undo"]:
    if change.is_undo:
        return "undo"
    return "remove" if change.after.removed and not change.before.removed else "edit"


def _document(state: LinkState, link: Link, domains: DomainIndex) -> dict[str, Any]:
    key = state.slug or link.slug
    return {
        **{name: getattr(state.fields, name) for name in _NAMES},
        "removed": state.removed,
        "domain": domains.of(key).host,
        "slug": name_of(key),
        "aliases": schemas.alias_documents(state.aliases or (), domains),
    }
