"""The list of links, and the form for a new one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from app.console import drafts
from app.console.gate import Gate, form_of
from app.console.rendering import Pages, Viewer
from app.domain.errors import FieldError, InvalidInput, Unavailable
from app.domain.link import Link, LinkFields
from app.domain.link_key import name_of
from app.domain.slug import MOVED, ORDINARY
from app.ports import ExternalIdTaken, IdempotentRequest, LinkCondition, Policy, RequestMismatch
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.domains import Domains
from app.service.find import SORTS, Filters, Listing
from app.service.keys import Principal, Scope
from app.service.links import Created, SlugTaken
from app.web import cursors
from app.web.middleware import Call
from app.web.request import Request
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services

_PER_PAGE = 25
RETRY = [("retry-after", "1")]
_FILTERS = ("search", "tag", "state", "domain", "sort")


@dataclass(frozen=True, slots=True)
class Row:
    """A link of a list."""

    slug: str
    host: str
    short_url: str
    fields: LinkFields
    visits: int
    condition: LinkCondition


def condition_of(fields: LinkFields, now: datetime) -> LinkCondition:
    """Return what keeps a link with *fields* from redirecting at *now*."""
    if not fields.enabled:
        return LinkCondition.DISABLED
    if fields.expires_at is not None and fields.expires_at <= now:
        return LinkCondition.EXPIRED
    if fields.valid_from is not None and fields.valid_from > now:
        return LinkCondition.PENDING
    return LinkCondition.LIVE


def register(
    app: Router,
    gate: Gate,
    pages: Pages,
    services: Services,
    *,
    clock: Callable[[], datetime],
    token: Callable[[], str],
) -> None:
    """
    Declare the pages on *app*.

    Args:
        token: makes the name of one sending of a form.
    """
    links = _Links(pages, services, clock, token)
    app.get("/console/links")(gate.page(Scope.LINKS_READ, deadline_s=ADMIN_S)(links.show))
    app.get("/console/links/new")(gate.page(Scope.LINKS_WRITE, deadline_s=ADMIN_S)(links.ask))
    form = gate.page(
        Scope.LINKS_WRITE, deadline_s=WRITE_S, work=WorkKind.WRITE, limit=Policy.CREATE, is_form=True
    )
    app.post("/console/links/new")(form(links.create))


class _Links:
    def __init__(
        self, pages: Pages, services: Services, clock: Callable[[], datetime], token: Callable[[], str]
    ) -> None:
        self._pages = pages
        self._links = services.links
        self._listings = services.listings
        self._domains = services.domains
        self._on_error = services.on_error
        self._clock = clock
        self._token = token

    async def show(self, call: Call[Any], viewer: Viewer) -> Response:
        """Return one page of the links that pass the filters in the address."""
        asked = {name: call.request.query.get(name, "").strip() for name in _FILTERS}
        cursor = call.request.query.get("cursor") or None
        problems: Sequence[FieldError] = ()
        listing, next_cursor = Listing((), None, None), None
        try:
            query = (await _filters(asked, self._domains)).query()
            after = cursors.position_in(query, cursor)
            listing = await self._listings.page(query, after=after, limit=_PER_PAGE)
            next_cursor = cursors.of_links(query, listing.next_after)
        except InvalidInput as error:
            problems = error.errors
        await self._domains.know(listing.links)
        return self._pages.page(
            "links.html",
            viewer,
            status=422 if problems else 200,
            rows=self._rows(listing),
            asked=asked,
            is_filtered=any(asked[name] for name in _FILTERS if name != "sort"),
            is_first=cursor is None,
            next_cursor=next_cursor,
            problems=problems,
            hosts=hosts(self._domains, call.principal),
            states=[one.value for one in LinkCondition],
            sorts=list(SORTS),
        )

    async def ask(self, call: Call[Any], viewer: Viewer) -> Response:
        """Return the form for a new link."""
        return self._form(viewer, {"long_url": call.request.query.get("long_url", "")})

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

    def _rows(self, listing: Listing) -> Sequence[Row]:
        now, index = self._clock(), self._domains.index
        return [
            Row(
                name_of(link.slug),
                index.of(link.slug).host,
                index.short_url(link.slug),
                link.fields,
                link.visits,
                condition_of(link.fields, now),
            )
            for link in listing.links
        ]

    def _form(self, viewer: Viewer, form: drafts.Form, **values: Any) -> Response:
        shown: dict[str, Any] = {"errors": {}, "made": "", "error": "", "once": self._token(), **values}
        return self._pages.page(
            "new.html",
            viewer,
            form={**drafts.BLANK, **form},
            hosts=hosts(self._domains, viewer.principal),
            **shown,
        )


def by_field(error: InvalidInput) -> dict[str, str]:
    """Return the messages of *error* by the names of fields of a form."""
    found: dict[str, list[str]] = {}
    for one in error.errors:
        # An item of a list is `tags[0]`.
        found.setdefault(one.field.partition("[")[0], []).append(one.message)
    return {name: "; ".join(messages) for name, messages in found.items()}


async def _filters(asked: dict[str, str], domains: Domains) -> Filters:
    """Return the filters that were *asked* for; raises InvalidInput."""
    states, sort = {one.value: one for one in LinkCondition}, asked["sort"] or None
    errors = []
    if asked["state"] and asked["state"] not in states:
        errors.append(FieldError("state", "state_invalid", f"must be one of {', '.join(states)}"))
    if sort is not None and sort not in SORTS:
        errors.append(FieldError("sort", "sort_invalid", f"must be one of {', '.join(SORTS)}"))
    if errors:
        raise InvalidInput(errors)
    domain = await domains.named(asked["domain"]) if asked["domain"] else None
    return Filters(
        search=asked["search"] or None,
        tag=(asked["tag"],) if asked["tag"] else (),
        state=(states[asked["state"]],) if asked["state"] else (),
        domain=None if domain is None else domain.domain_id,
        sort=sort,
    )


def hosts(domains: Domains, principal: Principal) -> list[str]:
    """Return the hosts that *principal* may make links for, the default one first."""
    return [one.host for one in domains.index if principal.reach.has_domain(one.domain_id)]


def _once(form: drafts.Form, request: Request, key_id: str) -> IdempotentRequest | None:
    """Return the name of this sending of the form: a page that is sent twice makes one link."""
    name = form.get("once", "")
    if not (name.isascii() and name.isalnum() and len(name) <= 64):
        return None
    return IdempotentRequest(key_id, f"console-{name}", hashlib.sha256(request.body).digest())
