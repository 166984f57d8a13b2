"""Webhooks: the operations on them, and what delivers to them."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from app.adapters.webhook_http import HttpSender
from app.bootstrap.dependencies import open_store, utc_now
from app.bootstrap.links import own_hosts, target_policy
from app.domain.domains import DomainIndex
from app.domain.policy import TargetPolicy
from app.domain.webhooks import RetryPolicy
from app.ports import Store
from app.service.blocks import loaded
from app.service.event_feed import EventFeed
from app.service.webhooks import Webhooks
from app.settings import Settings
from app.web.event_documents import EventDocuments, checked_host, test_message
from worker.webhooks import WebhookDispatcher


def new_webhooks(settings: Settings, store: Store, index: DomainIndex, policy: TargetPolicy) -> Webhooks:
    """Return webhooks whose URLs obey *policy*; filters name domains of *index*."""
    return Webhooks(
        store,
        # A client waits for the answer to a test.
        _sender(settings, at_most_s=4),
        allows_http=settings.webhooks_http == "on",
        own_hosts=own_hosts(settings),
        policy=policy,
        domain=partial(checked_host, index),
        test_message=test_message,
        clock=utc_now,
        choice=secrets.choice,
        token=secrets.token_bytes,
    )


def new_dispatcher(
    settings: Settings, store: Store, index: DomainIndex, look: Callable[[], Awaitable[None]]
) -> WebhookDispatcher:
    """Return what delivers events; *look* brings the domains of the store to *index*."""
    return WebhookDispatcher(
        store,
        _sender(settings, at_most_s=settings.webhook_timeout_s),
        EventDocuments(index, look),
        RetryPolicy(pauses=settings.webhook_pauses),
        clock=utc_now,
        random=random.random,
    )


def new_feed(store: Store, index: DomainIndex, look: Callable[[], Awaitable[None]]) -> EventFeed:
    """Return the event stream; *look* brings the domains of the store to *index*."""
    return EventFeed(store, EventDocuments(index, look))


@asynccontextmanager
async def open_webhooks(settings: Settings) -> AsyncIterator[Webhooks]:
    """Webhooks for the command line."""
    async with open_store(settings) as store:
        index = DomainIndex(settings.public_url, await store.domains())
        yield new_webhooks(settings, store, index, target_policy(settings, await loaded(store), index))


def _sender(settings: Settings, *, at_most_s: float) -> HttpSender:
    timeout_s = min(settings.webhook_timeout_s, at_most_s)
    return HttpSender(networks=settings.webhook_networks, timeout_s=timeout_s)
