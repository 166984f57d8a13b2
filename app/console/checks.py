"""What a form would make of a link, told before it is sent: its target, and whether its slug is free."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from app.concurrency.actors import reach
from app.console import drafts
from app.console.links import by_field
from app.console.rendering import Pages
from app.domain import utm
from app.domain.domains import Domain
from app.domain.errors import InvalidInput
from app.domain.link import Link, LinkFields
from app.domain.slug import MOVED, ORDINARY
from app.service.batch_plans import NewItem
from app.service.keys import Principal, Scope
from app.web.response import Response
from app.web.services import Services


@dataclass(slots=True)
class Found:
    """What a check has found: the target as it would be stored, that the slug is free, and broken rules."""

    target: str = ""
    slug: str = ""
    errors: dict[str, str] = field(default_factory=dict)

    def document(self, pages: Pages) -> Response:
        """Return it for the script."""
        said = self.errors.get("slug", self.slug)
        document = {"target": self.target, "slug": said, "slug_is_wrong": "slug" in self.errors}
        return pages.data(msgspec.json.encode(document))


class Checks:
    """Applies the rules for new and changed links, and stores nothing."""

    def __init__(self, pages: Pages, services: Services) -> None:
        self._pages = pages
        self._bulk = services.bulk
        self._domains = services.domains
        self._links = services.links

    async def new(self, form: drafts.Form, principal: Principal) -> Found:
        """Check the target and the slug of a new link."""
        found = Found()
        try:
            domain = await self._domains.named(form.get("domain") or None)
            reach().check_domain(domain)
        except InvalidInput as error:
            return Found(errors=by_field(error))
        typed = {name: form.get(name, "") for name in ("long_url", *utm.NAMES)}
        if typed["long_url"].strip():
            try:
                found.target = self._target(drafts.draft_of(typed).fields(), domain)
            except InvalidInput as error:
                found.errors |= by_field(error)
        slug = form.get("slug", "").strip()
        if slug:
            await self._check_slug(slug, domain, principal, found)
        return found

    def edit(self, form: drafts.Form, link: Link) -> Found:
        """Check the target that *form* gives *link*."""
        kept = drafts.shown(link.fields)
        typed = {**kept, **{name: form[name] for name in ("long_url", *utm.NAMES) if name in form}}
        try:
            fields = utm.patched(link.fields, drafts.changes_of(typed, link.fields))
            return Found(self._target(fields, self._domains.index.of(link.slug)))
        except InvalidInput as error:
            return Found(errors=by_field(error))

    def _target(self, fields: LinkFields, domain: Domain) -> str:
        return self._checked(LinkFields(long_url=fields.long_url), domain).fields.long_url

    def _checked(
        self, fields: LinkFields, domain: Domain, slug: str | None = None, *, is_admin: bool = False
    ) -> NewItem:
        item = NewItem(fields=fields, slug=None, named=frozenset(), domain=domain)
        return self._bulk.checked(item, slug, MOVED if is_admin else ORDINARY)

    async def _check_slug(self, slug: str, domain: Domain, principal: Principal, found: Found) -> None:
        # The target is judged above: this one breaks no rule.
        fields = LinkFields(long_url=found.target or _SOME_TARGET)
        try:
            key = self._checked(fields, domain, slug, is_admin=principal.may(Scope.ADMIN)).slug
        except InvalidInput as error:
            wrong = by_field(error).get("slug")
            key = domain.known_key(slug) if wrong is None else None
            if wrong is not None:
                found.errors["slug"] = wrong
        if key is not None and await self._links.is_free(key):
            found.slug = self._pages.text("slug_free")
        elif key is not None:
            found.errors["slug"] = self._pages.text("slug_taken")


_SOME_TARGET = "https://example.com/"
