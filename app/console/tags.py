"""The tags of all links, with how many have each; renaming and removing one changes these links."""

from __future__ import annotations

from typing import Any

from app.console.gate import Gate, form_of
from app.console.links import by_field
from app.console.rendering import Pages, Viewer
from app.domain.errors import InvalidInput
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S
from app.service.find import Retagged
from app.service.keys import Scope
from app.web import cursors, errors
from app.web.middleware import Call
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services

PATH = "/console/tags"
_PER_PAGE = 50
_DONE = ("renamed", "taken", "partly")


def register(app: Router, gate: Gate, pages: Pages, services: Services) -> None:
    """Declare the pages on *app*."""
    tags = _Tags(pages, services)
    form = gate.page(Scope.LINKS_WRITE, deadline_s=ADMIN_S, work=WorkKind.WRITE, is_form=True)
    app.get(PATH)(gate.page(Scope.LINKS_READ, deadline_s=ADMIN_S)(tags.show))
    app.post(f"{PATH}/rename")(form(tags.rename))
    app.post(f"{PATH}/remove")(form(tags.remove))


class _Tags:
    def __init__(self, pages: Pages, services: Services) -> None:
        self._pages = pages
        self._listings = services.listings

    async def show(self, call: Call[Any], viewer: Viewer) -> Response:
        """Return one page of the tags."""
        query = call.request.query
        done, count = query.get("done", ""), query.get("count", "")
        notice = ""
        if done in _DONE and count.isascii() and count.isdigit() and len(count) < 10:
            notice = f"{self._pages.text(f'tag_{done}')} {count}"
        return await self._shown(viewer, query.get("cursor") or None, notice=notice)

    async def rename(self, call: Call[Any], viewer: Viewer) -> Response:
        """Give a tag another name on every link that has it."""
        form = form_of(call.request)
        tag, name = form.get("tag", ""), form.get("name", "").strip()
        if not viewer.can_read:
            return errors.forbidden(Scope.LINKS_READ)
        try:
            return self._answer(await self._listings.retag(tag, name), "renamed")
        except InvalidInput as error:
            wrong = {"tag": tag, "name": name, "error": "; ".join(by_field(error).values())}
            return await self._shown(viewer, None, status=422, wrong=wrong)

    async def remove(self, call: Call[Any], viewer: Viewer) -> Response:
        """Take a tag from every link that has it."""
        if not viewer.can_read:
            return errors.forbidden(Scope.LINKS_READ)
        return self._answer(await self._listings.retag(form_of(call.request).get("tag", ""), None), "taken")

    def _answer(self, outcome: Retagged, done: str) -> Response:
        done = done if outcome.is_done else "partly"
        return self._pages.redirect(PATH, done=done, count=str(outcome.changed))

    async def _shown(
        self, viewer: Viewer, cursor: str | None, *, status: int = 200, **values: Any
    ) -> Response:
        problem, found = "", []
        try:
            found = list(await self._listings.tags(after=cursors.tag_of(cursor), limit=_PER_PAGE + 1))
        except InvalidInput as error:
            status, problem = 422, "; ".join(by_field(error).values())
        return self._pages.page(
            "tags.html",
            viewer,
            status=status,
            tags=found[:_PER_PAGE],
            is_first=cursor is None,
            next_cursor=cursors.of_tags(found[_PER_PAGE - 1].tag) if len(found) > _PER_PAGE else None,
            problem=problem,
            **{"notice": "", "wrong": None, **values},
        )
