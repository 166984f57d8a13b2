"""The operations on links, for the API and for the command line."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from app.bootstrap.dependencies import open_store, utc_now
from app.bootstrap.tracing import open_traces
from app.domain import own_hosts as own
from app.domain.blocks import BlockIndex
from app.domain.policy import TargetPolicy
from app.ports import Store
from app.service.blocks import Blocks, loaded
from app.service.bulk import BulkLinks
from app.service.find import Listings
from app.service.links import Appear, Deliver, Links, leave_to_relay
from app.settings import Settings


@asynccontextmanager
async def open_links(settings: Settings, command: str, *, is_reading: bool = False) -> AsyncIterator[Links]:
    """
    Links for *command* of the command line: the relay delivers their changes to the caches.

    Args:
        is_reading: the command sets no target, so that it needs no blocks.
    """
    async with open_traces(settings, "hopgate-cli") as traces, open_store(settings) as store:
        with traces.command(command):
            blocks = BlockIndex() if is_reading else await loaded(store)
            policy = target_policy(settings, blocks)
            yield new_links(settings, traces.store(store), leave_to_relay, policy)


@asynccontextmanager
async def open_blocks(settings: Settings) -> AsyncIterator[Blocks]:
    """Blocks for the command line: the gateways ask the store for their changes."""

    async def unnoticed() -> None:
        """This process serves nothing."""

    async with open_store(settings) as store:
        yield Blocks(store, unnoticed, clock=utc_now)


def new_links(settings: Settings, store: Store, deliver: Deliver, policy: TargetPolicy) -> Links:
    """Return links that obey *policy*, and whose committed changes go to *deliver*."""
    return Links(
        store,
        deliver,
        clock=utc_now,
        choice=secrets.choice,
        own_hosts=own_hosts(settings),
        policy=policy,
    )


def target_policy(settings: Settings, blocks: BlockIndex) -> TargetPolicy:
    """Return what the operator lets links lead to."""
    return TargetPolicy(schemes=settings.allowed_schemes, blocks=blocks)


def new_bulk_links(
    settings: Settings, store: Store, deliver: Deliver, appear: Appear, policy: TargetPolicy
) -> BulkLinks:
    """Return bulk operations that obey *policy*; their committed changes go to *deliver*, or *appear*."""
    return BulkLinks(
        store,
        deliver,
        appear,
        clock=utc_now,
        choice=secrets.choice,
        own_hosts=own_hosts(settings),
        policy=policy,
    )


def new_listings(store: Store, deliver: Deliver) -> Listings:
    """Return the listings of *store*; changes of tags go to *deliver*."""
    return Listings(store, deliver, clock=utc_now)


@asynccontextmanager
async def open_listings(settings: Settings, command: str) -> AsyncIterator[Listings]:
    """Listings for *command* of the command line: the relay delivers changes to the caches."""
    async with open_traces(settings, "hopgate-cli") as traces, open_store(settings) as store:
        with traces.command(command):
            yield new_listings(traces.store(store), leave_to_relay)


def own_hosts(settings: Settings) -> frozenset[str]:
    """Return the addresses of this gateway: a link to one of them could loop."""
    url = urlsplit(settings.public_url)
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    return own.own_hosts(url.hostname or "", port, url.path, bind=(settings.host, settings.port))
