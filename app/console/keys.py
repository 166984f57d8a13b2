"""API keys: their list, the form that makes one, and the forms that rotate and revoke one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from app.console import drafts
from app.console.gate import Gate, form_of
from app.console.links import by_field
from app.console.rendering import Pages, Viewer
from app.domain import lifetime
from app.domain.errors import FieldError, InvalidInput
from app.ports import ApiKey
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.key_management import Issued
from app.service.keys import Scope
from app.web import errors, i_json, keys_api
from app.web.middleware import Call
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services

PATH = "/console/keys"
# How long the present secret counts beside the new one; the texts have each as `grace_…`.
GRACES = ("1d", "1h", "7d", "0")
_SCOPE = "scope-"
_MOST = 500
_TEXTS = ("name", "expires_at", "domains", "allowed_addresses", "rate_limit")


def register(
    app: Router, gate: Gate, pages: Pages, services: Services, *, clock: Callable[[], datetime]
) -> None:
    """Declare the pages on *app*."""
    keys = _Keys(pages, services, clock)
    look = gate.page(Scope.ADMIN, deadline_s=ADMIN_S)
    form = gate.page(Scope.ADMIN, deadline_s=WRITE_S, is_form=True)
    app.get(PATH)(look(keys.show))
    app.get(f"{PATH}/new")(look(keys.ask))
    app.post(f"{PATH}/new")(form(keys.create))
    app.post(f"{PATH}/revoke")(form(keys.revoke))
    app.post(f"{PATH}/rotate")(form(keys.rotate))


class _Keys:
    def __init__(self, pages: Pages, services: Services, clock: Callable[[], datetime]) -> None:
        self._pages = pages
        self._keys = services.keys
        self._domains = services.domains
        self._clock = clock

    async def show(self, call: Call[Any], viewer: Viewer) -> Response:
        """List the keys that count, or all of them, the newest first."""
        query = call.request.query
        return await self._list(viewer, is_revoked=query.get("done") == "revoked", has_all="all" in query)

    async def ask(self, call: Call[Any], viewer: Viewer) -> Response:
        """Return the form for a new key."""
        del call
        return self._form(viewer, {})

    async def create(self, call: Call[Any], viewer: Viewer) -> Response:
        """Make a key, and show its text, which is not shown again."""
        form = form_of(call.request)
        wrong: list[FieldError] = []
        expiry = form.get("expires_at", "").strip()
        document: dict[str, Any] = {
            "name": form.get("name", "").strip(),
            "scopes": [name.removeprefix(_SCOPE) for name in form if name.startswith(_SCOPE)],
            "expires_at": drafts.read_time(expiry, wrong) if expiry else None,
            "own_links": form.get("own_links", "") == "on",
            "domains": _listed(form.get("domains", "")) or None,
            "allowed_addresses": _listed(form.get("allowed_addresses", "")),
            "rate_limit": form.get("rate_limit", "").strip() or None,
        }
        try:
            if wrong:
                raise InvalidInput(wrong)
            wanted = i_json.converted(document, keys_api.CreateKey)
            issued = await keys_api.issue(wanted, self._keys, self._domains, by=call.principal)
        except InvalidInput as error:
            return self._form(viewer, form, status=422, errors=by_field(error))
        return await self._shown(viewer, issued, status=201)

    async def revoke(self, call: Call[Any], viewer: Viewer) -> Response:
        """Revoke a key: that of this session ends it."""
        del viewer
        is_there = await self._keys.revoke(form_of(call.request).get("key_id", ""))
        return self._pages.redirect(PATH, done="revoked") if is_there else errors.not_found()

    async def rotate(self, call: Call[Any], viewer: Viewer) -> Response:
        """Give a key another secret, and show its text, which is not shown again."""
        form = form_of(call.request)
        grace = form.get("grace", "")
        if grace not in GRACES:
            raise InvalidInput([FieldError("grace", "grace_invalid", f"must be one of {', '.join(GRACES)}")])
        left = timedelta(0) if grace == "0" else lifetime.parse(grace, field="grace")
        issued = await self._keys.rotate(form.get("key_id", ""), by=call.principal, grace=left)
        return errors.not_found() if issued is None else await self._shown(viewer, issued)

    async def _shown(self, viewer: Viewer, issued: Issued, *, status: int = 200) -> Response:
        return await self._list(viewer, status=status, issued=issued)

    async def _list(
        self, viewer: Viewer, *, status: int = 200, has_all: bool = False, **values: Any
    ) -> Response:
        now = self._clock()
        # Each sign-in by a link leaves a key that has ended.
        found = [key for key in await self._keys.all() if has_all or key.is_live(now)]
        return self._pages.page(
            "keys.html",
            viewer,
            status=status,
            keys=[self._row(key, now) for key in found[: -_MOST - 1 : -1]],
            has_all=has_all,
            is_cut=len(found) > _MOST,
            own=viewer.principal.key_id,
            graces=list(GRACES),
            words={one: self._pages.text(f"grace_{one}") for one in GRACES},
            **{"issued": None, "is_revoked": False, **values},
        )

    def _row(self, key: ApiKey, now: datetime) -> dict[str, Any]:
        return {**keys_api.key_values(key, self._domains.index), "is_live": key.is_live(now)}

    def _form(self, viewer: Viewer, form: drafts.Form, **values: Any) -> Response:
        shown: dict[str, Any] = {"errors": {}, **values}
        blank = dict.fromkeys((*_TEXTS, "own_links", *(f"{_SCOPE}{one}" for one in Scope)), "")
        return self._pages.page(
            "key.html",
            viewer,
            form={**blank, **form},
            scopes=[(f"{_SCOPE}{one}", one.value) for one in Scope],
            **shown,
        )


def _listed(text: str) -> list[str]:
    """Return what commas part in *text*: no text without any of it may pass for no restriction."""
    return drafts.read_list(text) or ([text] if text.strip() else [])
