"""The operations on links, for the API and for the command line."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

from app.adapters import sketches
from app.adapters.random_choice import random_choice
from app.bootstrap.dependencies import open_store, utc_now
from app.bootstrap.tracing import open_traces
from app.domain import own_hosts as own
from app.domain.blocks import BlockIndex
from app.domain.domains import DomainIndex
from app.domain.policy import TargetPolicy
from app.ports import Store
from app.service.aliases import Aliases
from app.service.blocks import Blocks, loaded
from app.service.bulk import BulkLinks
from app.service.domains import Domains, DomainWatch, NoAnswers
from app.service.find import Listings
from app.service.history import History
from app.service.links import Appear, Deliver, Links, leave_to_relay
from app.service.stats import Stats
from app.settings import Settings


@asynccontextmanager
async def open_links(
    settings: Settings, command: str, *, is_reading: bool = False
) -> AsyncIterator[tuple[Links, DomainIndex]]:
    """
    Links for *command* of the command line, and their domains: the relay delivers changes to the caches.

    Args:
        is_reading: the command sets no target, so that it needs no blocks.
    """
    async with open_traces(settings, "hopgate-cli") as traces, open_store(settings) as store:
        with traces.command(command):
            blocks = BlockIndex() if is_reading else await loaded(store)
            domains = DomainIndex(settings.public_url, await store.domains())
            policy = target_policy(settings, blocks, domains)
            yield new_links(settings, traces.store(store), leave_to_relay, policy), domains


@asynccontextmanager
async def open_blocks(settings: Settings) -> AsyncIterator[Blocks]:
    """Blocks for the command line: the gateways ask the store for their changes."""

    async def unnoticed() -> None:
        """This process serves nothing."""

    async with open_store(settings) as store:
        yield Blocks(store, unnoticed, clock=utc_now)


def new_stats(store: Store) -> Stats:
    """Return the statistics of the links in *store*."""
    return Stats(store, store, store, count=sketches.count, clock=utc_now)


def new_links(settings: Settings, store: Store, deliver: Deliver, policy: TargetPolicy) -> Links:
    """Return links that obey *policy*, and whose committed changes go to *deliver*."""
    return Links(
        store,
        deliver,
        clock=utc_now,
        choice=secrets.choice,
        own_hosts=own_hosts(settings),
        policy=policy,
        cool_down=settings.cool_down,
    )


def new_aliases(store: Store, deliver: Deliver, policy: TargetPolicy) -> Aliases:
    """Return the slugs of links, which obey *policy*; their committed changes go to *deliver*."""
    return Aliases(store, deliver, clock=utc_now, policy=policy)


@asynccontextmanager
async def open_aliases(settings: Settings, command: str) -> AsyncIterator[tuple[Aliases, DomainIndex]]:
    """The slugs of links for *command*; the rest as `open_links`."""
    async with open_traces(settings, "hopgate-cli") as traces, open_store(settings) as store:
        with traces.command(command):
            domains = DomainIndex(settings.public_url, await store.domains())
            policy = target_policy(settings, await loaded(store), domains)
            yield new_aliases(traces.store(store), leave_to_relay, policy), domains


@asynccontextmanager
async def open_domains(settings: Settings) -> AsyncIterator[Domains]:
    """Domains for the command line: the gateways ask the store for their changes."""
    async with open_store(settings) as store:
        index = DomainIndex(settings.public_url)
        watch = DomainWatch(store, index, NoAnswers())

        async def read() -> None:
            """A command that cannot read the domains fails: it serves nothing in the meantime."""
            await store.domains_version()
            await watch.look()

        await read()
        policy = target_policy(settings, await loaded(store), index)
        yield new_domains(settings, store, index, read, policy)


def new_domains(
    settings: Settings,
    store: Store,
    index: DomainIndex,
    noticed: Callable[[], Awaitable[None]],
    policy: TargetPolicy,
) -> Domains:
    """Return domains whose pages obey *policy*; *noticed* brings their committed changes to *index*."""
    return Domains(store, index, noticed, clock=utc_now, own_hosts=own_hosts(settings), policy=policy)


def target_policy(settings: Settings, blocks: BlockIndex, domains: DomainIndex) -> TargetPolicy:
    """Return what the operator lets links lead to."""
    return TargetPolicy(schemes=settings.allowed_schemes, blocks=blocks, domains=domains)


def new_bulk_links(
    settings: Settings, store: Store, deliver: Deliver, appear: Appear, policy: TargetPolicy
) -> BulkLinks:
    """Return bulk operations that obey *policy*; their committed changes go to *deliver*, or *appear*."""
    return BulkLinks(
        store,
        deliver,
        appear,
        clock=utc_now,
        choice=random_choice,
        own_hosts=own_hosts(settings),
        policy=policy,
    )


def new_listings(store: Store, deliver: Deliver) -> Listings:
    """Return the listings of *store*; changes of tags go to *deliver*."""
    return Listings(store, deliver, clock=utc_now)


def new_history(settings: Settings, store: Store, deliver: Deliver, policy: TargetPolicy) -> History:
    """Return the history of links; an undo obeys *policy*, and goes to *deliver*."""
    return History(
        store,
        deliver,
        clock=utc_now,
        own_hosts=own_hosts(settings),
        undo=timedelta(days=settings.undo_days),
        policy=policy,
    )


@asynccontextmanager
async def open_history(
    settings: Settings, command: str, *, is_reading: bool = False
) -> AsyncIterator[tuple[History, DomainIndex]]:
    """The history of links for *command*; the rest as `open_links`."""
    async with open_traces(settings, "hopgate-cli") as traces, open_store(settings) as store:
        with traces.command(command):
            blocks = BlockIndex() if is_reading else await loaded(store)
            domains = DomainIndex(settings.public_url, await store.domains())
            policy = target_policy(settings, blocks, domains)
            yield new_history(settings, traces.store(store), leave_to_relay, policy), domains


@asynccontextmanager
async def open_listings(settings: Settings, command: str) -> AsyncIterator[tuple[Listings, DomainIndex]]:
    """Listings for *command* of the command line, and the domains; the relay delivers changes."""
    async with open_traces(settings, "hopgate-cli") as traces, open_store(settings) as store:
        with traces.command(command):
            domains = DomainIndex(settings.public_url, await store.domains())
            yield new_listings(traces.store(store), leave_to_relay), domains


def own_hosts(settings: Settings) -> frozenset[str]:
    """Return the addresses of this gateway: a link to one of them could loop."""
    url = urlsplit(settings.public_url)
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    return own.own_hosts(url.hostname or "", port, url.path, bind=(settings.host, settings.port))
