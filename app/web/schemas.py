"""The JSON schemas of the API, and the conversions to and from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Annotated, Any, ClassVar, get_type_hints

import msgspec

from app.domain import lifetime, rules, target, utm
from app.domain import slug as slug_rules
from app.domain.domains import DomainIndex
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import (
    DEFAULT_REDIRECT_CODE,
    MAX_ALIASES,
    MAX_MAX_VISITS,
    REDIRECT_CODES,
    Link,
    LinkFields,
)
from app.domain.link_key import name_of
from app.web import patterns
from app.web.i_json import TIME_EXAMPLE

TIME = {"type": "string", "format": "date-time", "pattern": patterns.TIME, "examples": [TIME_EXAMPLE]}

# --- the fields of a link: described here, enforced by `app.domain.rules` like all rules of a link ---


def described(**schema: Any) -> msgspec.Meta:
    """Return what a document says of a type besides what is derived from it: members of a JSON Schema."""
    return msgspec.Meta(extra_json_schema=schema)


_LongUrl = Annotated[
    str,
    described(
        maxLength=target.MAX_LENGTH,
        pattern=patterns.TARGET,
        examples=["https://example.com/a/long/path?with=query"],
        description="Every URL that matches is accepted, unless it leads back to this service, or to a host"
        " that the operator blocks. So are IP addresses, Punycode and every other script, if the canonical"
        f" form has at most {target.MAX_LENGTH} characters.",
    ),
]


def _new_slug(example: str) -> msgspec.Meta:
    return described(
        minLength=slug_rules.MOVED.least,
        maxLength=slug_rules.MOVED.most,
        pattern=patterns.SLUG,
        # The words that are reserved.
        **{"not": {"pattern": patterns.RESERVED_SLUG}},
        examples=[example],
        description=f"{slug_rules.ORDINARY} characters; {slug_rules.MOVED} with the scope admin.",
    )


_NewSlug = Annotated[str, _new_slug("spring-sale")]
_AnotherSlug = Annotated[str, _new_slug("spring-2030")]
Domain = Annotated[
    str,
    described(
        maxLength=target.MAX_HOST_LENGTH,
        pattern=patterns.HOST,
        description="The host of the domain, such as `go.example`. Default: that of the base URL.",
    ),
]
_Title = Annotated[
    str,
    described(maxLength=rules.MAX_TITLE_LENGTH, pattern=patterns.PRINTABLE, examples=["Spring sale"]),
]
_Tag = Annotated[str, described(minLength=1, maxLength=rules.MAX_TAG_LENGTH, pattern=patterns.PRINTABLE)]
_Tags = Annotated[
    tuple[_Tag, ...],
    described(
        maxItems=rules.MAX_TAGS,
        description="Those that are sent twice are kept once.",
        examples=[["campaign", "2030"]],
    ),
]
_RedirectCode = Annotated[
    int,
    described(
        enum=list(REDIRECT_CODES), description="Of a new link by default that of its domain, as a rule 302."
    ),
]
_ValidFrom = Annotated[datetime, described(**TIME)]
_ExpiresAt = Annotated[
    datetime,
    described(**TIME, description="Later than `valid_from`; in the future, when the link is made."),
]
_MaxVisits = Annotated[int, described(minimum=1, maximum=MAX_MAX_VISITS, format="int64")]
_ExternalId = Annotated[
    str,
    described(
        minLength=1,
        maxLength=rules.MAX_EXTERNAL_ID_LENGTH,
        pattern=patterns.PRINTABLE,
        description="The link's name in another system. No two links have the same, unless removed.",
    ),
]
_Utm = Annotated[
    str,
    described(
        minLength=1,
        maxLength=utm.MAX_LENGTH,
        pattern=patterns.PRINTABLE,
        description="A UTM parameter of the target. It is written into the query of `long_url`, in place of"
        " one that is there, and shown as it stands there. Needs a target with a server.",
    ),
]
_OverrideQuery = Annotated[
    bool,
    described(
        description="The query that `forward_query` adds takes the place of the target's parameters of the"
        " same names. Needs `forward_query`."
    ),
]
_ExpiredUrl = Annotated[
    str,
    described(
        maxLength=target.MAX_LENGTH,
        pattern=patterns.TARGET,
        description="Where visitors are redirected once the link is expired, disabled or without visits;"
        " null: where those of its domain are, or 410. The rules are those of `long_url`.",
    ),
]
_Robots = Annotated[
    str,
    described(
        pattern=patterns.ROBOTS,
        examples=["noindex, nofollow"],
        description="The value of `X-Robots-Tag` on the link's redirects: words by commas, of"
        f" {', '.join(rules.ROBOTS)}.",
    ),
]
_Analytics = Annotated[
    bool,
    described(
        description="Whether statistics describe visits: where they come from, with what program, in which"
        " language. Otherwise they are counted, and nothing else is kept of them."
    ),
]
_Owner = Annotated[
    str,
    described(
        minLength=1,
        maxLength=64,
        description="The id of the API key that owns the link; null: none. Keys with the scope admin may"
        " change it.",
    ),
]
ExpiresIn = Annotated[
    str,
    described(
        pattern=lifetime.PATTERN,
        examples=["90m", "7d"],
        description="In place of `expires_at`: a number of seconds, minutes, hours, days or weeks from the"
        f" moment at which the link is stored, `{lifetime.MAX_LIFETIME.days}d` at most.",
    ),
]
Reuse = Annotated[
    bool,
    described(
        description="Answer with the oldest link that has the same target, `title`, `tags`, `redirect_code`,"
        " `forward_query`, `override_query` and `analytics`, if there is one (200); make one otherwise (201)."
        " Links that are disabled, removed, blocked, limited by time or visits, or have an `external_id`, an"
        " `expired_url` or `robots` are never reused. Needs `links:read` as well; excludes `slug` and those"
        " fields."
    ),
]


class CreateLink(msgspec.Struct, forbid_unknown_fields=True):
    """A link to make. Without `slug` a random one is made."""

    long_url: _LongUrl
    slug: _NewSlug | None = None
    domain: Domain | None = None
    title: _Title = ""
    tags: _Tags = ()
    redirect_code: _RedirectCode | msgspec.UnsetType = msgspec.UNSET
    valid_from: _ValidFrom | None = None
    expires_at: _ExpiresAt | None = None
    max_visits: _MaxVisits | None = None
    forward_query: bool = False
    enabled: bool = True
    external_id: _ExternalId | None = None
    override_query: _OverrideQuery = False
    utm_source: _Utm | None = None
    utm_medium: _Utm | None = None
    utm_campaign: _Utm | None = None
    utm_term: _Utm | None = None
    utm_content: _Utm | None = None
    expired_url: _ExpiredUrl | None = None
    robots: _Robots | None = None
    analytics: _Analytics = True
    expires_in: ExpiresIn | None = None
    reuse: Reuse = False

    def fields(self, redirect_code: int = DEFAULT_REDIRECT_CODE) -> LinkFields:
        """
        Return what stands in the link as it is sent: all but its address, the lifetime and `reuse`.

        Args:
            redirect_code: of a body that names none.

        Raises:
            InvalidInput: a UTM parameter is none.
        """
        sent = dict(zip(_FIELD_NAMES, _field_values(self), strict=True))
        if self.redirect_code is msgspec.UNSET:
            sent["redirect_code"] = redirect_code
        wanted = {name: value for name in utm.NAMES if (value := getattr(self, name)) is not None}
        fields = LinkFields(**sent)
        return utm.patched(fields, wanted) if wanted else fields

    def lifetime(self) -> timedelta | None:
        """Return how long the link shall live; raises InvalidInput."""
        return lifetime_of(self.expires_in, self.expires_at)


def lifetime_of(text: str | None, expires_at: object) -> timedelta | None:
    """
    Return the lifetime *text*, which stands in place of *expires_at*.

    Raises:
        InvalidInput: it cannot be read, or both are there.
    """
    if text is None:
        return None
    if expires_at is not None:
        raise InvalidInput([FieldError("expires_in", "expiry_twice", "excludes expires_at")])
    return lifetime.parse(text)


class _Address(msgspec.Struct):
    domain: str
    slug: str
    short_url: str


# The fields of a link that a user sets: `CreateLink` declares them, besides these, and the other schemas
# derive them.
NOT_FIELDS = ("slug", "domain", "expires_in", "reuse", *utm.NAMES)
_FIELDS = [field for field in msgspec.structs.fields(CreateLink) if field.name not in NOT_FIELDS]
_FIELD_NAMES = tuple(field.name for field in _FIELDS)
_field_values = attrgetter(*_FIELD_NAMES)
_Changes: Any = msgspec.defstruct(
    "_Changes",
    [
        *((field.name, field.type | msgspec.UnsetType, msgspec.UNSET) for field in _FIELDS),
        *((name, _Utm | None | msgspec.UnsetType, msgspec.UNSET) for name in utm.NAMES),
        ("expires_in", ExpiresIn | msgspec.UnsetType, msgspec.UNSET),
        ("owner", _Owner | msgspec.UnsetType | None, msgspec.UNSET),
    ],
)
# Their types without the rules for what is sent: a target is in canonical form by then, and a link may
# be older than a rule.
_SHOWN_TEXTS = dict.fromkeys(("external_id", "expired_url", "robots", *utm.NAMES), str | None)
_SHOWN = {
    **get_type_hints(CreateLink),
    "redirect_code": int,
    "max_visits": _MaxVisits | None,
    **_SHOWN_TEXTS,
}
_AddressAndFields: Any = msgspec.defstruct(
    "_AddressAndFields",
    [(name, _SHOWN[name]) for name in (*(field.name for field in _FIELDS), *utm.NAMES)],
    bases=(_Address,),
)


class PatchLink(_Changes, forbid_unknown_fields=True):  # type: ignore[misc, call-arg]
    """The body of `PATCH /api/v1/links/{slug}`: what is left out stays as it is."""

    extra_json_schema: ClassVar[dict[str, Any]] = {"minProperties": 1}

    def changes(self) -> Mapping[str, Any]:
        """Return the fields and the UTM parameters that the body names."""
        values = {name: getattr(self, name) for name in (*(field.name for field in _FIELDS), *utm.NAMES)}
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}

    def lifetime(self) -> timedelta | None:
        """Return how long the link shall live; raises InvalidInput."""
        named = None if self.expires_at is msgspec.UNSET else self.expires_at
        return lifetime_of(None if self.expires_in is msgspec.UNSET else self.expires_in, named)

    def new_owner(self) -> str | None:
        """Return the owner that the body names, empty for none; None: the link keeps the one it has."""
        return None if self.owner is msgspec.UNSET else self.owner or ""


class NewAlias(msgspec.Struct, forbid_unknown_fields=True):
    """A further slug of a link, or another one for it. Without `domain` it is one of the link's domain."""

    slug: _AnotherSlug
    domain: Domain | None = None


class NewLink(CreateLink, forbid_unknown_fields=True):
    """The body of `POST /api/v1/links`. Without `slug` a random one is made."""

    aliases: Annotated[
        tuple[NewAlias, ...],
        described(maxItems=MAX_ALIASES, description="Further slugs of the link; excludes `reuse`."),
    ] = ()


class AliasDocument(_Address):
    """A further slug at which a link is visited."""


class LinkDocument(_AddressAndFields):  # type: ignore[misc]
    """
    A link. `version` grows by one with every change, and is the ETag.

    `visits` counts the redirects served so far, to GET. It trails by about two seconds, by more
    while RabbitMQ, the worker or the database is unavailable, and changes no version. `max_visits`
    is the exact number of redirects served in total; after them the answer is 410. `owner` is the id of
    the API key that made the link, or that it was handed to; null: no key owns it.
    """

    visits: int
    version: int
    created_at: datetime
    updated_at: datetime
    owner: str | None = None
    aliases: list[AliasDocument] = msgspec.field(default_factory=list)


class FieldProblem(msgspec.Struct):
    """One broken rule."""

    field: str
    code: str
    message: str


class Problem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """
    Every error (RFC 9457). `code` is stable; `link` is the link that caused a conflict.

    `pointer` is the item of a batch (RFC 6901); `items` are those that an atomic batch was given up for.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    errors: list[FieldProblem] = []
    link: LinkDocument | None = None
    pointer: str | None = None
    items: list[ItemProblem] = []
    trace_id: str | None = None


class ItemProblem(msgspec.Struct):
    """An item of a batch, by its place from 0 on, and what is wrong with it."""

    index: int
    status: int
    error: Problem


def link_document(link: Link, domains: DomainIndex) -> LinkDocument:
    """Return *link*, which is of one of *domains*, as the API shows it."""
    shown = utm.shown(link.fields.long_url)
    # By place, in the order of the declarations: by name would take several times as long.
    return LinkDocument(
        domains.of(link.slug).host,
        name_of(link.slug),
        domains.short_url(link.slug),
        *_field_values(link.fields),
        *[shown[name] for name in utm.NAMES],
        link.visits,
        link.version,
        link.created_at,
        link.updated_at,
        link.owner,
        alias_documents(link.aliases, domains),
    )


def alias_documents(aliases: Iterable[str], domains: DomainIndex) -> list[AliasDocument]:
    """Return *aliases* of a link of one of *domains* as the API shows them."""
    return [AliasDocument(domains.of(key).host, name_of(key), domains.short_url(key)) for key in aliases]
