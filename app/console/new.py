"""The form for a new link."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, assert_never

from app.console import drafts
from app.console.checks import Checks
from app.console.gate import Gate, form_of
from app.console.links import RETRY, by_field, hosts
from app.console.rendering import Pages, Viewer
from app.domain.errors import InvalidInput, Unavailable
from app.domain.link import Link
from app.domain.link_key import name_of
from app.domain.slug import MOVED, ORDINARY
from app.ports import ExternalIdTaken, IdempotentRequest, Policy, RequestMismatch
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.keys import Scope
from app.service.links import Created, SlugTaken
from app.web.middleware import Call
from app.web.request import Request
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services

PATH = "/console/links/new"
# The fields that the address of the form fills in, as a bookmark and the table of missing slugs do.
FILLED = ("long_url", "title", "slug", "domain")
_BLANK: dict[str, Any] = {"errors": {}, "made": "", "error": "", "target": "", "slug_said": ""}


def register(app: Router, gate: Gate, pages: Pages, services: Services, *, token: Callable[[], str]) -> None:
    """
    Declare the pages on *app*.

    Args:
        token: makes the name of one sending of a form.
    """
    new = _New(pages, services, token)
    app.get(PATH)(gate.page(Scope.LINKS_WRITE, deadline_s=ADMIN_S, keeps_query=True)(new.ask))
    form = gate.page(
        Scope.LINKS_WRITE, deadline_s=WRITE_S, work=WorkKind.WRITE, limit=Policy.CREATE, is_form=True
    )
    app.post(PATH)(form(new.create))
    app.post(f"{PATH}/check")(gate.page(Scope.LINKS_WRITE, deadline_s=WRITE_S, is_form=True)(new.check))


class _New:
    def __init__(self, pages: Pages, services: Services, token: Callable[[], str]) -> None:
        self._pages = pages
        self._links = services.links
        self._domains = services.domains
        self._checks = Checks(pages, services)
        self._on_error = services.on_error
        self._token = token

    async def ask(self, call: Call[Any], viewer: Viewer) -> Response:
        """Return the form for a new link, with what the address says of it; nothing is stored."""
        query = call.request.query
        return self._form(viewer, {name: query.get(name, "") for name in FILLED})

    async def create(self, call: Call[Any], viewer: Viewer) -> Response:
        """Make the link; what was typed stays if a rule is broken."""
        form = form_of(call.request)
        try:
            draft = drafts.draft_of(form)
            domain = await self._domains.named(draft.domain)
            outcome = await self._links.create(
                draft.fields(domain.settings.redirect_code),
                domain=domain,
                custom_slug=draft.slug,
                lengths=MOVED if call.principal.may(Scope.ADMIN) else ORDINARY,
                request=_once(form, call.request, call.principal.key_id),
            )
        except InvalidInput as error:
            return self._form(viewer, form, status=422, errors=by_field(error))
        except Unavailable as error:
            self._on_error(error)
            # The same name once more: if the link was stored after all, it stays the only one.
            again = {"once": form.get("once", ""), "error": self._pages.text("try_again")}
            return self._form(viewer, form, status=503, headers=RETRY, **again)
        match outcome:
            case Created(link):
                return self._made(viewer, link)
            case SlugTaken():
                wrong = {"slug": self._pages.text("slug_taken")}
                return self._form(viewer, form, status=409, errors=wrong)
            case ExternalIdTaken() | RequestMismatch():
                return self._form(viewer, form, status=409, error=self._pages.text("sent_before"))
            case _:
                assert_never(outcome)

    def _made(self, viewer: Viewer, link: Link) -> Response:
        index = self._domains.index
        if viewer.can_count:
            host = index.of(link.slug).host
            return self._pages.redirect("/console/link", slug=name_of(link.slug), domain=host, done="created")
        # The key may not see the page of the link.
        return self._form(viewer, {}, status=201, made=index.short_url(link.slug))

    async def check(self, call: Call[Any], viewer: Viewer) -> Response:
        """Tell where the link would lead, and whether its slug is free; nothing is stored."""
        form = form_of(call.request)
        found = await self._checks.new(form, call.principal)
        if form.get("as") == "json":
            return found.document(self._pages)
        once = form.get("once", "") or self._token()
        return self._form(
            viewer, form, errors=found.errors, target=found.target, slug_said=found.slug, once=once
        )

    def _form(self, viewer: Viewer, form: drafts.Form, **values: Any) -> Response:
        shown: dict[str, Any] = {**_BLANK, "once": self._token(), **values}
        return self._pages.page(
            "new.html",
            viewer,
            form={**drafts.BLANK, **form},
            hosts=hosts(self._domains, viewer.principal),
            **shown,
        )


def _once(form: drafts.Form, request: Request, key_id: str) -> IdempotentRequest | None:
    """Return the name of this sending of the form: a page that is sent twice makes one link."""
    name = form.get("once", "")
    if not (name.isascii() and name.isalnum() and len(name) <= 64):
        return None
    return IdempotentRequest(key_id, f"console-{name}", hashlib.sha256(request.body).digest())
