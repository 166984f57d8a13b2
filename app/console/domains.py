"""The domains that links are visited at: their list, and the forms that add, change and remove one."""

from __future__ import annotations

from typing import Any, assert_never

from app.console import drafts
from app.console.gate import Gate, form_of
from app.console.links import by_field
from app.console.rendering import Pages, Viewer
from app.domain.domains import PAGES, Domain, DomainSettings, Robots
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import REDIRECT_CODES
from app.domain.link_key import name_of
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.domains import DomainInUse, DomainTaken
from app.service.keys import Scope
from app.web import domains_api, errors, i_json
from app.web.middleware import Call
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services

PATH = "/console/domains"
_NUMBERS = ("min_slug_length", "slug_length", "redirect_code")
_TICKS = ("multi_segment", "unicode")
_NAMES = (*PAGES, *_NUMBERS, *_TICKS, "robots")
_DONE = ("added", "changed", "unchanged", "removed")


def register(app: Router, gate: Gate, pages: Pages, services: Services) -> None:
    """Declare the pages on *app*."""
    domains = _Domains(pages, services)
    look = gate.page(Scope.ADMIN, deadline_s=ADMIN_S)
    form = gate.page(Scope.ADMIN, deadline_s=WRITE_S, work=WorkKind.WRITE, is_form=True)
    app.get(PATH)(gate.page(Scope.LINKS_READ, deadline_s=ADMIN_S)(domains.show))
    app.get(f"{PATH}/new")(look(domains.ask))
    app.post(f"{PATH}/new")(form(domains.add))
    app.get(f"{PATH}/edit")(look(domains.ask_changes))
    app.post(f"{PATH}/edit")(form(domains.edit))
    app.post(f"{PATH}/remove")(form(domains.remove))


class _Domains:
    def __init__(self, pages: Pages, services: Services) -> None:
        self._pages = pages
        self._domains = services.domains

    async def show(self, call: Call[Any], viewer: Viewer) -> Response:
        """List the domains that the key reaches."""
        reach, done = call.principal.reach, call.request.query.get("done", "")
        found = [one for one in await self._domains.all() if reach.has_domain(one.domain_id)]
        return self._pages.page(
            "domains.html",
            viewer,
            domains=found,
            default=self._domains.index.default.domain_id,
            notice=self._pages.text(f"domain_{done}") if done in _DONE else "",
        )

    async def ask(self, call: Call[Any], viewer: Viewer) -> Response:
        """Return the form for another domain."""
        del call
        return self._form(viewer, {})

    async def add(self, call: Call[Any], viewer: Viewer) -> Response:
        """Serve another host."""
        form = {**dict.fromkeys((*_TICKS, "case_sensitive"), ""), **form_of(call.request)}
        try:
            document = {name: value for name, value in _document(form).items() if value is not None}
            document |= {
                "host": form.get("host", "").strip(),
                "case_sensitive": form["case_sensitive"] == "on",
            }
            body = i_json.converted(document, domains_api.AddDomain)
            settings = DomainSettings(**{name: getattr(body, name) for name in _NAMES})
            outcome = await self._domains.add(body.host, settings, case_sensitive=body.case_sensitive)
        except InvalidInput as error:
            return self._form(viewer, form, status=422, errors=by_field(error))
        match outcome:
            case Domain():
                return self._pages.redirect(PATH, done="added")
            case DomainTaken():
                wrong = {"host": self._pages.text("domain_taken")}
                return self._form(viewer, form, status=409, errors=wrong)
            case DomainInUse(slug):
                told = f"{self._pages.text('domain_is_target')} {name_of(slug)}"
                return self._form(viewer, form, status=409, errors={"host": told})
            case _:
                assert_never(outcome)

    async def ask_changes(self, call: Call[Any], viewer: Viewer) -> Response:
        """Return the form with what the domain is."""
        domain = await self._found(call.request.query)
        return errors.not_found() if domain is None else self._form(viewer, {}, domain)

    async def edit(self, call: Call[Any], viewer: Viewer) -> Response:
        """Change what differs from what the form has shown."""
        form = {**dict.fromkeys(_TICKS, ""), **form_of(call.request)}
        domain = await self._found(form)
        if domain is None:
            return errors.not_found()
        before = _shown(domain.settings)
        if form.get("version", "") != str(domain.version):
            present = {name: text for name, text in before.items() if text != form.get(name, "").strip()}
            told = self._pages.text("domain_meanwhile")
            return self._form(viewer, form, domain, status=409, error=told, present=present)
        try:
            typed = {name: form.get(name, text).strip() for name, text in before.items()}
            document = {
                name: value for name, value in _document(typed).items() if typed[name] != before[name]
            }
            if not document:
                return self._pages.redirect(PATH, done="unchanged")
            patch = i_json.converted(document, domains_api.PatchDomain).changes()
            changed = await self._domains.change(domain.host, patch)
        except InvalidInput as error:
            return self._form(viewer, form, domain, status=422, errors=by_field(error))
        return errors.not_found() if changed is None else self._pages.redirect(PATH, done="changed")

    async def remove(self, call: Call[Any], viewer: Viewer) -> Response:
        """Serve a host no more."""
        domain = await self._found(form_of(call.request))
        outcome = None if domain is None else await self._domains.remove(domain.host)
        match outcome:
            case Domain():
                return self._pages.redirect(PATH, done="removed")
            case DomainInUse(slug):
                told = f"{self._pages.text('domain_in_use')} {name_of(slug)}"
                return self._form(viewer, {}, domain, status=409, error=told)
            case None:
                return errors.not_found()
            case _:
                assert_never(outcome)

    async def _found(self, named: drafts.Form) -> Domain | None:
        host = named.get("host", "").strip()
        try:
            return await self._domains.find(host) if host else None
        except InvalidInput:
            return None

    def _form(
        self, viewer: Viewer, form: drafts.Form, domain: Domain | None = None, **values: Any
    ) -> Response:
        shown: dict[str, Any] = {"errors": {}, "error": "", "present": {}, **values}
        settings = DomainSettings() if domain is None else domain.settings
        return self._pages.page(
            "domain.html",
            viewer,
            domain=domain,
            is_default=domain is not None and domain.domain_id == self._domains.index.default.domain_id,
            form={"host": "", "case_sensitive": "on", **_shown(settings), **form},
            codes=[str(code) for code in REDIRECT_CODES],
            rules=[one.value for one in Robots],
            **shown,
        )


def _shown(settings: DomainSettings) -> dict[str, str]:
    """Return what a form shows of *settings*."""
    values = {name: getattr(settings, name) for name in _NAMES}
    ticked = {name: "on" if values[name] else "" for name in _TICKS}
    return {name: "" if value is None else str(value) for name, value in values.items()} | ticked


def _document(form: drafts.Form) -> dict[str, Any]:
    """Return the settings in *form* as a document of the API; raises InvalidInput."""
    wrong: list[FieldError] = []
    document: dict[str, Any] = {}
    for name in _NAMES:
        text = form.get(name, "").strip()
        if name in _TICKS:
            document[name] = text == "on"
        elif name in _NUMBERS and text:
            document[name] = drafts.read_number(name, text, wrong)
        else:
            document[name] = text or None
    if wrong:
        raise InvalidInput(wrong)
    return document
