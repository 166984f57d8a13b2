"""Signing in by an API key or by the link that `hopgate console` prints, and signing out."""

from __future__ import annotations

from typing import Any

from app.console.gate import Gate, form_of, is_form_of
from app.console.new import FILLED
from app.console.new import PATH as NEW_LINK
from app.console.rendering import Pages, Viewer
from app.resilience.deadline import ADMIN_S
from app.service.keys import Claim
from app.service.sessions import Sessions, SignInLink
from app.web import errors
from app.web.middleware import Call
from app.web.request import Request, parse_query
from app.web.response import Response
from app.web.robyn_app import Router

PATH = "/console/sign-in"
# Why the browser was sent here.
_REASONS = ("over", "left")


def register(app: Router, gate: Gate, pages: Pages, sessions: Sessions) -> None:
    """Declare the pages on *app*."""

    @app.get(PATH)
    @gate.open
    async def ask(request: Request) -> Response:
        link = SignInLink.of(request.query.get("link", ""))
        why = request.query.get("why", "")
        return pages.page(
            "sign_in.html",
            None,
            link=link.text if link else "",
            notice=pages.text(f"notice_{why}") if why in _REASONS else "",
            error="",
            new=request.query.get("new", ""),
        )

    def refused(response: Response, request: Request | None) -> Response:
        if response.status != 401 or not response.body.startswith(b"{"):
            return gate.problem(response)
        challenge = [pair for pair in response.headers if pair[0] == "www-authenticate"]
        error = pages.text("wrong_key")
        new = "" if request is None else form_of(request).get("new", "")
        return pages.page(
            "sign_in.html", None, status=401, headers=challenge, link="", notice="", error=error, new=new
        )

    @app.post(PATH)
    @gate.entrance(claim_of, refused, deadline_s=ADMIN_S)
    async def enter(call: Call[Any]) -> Response:
        former = gate.cookie.read(call.request)
        session = await sessions.begin(claim_of(call.request), instead_of=former)
        if session is None:
            return errors.unauthorized()
        kept = [gate.cookie.holding(session)]
        new = filled_in(form_of(call.request).get("new", ""))
        return pages.redirect(NEW_LINK, kept, **new) if new else pages.redirect("/console", kept)

    @app.post("/console/sign-out")
    @gate.page(None, deadline_s=ADMIN_S, is_form=True)
    async def leave(call: Call[Any], viewer: Viewer) -> Response:
        del viewer
        session = gate.cookie.read(call.request)
        if session is not None:
            await sessions.end(session)
        forget = [gate.cookie.empty(), ("clear-site-data", '"cache"')]
        return pages.redirect(PATH, forget, why="left")


def filled_in(query: str) -> dict[str, str]:
    """Return what *query* fills into the form for a new link; nothing if it cannot be read."""
    try:
        values = parse_query(query).values
    except ValueError:
        return {}
    return {name: values[name] for name in FILLED if values.get(name)}


def claim_of(request: Request) -> str | Claim:
    """Return the key in the form, or the link."""
    form = form_of(request) if is_form_of(request) else {}
    link = SignInLink.of(form.get("link", ""))
    return form.get("key", "").strip() if link is None else link
