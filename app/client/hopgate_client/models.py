"""
What the gateway answers with. Members that a later gateway adds are ignored.

One module: programs import these names from one place, in the order in which the API describes them.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from hopgate_client.errors import FieldError, Problem, UnexpectedAnswer

M = TypeVar("M")


# Fields stand in the order of the API. What older gateways do not answer has a default.


@dataclass(frozen=True, slots=True)
class Alias:
    """A further slug at which a link is visited."""

    domain: str
    slug: str
    short_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """
    A link. `version` grows by one with every change; `visits` trails by about two seconds.

    `owner` is the id of the API key that owns it; None: no key does.
    """

    domain: str
    slug: str
    short_url: str
    long_url: str
    title: str
    tags: tuple[str, ...]
    redirect_code: int
    valid_from: datetime | None
    expires_at: datetime | None
    max_visits: int | None
    forward_query: bool
    enabled: bool
    external_id: str | None
    override_query: bool = False
    expired_url: str | None = None
    robots: str | None = None
    analytics: bool = True
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_term: str | None = None
    utm_content: str | None = None
    visits: int
    version: int
    created_at: datetime
    updated_at: datetime
    owner: str | None = None
    aliases: tuple[Alias, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkPage:
    """A page of links. `count` is on the first one, if it was asked for and did not take too long."""

    links: tuple[Link, ...]
    next_cursor: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class HourlyClicks:
    """The redirects of one hour; `hour` is its start in UTC."""

    hour: datetime
    clicks: int


@dataclass(frozen=True, slots=True)
class ValueCount:
    """How many visits have this value; an empty one stands for all that are not named."""

    value: str
    visits: int


@dataclass(frozen=True, slots=True)
class VisitCounts:
    """
    What visits looked like: in all, and by the most frequent values of each dimension.

    `people`, `bots`, `previews` and `prefetches` are all visits; all that follows is of people alone, but for
    `bot`. `visitors` is about the number of people, each counted once a day.
    """

    people: int
    bots: int
    previews: int
    prefetches: int
    visitors: int
    referrer: tuple[ValueCount, ...]
    country: tuple[ValueCount, ...]
    city: tuple[ValueCount, ...]
    language: tuple[ValueCount, ...]
    browser: tuple[ValueCount, ...]
    os: tuple[ValueCount, ...]
    device: tuple[ValueCount, ...]
    source: tuple[ValueCount, ...] = ()
    medium: tuple[ValueCount, ...] = ()
    campaign: tuple[ValueCount, ...] = ()
    bot: tuple[ValueCount, ...] = ()


@dataclass(frozen=True, slots=True)
class KindCounts:
    """All visits of an hour or a day, by who made them; `start` has the offset of its time zone."""

    start: datetime
    people: int
    bots: int
    previews: int
    prefetches: int


@dataclass(frozen=True, slots=True)
class TotalCounts(KindCounts):
    """All visits of an hour or a day, and requests that found no link (`missed`) or a past one (`gone`)."""

    missed: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class PeriodBefore:
    """All visits of the period of the same length before."""

    since: datetime
    until: datetime
    people: int
    bots: int
    previews: int
    prefetches: int
    visitors: int


@dataclass(frozen=True, slots=True)
class OverallStats:
    """
    What the visits of all links looked like, in the hours that begin in [since, until).

    Beside them are requests that found no link (`missed`), with the slugs that most asked for (`missing`),
    and those for links that are expired, disabled or out of visits (`gone`).
    """

    since: datetime
    until: datetime
    visits: VisitCounts
    missed: int = 0
    gone: int = 0
    missing: tuple[ValueCount, ...] = ()
    series: tuple[TotalCounts, ...] | None = None
    before: PeriodBefore | None = None


@dataclass(frozen=True, slots=True)
class LinkStats:
    """
    The redirects of a link: in total, and in each hour that begins in [since, until).

    `visits` is None if the gateway is of a release that does not tell.
    """

    domain: str
    slug: str
    total: int
    since: datetime
    until: datetime
    hours: tuple[HourlyClicks, ...]
    visits: VisitCounts | None = None
    series: tuple[KindCounts, ...] | None = None
    before: PeriodBefore | None = None


@dataclass(frozen=True, slots=True)
class LinkChange:
    """
    A change of a link: `before` and `after` are the fields that differ, as JSON has them.

    `by` is the id of the API key, `cli` for the command line, None if it is unknown.
    """

    version: int
    at: datetime
    by: str | None
    action: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LinkHistory:
    """The changes of a link, newest first; `next_cursor` leads to older ones."""

    domain: str
    slug: str
    created_at: datetime
    created_by: str | None
    removed: bool
    changes: tuple[LinkChange, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ItemResult:
    """
    What became of an item of a batch: the status that a call of its own would have.

    `link` is there if the key may read it and the link was not removed; `error` says what is wrong.
    """

    status: int
    link: Link | None = None
    domain: str | None = None
    slug: str | None = None
    version: int | None = None
    error: Problem | None = None

    @property
    def ok(self) -> bool:
        """Was the item done?"""
        return self.error is None


@dataclass(frozen=True, slots=True)
class ItemResults:
    """The result of each item of a batch, in order."""

    results: tuple[ItemResult, ...]


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is: of the file, and in rows."""

    bytes: int
    of: int
    read: int
    imported: int
    updated: int
    same: int
    refused: int


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row of a file that was refused, and why."""

    line: int
    last_line: int
    text: str
    errors: tuple[FieldError, ...]


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What became of a file. `succeeded`: no row was refused, or refused rows were allowed."""

    format: str
    dry_run: bool
    read: int
    imported: int
    updated: int
    same: int
    refused: int
    succeeded: bool


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a file, and of each row that was refused; `document` is the summary as it was sent."""

    summary: ImportSummary
    refused: tuple[RefusedRow, ...]
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A host that links are visited at. `is_default`: it has the links that name none."""

    host: str
    is_default: bool
    case_sensitive: bool
    root_url: str | None
    not_found_url: str | None
    expired_url: str | None
    min_slug_length: int
    slug_length: int | None = None
    multi_segment: bool = False
    unicode: bool = False
    redirect_code: int = 302
    robots: str = "allow"
    created_at: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class DomainList:
    """All domains, the default one first."""

    domains: tuple[Domain, ...]


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag, and how many links have it."""

    tag: str
    links: int


@dataclass(frozen=True, slots=True)
class Retagged:
    """How many links were changed; without `done` some have the tag still: call again."""

    changed: int
    done: bool


@dataclass(frozen=True, slots=True)
class Key:
    """
    An API key without its secret.

    `domains` are the only ones whose links it reaches; None: all. `allowed_addresses` are the networks that
    it may be used from; none: any. With `own_links` it reaches the links that it owns.
    """

    key_id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    old_secret_until: datetime | None = None
    own_links: bool = False
    domains: tuple[str, ...] | None = None
    allowed_addresses: tuple[str, ...] = ()
    rate_limit: str | None = None


@dataclass(frozen=True, slots=True)
class KeyList:
    """All keys, oldest first."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class NewKey(Key):
    """A key with its text, `key`: the gateway shows it once."""

    key: str = field(kw_only=True, repr=False)


@dataclass(frozen=True, slots=True)
class Me(Key):
    """The key of the client, and its limits by what they count."""

    limits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """A blocked host, with its subdomains, or a blocked slug: `kind` says which."""

    kind: str
    value: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class BlocksAdded:
    """How many blocks are new; the others were there already."""

    added: int
    present: int


@dataclass(frozen=True, slots=True)
class Webhook:
    """
    A server that events of links are sent to: those of `kinds`, or all without.

    `old_secret_until`: until then the secret before the last rotation signs as well. `disabled_reason` is
    `receiver_gone` if the webhook was disabled because its receiver answered 410.
    """

    webhook_id: str
    url: str
    name: str
    kinds: tuple[str, ...]
    domain: str | None
    tag: str | None
    enabled: bool
    created_at: datetime
    updated_at: datetime
    old_secret_until: datetime | None = None
    disabled_reason: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookList:
    """All webhooks, oldest first."""

    webhooks: tuple[Webhook, ...]


@dataclass(frozen=True, slots=True)
class NewWebhook(Webhook):
    """A webhook with its secret, which the gateway shows once."""

    secret: str = field(kw_only=True, repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """
    The delivery of an event; `id` is the `webhook-id` of its message.

    `status` is that of the last answer, `problem` says why there was none. `id` and `kind` are None once the
    event is forgotten.
    """

    id: str | None
    kind: str | None
    slug: str
    state: str
    attempts: int
    created_at: datetime
    attempted_at: datetime | None
    next_attempt_at: datetime | None
    status: int | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Replay:
    """How many dead deliveries are replayed; None: the events from a time on."""

    replayed: int | None


@dataclass(frozen=True, slots=True)
class WebhookTest:
    """What came of a test message: the status of the answer, or why there was none."""

    delivered: bool
    status: int | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Invalidated:
    """How many links every cache reads again; `unknown` are the slugs that no link has."""

    invalidated: int
    unknown: tuple[str, ...]


def read(model: type[M], document: object) -> M:
    """
    Return *document*, as JSON has it, as *model*.

    Raises:
        UnexpectedAnswer: it is something else.
    """
    try:
        return cast("M", _value(model, document))
    except (KeyError, TypeError, ValueError) as error:
        name = getattr(model, "__name__", str(model))
        raise UnexpectedAnswer(f"the answer is no {name}: {type(error).__name__} {error}") from None


def _value(kind: Any, value: Any) -> Any:
    if get_origin(kind) in {Union, types.UnionType}:
        kind = next(one for one in get_args(kind) if one is not types.NoneType)
        return None if value is None else _value(kind, value)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{value!r} is no list")
        return tuple(_value(get_args(kind)[0], one) for one in value)
    if get_origin(kind) is Mapping:
        kind = dict
    if kind is datetime:
        return datetime.fromisoformat(value)
    if isinstance(kind, type) and is_dataclass(kind):
        return _object(kind, value)
    if kind is Any or kind is object:
        return value
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _object(kind: type, document: Any) -> Any:
    if not isinstance(document, dict):
        raise TypeError(f"{document!r} is no object")
    return kind(
        **{
            name: _value(hint, document[name])
            for name, (hint, is_required) in _members(kind).items()
            if is_required or name in document
        }
    )


@cache
def _members(kind: type) -> dict[str, tuple[Any, bool]]:
    hints = get_type_hints(kind, localns={"Link": Link})
    return {
        one.name: (hints[one.name], one.default is MISSING and one.default_factory is MISSING)
        for one in fields(kind)
    }
