"""Changing a link, removing it, and undoing the last of either."""

from __future__ import annotations

from typing import Any, assert_never

from app.console import drafts
from app.console.checks import Checks
from app.console.gate import Gate, form_of
from app.console.link import PATH, key_of
from app.console.links import RETRY, by_field
from app.console.rendering import Pages, Viewer
from app.domain.errors import InvalidInput, Unavailable
from app.domain.link import Link
from app.domain.link_key import name_of
from app.ports import AddressTaken, ExternalIdTaken, VersionMismatch
from app.resilience.admission import WorkKind
from app.resilience.deadline import WRITE_S
from app.service.history import NothingToUndo
from app.service.keys import Scope
from app.service.links import IsAlias, Removed
from app.web import errors
from app.web.middleware import Call
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services


def register(app: Router, gate: Gate, pages: Pages, services: Services) -> None:
    """Declare the pages on *app*."""
    changes = _Changes(pages, services)
    look = gate.page(Scope.LINKS_WRITE, deadline_s=WRITE_S)
    form = gate.page(Scope.LINKS_WRITE, deadline_s=WRITE_S, work=WorkKind.WRITE, is_form=True)
    app.get("/console/link/edit")(look(changes.ask))
    app.post("/console/link/edit")(form(changes.edit))
    check = gate.page(Scope.LINKS_WRITE, deadline_s=WRITE_S, is_form=True)
    app.post("/console/link/edit/check")(check(changes.check))
    app.post("/console/link/remove")(form(changes.remove))
    app.post("/console/link/undo")(form(changes.undo))


class _Changes:
    """Every change shows what the link is, so its key needs the scope to read as well."""

    def __init__(self, pages: Pages, services: Services) -> None:
        self._pages = pages
        self._links = services.links
        self._history = services.history
        self._domains = services.domains
        self._checks = Checks(pages, services)
        self._on_error = services.on_error

    async def ask(self, call: Call[Any], viewer: Viewer) -> Response:
        """Return the form with what the link is."""
        link = await self._found(call.request.query, viewer)
        return link if isinstance(link, Response) else self._form(viewer, link, {})

    async def edit(self, call: Call[Any], viewer: Viewer) -> Response:
        """Change what differs from the version that the form was made from."""
        form: drafts.Form = {"enabled": "", "analytics": "", **form_of(call.request)}
        link = await self._found(form, viewer)
        if isinstance(link, Response):
            return link
        outcome = await self._changed(link, form, viewer)
        match outcome:
            case Response():
                return outcome
            case Link():
                return self._on(outcome, "changed")
            case VersionMismatch(current):
                return self._meanwhile(viewer, current, form)
            case _:
                return self._refused(outcome, form, viewer)

    async def check(self, call: Call[Any], viewer: Viewer) -> Response:
        """Tell where the link would lead; nothing is changed."""
        form: drafts.Form = {"enabled": "", **form_of(call.request)}
        link = await self._found(form, viewer)
        if isinstance(link, Response):
            return link
        found = self._checks.edit(form, link)
        if form.get("as") == "json":
            return found.document(self._pages)
        # The version that the form was made from: it still says whether the link was changed since.
        typed = {"errors": found.errors, "target": found.target, "version": _version(form)}
        return self._form(viewer, link, form, **typed)

    async def _changed(self, link: Link, form: drafts.Form, viewer: Viewer) -> Any:
        if _version(form) != link.version:
            return VersionMismatch(link)
        try:
            patch = drafts.changes_of(form, link.fields)
            if not patch:
                return self._on(link, "unchanged")
            return await self._links.change(link.slug, patch, expected_version=link.version)
        except InvalidInput as error:
            return self._form(viewer, link, form, status=422, errors=by_field(error))
        except Unavailable as error:
            self._on_error(error)
            told = self._pages.text("try_again")
            return self._form(viewer, link, form, status=503, headers=RETRY, error=told)

    async def remove(self, call: Call[Any], viewer: Viewer) -> Response:
        """Remove the link; its page says so, and has the way back."""
        form = form_of(call.request)
        link = await self._found(form, viewer)
        if isinstance(link, Response):
            return link
        outcome = await self._links.remove(link.slug, expected_version=_version(form))
        return self._on(outcome) if isinstance(outcome, Link) else self._refused(outcome, form, viewer)

    async def undo(self, call: Call[Any], viewer: Viewer) -> Response:
        """Undo the last change, which may be the removal."""
        if not viewer.can_read:
            return errors.forbidden(Scope.LINKS_READ)
        form = form_of(call.request)
        key = await key_of(form, self._domains)
        try:
            outcome = await self._history.undo(key, expected_version=_version(form)) if key else None
        except InvalidInput:
            return errors.undo_refused()
        return (
            self._on(outcome, "undone") if isinstance(outcome, Link) else self._refused(outcome, form, viewer)
        )

    async def _found(self, named: drafts.Form, viewer: Viewer) -> Link | Response:
        if not viewer.can_read:
            return errors.forbidden(Scope.LINKS_READ)
        key = await key_of(named, self._domains)
        link = await self._links.get(key) if key else None
        return link if isinstance(link, Link) else self._refused(link, named, viewer)

    def _refused(
        self,
        outcome: Removed | VersionMismatch | ExternalIdTaken | NothingToUndo | IsAlias | AddressTaken | None,
        form: drafts.Form,
        viewer: Viewer,
    ) -> Response:
        match outcome:
            case Removed():
                return errors.gone()
            case VersionMismatch():
                back = self._pages.url(PATH, slug=form.get("slug", ""), domain=form.get("domain", ""))
                heading, detail = self._pages.text("problem_409"), self._pages.text("changed_meanwhile")
                return self._pages.page(
                    "problem.html", viewer, status=409, heading=heading, detail=detail, back=back
                )
            case ExternalIdTaken() | AddressTaken():
                return errors.undo_refused()
            case IsAlias(link):
                return self._on(link)
            case NothingToUndo():
                return errors.nothing_to_undo()
            case None:
                return errors.not_found()
            case _:
                assert_never(outcome)

    def _meanwhile(self, viewer: Viewer, current: Link, form: drafts.Form) -> Response:
        """409: what was typed stays, and beside it stands what the link is by now."""
        present = drafts.shown(current.fields)
        differing = {name: value for name, value in present.items() if value != form.get(name, "")}
        told = self._pages.text("changed_meanwhile")
        return self._form(viewer, current, form, status=409, error=told, present=differing)

    def _form(self, viewer: Viewer, link: Link, form: drafts.Form, **values: Any) -> Response:
        shown: dict[str, Any] = {
            "errors": {},
            "error": "",
            "present": {},
            "target": "",
            "version": link.version,
            **values,
        }
        index = self._domains.index
        return self._pages.page(
            "edit.html",
            viewer,
            slug=name_of(link.slug),
            host=index.of(link.slug).host,
            short_url=index.short_url(link.slug),
            form={**drafts.shown(link.fields), **form},
            **shown,
        )

    def _on(self, link: Link, done: str | None = None) -> Response:
        host = self._domains.index.of(link.slug).host
        return self._pages.redirect(PATH, slug=name_of(link.slug), domain=host, done=done)


def _version(form: drafts.Form) -> int:
    """Return the version that the page has shown; one that no link has if it cannot be read."""
    text = form.get("version", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
