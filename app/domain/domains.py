"""Domains: the hosts that links are visited at, each with slugs and settings of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from urllib.parse import quote, urlsplit

from app.domain import slug as slugs
from app.domain import target
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import DEFAULT_REDIRECT_CODE, REDIRECT_CODES, Slug
from app.domain.link_key import DEFAULT_ID, MAX_SLUG_LENGTH, key_of, name_of, split_key
from app.domain.policy import TargetPolicy

# A URL's host may have more characters, and no server has a name with them.
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\Z")
# The settings that are URLs.
PAGES = ("root_url", "not_found_url", "expired_url")
# More would be a service for others, which needs another kind of table in every process.
MAX_DOMAINS = 1000
_WITHOUT_CASE = "".join(dict.fromkeys(slugs.ALPHABET.lower()))
_LENGTH_WITHOUT_CASE = 8  # 33^8 ≈ 1.4·10¹², as many as seven characters with case
# Fewer are guessed, and given out twice, too soon.
GENERATED = slugs.Lengths(5, 32)


class Robots(StrEnum):
    """Whether crawlers may follow the links of a domain."""

    ALLOW = "allow"
    DISALLOW = "disallow"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSettings:
    """
    The settings of a domain, each of which may change.

    Visitors of its root, of a slug that no link has and of a link that is gone are redirected to the three
    URLs; None leaves them the answer of the service. `min_slug_length` is of the slugs that are chosen,
    `slug_length` of the random ones; None: as many characters as make guessing hopeless. `multi_segment`
    lets new links have slugs such as `a/b`, `unicode` others than those of ASCII. `redirect_code` is that of
    new links that name none.
    """

    root_url: str | None = None
    not_found_url: str | None = None
    expired_url: str | None = None
    min_slug_length: int = slugs.ORDINARY.least
    slug_length: int | None = None
    multi_segment: bool = False
    unicode: bool = False
    redirect_code: int = DEFAULT_REDIRECT_CODE
    robots: Robots = Robots.ALLOW

    @property
    def kinds(self) -> slugs.Kinds:
        """The kinds of slugs that new links may have."""
        return slugs.Kinds(segments=self.multi_segment, unicode=self.unicode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """
    A host, in canonical form, under which links are visited.

    The links of a removed domain stay, and are back when its host is added again. `case_sensitive` never
    changes: False means that slugs are stored, and looked up, in lower case. `has_segments`: `multi_segment`
    is or was on, so a link may have such a slug; likewise `has_unicode`. `version` is the number of its
    latest change, among those of all domains.
    """

    domain_id: int
    host: str
    case_sensitive: bool = True
    settings: DomainSettings = DomainSettings()
    has_segments: bool = False
    has_unicode: bool = False
    created_at: datetime | None = None
    updated_at: datetime | None = None
    version: int = 0
    removed: bool = False

    def key(self, name: str) -> Slug:
        """Return what the store and every cache call the link *name* of this domain."""
        return key_of(self.domain_id, slugs.canonical(name, ignoring_case=not self.case_sensitive))

    def known_key(self, text: str, kinds: slugs.Kinds = slugs.ALL) -> Slug | None:
        """Return the key of the link *text*; None if it is no slug of *kinds*."""
        name = slugs.canonical(text, ignoring_case=not self.case_sensitive)
        return key_of(self.domain_id, name) if slugs.is_well_formed(name, kinds) else None

    @property
    def is_default(self) -> bool:
        """Is it the domain of the base URL? An index makes its object anew with each look at the domains."""
        return self.domain_id == DEFAULT_ID

    @property
    def kinds(self) -> slugs.Kinds:
        """The kinds of slugs that its links may have."""
        return slugs.Kinds(segments=self.has_segments, unicode=self.has_unicode)


class DomainIndex:
    """
    The domains as one process knows them; belongs to one event loop.

    Args:
        public_url: of the default domain, without a slash at its end. Other domains are reached likewise:
            by the same scheme and port, below the same path.
        allows: decides over each URL of a page, whenever it is asked for.
    """

    def __init__(
        self,
        public_url: str,
        domains: Iterable[Domain] = (),
        *,
        allows: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.public_url = public_url
        self.allows = allows
        url = urlsplit(public_url)
        self._before, self._after = f"{url.scheme}://", public_url.partition("://")[2][len(url.netloc) :]
        self._port = "" if url.port is None else f":{url.port}"
        host = url.hostname or ""
        self._default_host = f"[{host}]" if ":" in host else host
        self.replace(domains)

    def replace(self, domains: Iterable[Domain]) -> None:
        """Know these, removed ones included, and no others."""
        known = {one.domain_id: one for one in (Domain(domain_id=DEFAULT_ID, host=""), *domains)}
        default = known[DEFAULT_ID] = replace(known[DEFAULT_ID], host=self._default_host)
        others = (one for one in known.values() if not one.is_default and not one.removed)
        # Exports are written by other threads meanwhile: each of these is whole at any time.
        self._by_host = {one.host: one for one in others if one.host != self._default_host}
        self._by_id, self.default = known, default
        # Most services have no other: their requests need no look at the host.
        self.has_others = bool(self._by_host)

    def __iter__(self) -> Iterator[Domain]:
        """Give those that are served, the default one first."""
        yield self.default
        yield from self._by_host.values()

    @property
    def hidden(self) -> Domain | None:
        """The further domain whose host is that of the base URL by now: its links are served nowhere."""
        others = (one for one in self._by_id.values() if not one.is_default and not one.removed)
        return next((one for one in others if one.host == self._default_host), None)

    def with_page_at(self, host: str) -> Domain | None:
        """Return a domain that has a page at *host*."""
        hosts = {host, f"{host}."}
        urls = ((one, getattr(one.settings, name)) for one in self for name in PAGES)
        return next((one for one, url in urls if url is not None and target.host_of(url) in hosts), None)

    def root_page(self, domain: Domain) -> str | None:
        """Return where visitors of the host alone go; None if the service has no page for them."""
        return self._allowed(domain.settings.root_url)

    def page(self, domain: Domain, status: int) -> str | None:
        """Return where visitors go that *status* would be sent to; None if it is sent."""
        match status:
            case 404:
                return self._allowed(domain.settings.not_found_url)
            case 410:
                return self._allowed(domain.settings.expired_url)
        return None

    def _allowed(self, url: str | None) -> str | None:
        return url if url is not None and self.allows(url) else None

    def known(self) -> Collection[Domain]:
        """Return all, removed ones included."""
        return self._by_id.values()

    def at(self, host: str | None) -> Domain:
        """Return the domain of a visit whose Host header is *host*: the default one if none has it."""
        if host is None or not self.has_others:
            return self.default
        name = host.lower()
        if not name.startswith("["):
            name = name.partition(":")[0]
        return self._by_host.get(name.removesuffix("."), self.default)

    def named(self, host: str | None) -> Domain | None:
        """Return the domain with the canonical *host*, the default one for None; None if there is none."""
        if host is None or host == self._default_host:
            return self.default
        return self._by_host.get(host)

    def find(self, text: str | None, field: str) -> Domain | None:
        """Return the domain at the host *text*, as it is typed; raises InvalidInput if that is no host."""
        if text is None or text.lower() == self._default_host:
            return self.default
        return self._by_host.get(checked_host(text, field))

    def served(self, text: str | None, field: str = "domain") -> Domain:
        """Return the domain at the host *text*, as it is typed; raises InvalidInput if there is none."""
        found = self.find(text, field)
        if found is None:
            raise InvalidInput([FieldError(field, "domain_unknown", "is no domain of this service")])
        return found

    def shown(self, key: str) -> str:
        """Return how people tell the link *key* from others: by its slug, behind the host of its domain."""
        domain = self.of(key)
        return name_of(key) if domain.is_default else f"{domain.host}/{name_of(key)}"

    def knows(self, key: str) -> bool:
        """Is the domain of the link *key* here? Another process may have added it a moment ago."""
        return split_key(key)[0] in self._by_id

    def ignores_case(self, key: str) -> bool:
        """Has the domain of the link *key* slugs without case?"""
        return not self.of(key).case_sensitive

    def of(self, key: str) -> Domain:
        """Return the domain of the link *key*, which may be removed."""
        return self._by_id.get(split_key(key)[0], self.default)

    def short_url(self, key: str) -> str:
        """Return the address at which the link *key* is visited."""
        domain_id, name = split_key(key)
        if domain_id == DEFAULT_ID:
            return f"{self.public_url}/{quote(name)}"
        return f"{self._before}{self.of(key).host}{self._port}{self._after}/{quote(name)}"

    def has_target(self, url: str) -> bool:
        """Does *url*, which is canonical, lead to another domain than the default one?"""
        return self.has_others and target.host_of(url).removesuffix(".") in self._by_host


def generate(domain: Domain, choice: Callable[[str], str]) -> Slug:
    """Return the key of a random slug of *domain*; *choice* is that of `app.domain.slug.generate`."""
    wanted = domain.settings.slug_length
    if domain.case_sensitive:
        return key_of(domain.domain_id, slugs.generate(choice, wanted or slugs.GENERATED_LENGTH))
    length = wanted or _LENGTH_WITHOUT_CASE
    return key_of(domain.domain_id, "".join(choice(_WITHOUT_CASE) for _ in range(length)))


def parse(domain: Domain, text: str, lengths: slugs.Lengths) -> Slug:
    """
    Return the key of *text*, which a link of *domain* may get.

    Raises:
        InvalidInput: as `app.domain.slug.parse` says, or it is too short or too long for the domain.
    """
    if lengths == slugs.ORDINARY:
        lengths = replace(lengths, least=domain.settings.min_slug_length)
    name = slugs.canonical(text, ignoring_case=not domain.case_sensitive)
    slugs.parse(name, lengths, domain.settings.kinds)
    if domain.domain_id != DEFAULT_ID and len(name) > MAX_SLUG_LENGTH:
        message = f"must be at most {MAX_SLUG_LENGTH} characters outside of the default domain"
        raise InvalidInput([FieldError("slug", "slug_malformed", message)])
    return key_of(domain.domain_id, name)


def checked_host(text: str, field: str = "host") -> str:
    """
    Return the host *text* in canonical form.

    Raises:
        InvalidInput: it is no host that a browser sends in a name or an IPv4 address.
    """
    if not text:
        raise InvalidInput([FieldError(field, "url_host", "must name a host")])
    try:
        host = target.canonical_host(text).removesuffix(".")
    except InvalidInput as error:
        raise InvalidInput([FieldError(field, one.code, one.message) for one in error.errors]) from None
    if host.startswith("["):
        raise InvalidInput([FieldError(field, "host_address", "must be a name, or an IPv4 address")])
    if _NAME.match(host) is None:
        raise InvalidInput([FieldError(field, "url_host", "must be a name of letters, digits, - and _")])
    return host


def checked_pages(
    pages: Mapping[str, str | None], *, host: str, own_hosts: Collection[str], policy: TargetPolicy
) -> dict[str, str | None]:
    """
    Return the URLs of *pages*, settings of the domain at *host*, in canonical form.

    Raises:
        InvalidInput: with every rule that they break.
    """
    errors: list[FieldError] = []
    checked: dict[str, str | None] = {}
    for name, value in pages.items():
        checked[name] = value
        if value is None:
            continue
        try:
            url = checked[name] = target.canonical(value, own_hosts=own_hosts, policy=policy)
        except InvalidInput as error:
            errors += (FieldError(name, one.code, one.message) for one in error.errors)
        else:
            if target.host_of(url).removesuffix(".") == host:
                errors.append(FieldError(name, "url_own_host", "points back to this service"))
    if errors:
        raise InvalidInput(errors)
    return checked


def check_slug_rules(settings: DomainSettings) -> None:
    """Check what *settings* say of new links; raises InvalidInput."""
    errors: list[FieldError] = []
    if not 1 <= settings.min_slug_length <= slugs.ORDINARY.most:
        message = f"must be 1 to {slugs.ORDINARY.most}"
        errors.append(FieldError("min_slug_length", "min_slug_length_invalid", message))
    if settings.slug_length is not None and not GENERATED.least <= settings.slug_length <= GENERATED.most:
        errors.append(FieldError("slug_length", "slug_length_invalid", f"must be {GENERATED}, or null"))
    if settings.redirect_code not in REDIRECT_CODES:
        choices = ", ".join(map(str, REDIRECT_CODES))
        errors.append(FieldError("redirect_code", "redirect_code_invalid", f"must be one of {choices}"))
    if errors:
        raise InvalidInput(errors)
