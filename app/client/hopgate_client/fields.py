"""What calls take by name: fields of links, filters of listings, settings of domains."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict

Time = datetime | str


class LinkFields(TypedDict, total=False):
    """
    What may be set of a link. What is left out has its default in a new link, and stays in a change.

    `expires_in` stands in place of `expires_at`: `90m`, `7d`. Times need an offset.
    """

    title: str
    tags: Sequence[str]
    redirect_code: int
    valid_from: Time | None
    expires_at: Time | None
    expires_in: str
    max_visits: int | None
    forward_query: bool
    enabled: bool
    external_id: str | None
    override_query: bool
    expired_url: str | None
    robots: str | None
    analytics: bool
    utm_source: str | None
    utm_medium: str | None
    utm_campaign: str | None
    utm_term: str | None
    utm_content: str | None


class NewLinkFields(LinkFields, total=False):
    """What may be set of a new link besides its target; without `slug` a random one is made."""

    slug: str
    domain: str
    reuse: bool


class NewLink(NewLinkFields):
    """An item of `create_many`."""

    long_url: str


class LinkChanges(LinkFields, total=False):
    """What may be changed of a link. `owner` is the id of an API key; keys with the scope admin change it."""

    long_url: str
    owner: str | None


class _NamedLink(TypedDict):
    slug: str


class LinkName(_NamedLink, total=False):
    """An item of `remove_many`; with `version`, only that version is removed."""

    domain: str
    version: int


class LinkEdit(LinkChanges, LinkName):
    """An item of `change_many`."""


class Filters(TypedDict, total=False):
    """Which links to list, as the query of `GET /api/v1/links` says it. A sequence is sent as several."""

    search: str
    tag: str | Sequence[str]
    tags_all: str | Sequence[str]
    tags_none: str | Sequence[str]
    domain: str
    host: str
    long_url: str
    owner: str
    state: str | Sequence[str]
    created_since: Time
    created_until: Time
    updated_since: Time
    updated_until: Time
    expires_since: Time
    expires_until: Time
    sort: str


class WebhookSettings(TypedDict, total=False):
    """What may be set of a webhook besides its URL."""

    name: str
    kinds: Sequence[str]
    domain: str | None
    tag: str | None
    enabled: bool


class WebhookChanges(WebhookSettings, total=False):
    """What may be changed of a webhook."""

    url: str


class DomainSettings(TypedDict, total=False):
    """What may be set of a domain."""

    root_url: str | None
    not_found_url: str | None
    expired_url: str | None
    min_slug_length: int
    slug_length: int | None
    multi_segment: bool
    unicode: bool
    redirect_code: int
    robots: str
