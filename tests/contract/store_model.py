"""A model of `Store` in dictionaries, with which the adapters are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from app.domain.events import LinkChanged
from app.domain.link import Link, LinkFields, NewLink, Slug
from app.ports import (
    Added,
    Changed,
    IdempotentRequest,
    OutboxEvent,
    Page,
    Replayed,
    RequestMismatch,
    VersionMismatch,
)


class Model:
    """Events have the id 0, and `page` continues by position: see `without_ids`."""

    def __init__(self) -> None:
        self.links: dict[Slug, Link] = {}
        self.requests: dict[tuple[str, str], tuple[bytes, list[Slug]]] = {}
        self.changes: list[LinkChanged] = []

    def add(self, new: Sequence[NewLink], now: datetime, request: IdempotentRequest | None) -> Any:
        if not new:
            return Added((), ())
        if request is not None and (request.scope, request.key) in self.requests:
            fingerprint, slugs = self.requests[request.scope, request.key]
            if fingerprint != request.fingerprint:
                return RequestMismatch()
            return Replayed(tuple(self.links[slug] for slug in slugs))
        slugs = [one.slug for one in new]
        if request is not None:
            if len(set(slugs)) < len(slugs) or self.links.keys() & set(slugs):
                return Added((None,) * len(slugs), ())
            self.requests[request.scope, request.key] = (request.fingerprint, slugs)
        links: list[Link | None] = []
        events = []
        for one in new:
            if one.slug in self.links:
                links.append(None)
                continue
            link = Link(slug=one.slug, fields=one.fields, version=1, created_at=now, updated_at=now)
            links.append(link)
            events.append(self._put(link).event)
        return Added(tuple(links), tuple(events))

    def update(self, slug: Slug, fields: LinkFields, expected_version: int, now: datetime) -> Any:
        return self._change(slug, expected_version, fields=fields, updated_at=now)

    def remove(self, slug: Slug, expected_version: int | None, now: datetime) -> Any:
        return self._change(slug, expected_version, removed_at=now, updated_at=now)

    def touch(self, slugs: Sequence[Slug]) -> list[Changed]:
        found = [self.links[slug] for slug in dict.fromkeys(slugs) if slug in self.links]
        return [self._put(replace(link, version=link.version + 1)) for link in found]

    def listing(self) -> list[Link]:
        return [link for link in reversed(self.links.values()) if link.removed_at is None]

    def _change(self, slug: Slug, expected_version: int | None, **values: Any) -> Any:
        current = self.links.get(slug)
        if current is None or current.removed_at is not None:
            return None
        if expected_version not in (None, current.version):
            return VersionMismatch(current)
        return self._put(replace(current, version=current.version + 1, **values))

    def _put(self, link: Link) -> Changed:
        self.links[link.slug] = link
        self.changes.append(LinkChanged(link.slug, link.version))
        return Changed(link, OutboxEvent(0, self.changes[-1]))


def without_ids(answer: Any) -> Any:
    """Return *answer* with every outbox id 0, as each database numbers rows differently."""
    if isinstance(answer, Added):
        return replace(answer, events=tuple(replace(event, id=0) for event in answer.events))
    if isinstance(answer, Changed):
        return replace(answer, event=replace(answer.event, id=0))
    if isinstance(answer, Page):
        return answer.links
    if isinstance(answer, list):
        return [without_ids(one) for one in answer]
    return answer
