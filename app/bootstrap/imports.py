"""An import, for the command line."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.bootstrap.dependencies import open_store, utc_now
from app.bootstrap.links import own_hosts
from app.domain.domains import DomainIndex
from app.domain.policy import TargetPolicy
from app.migrations import migrate
from app.ports import Store
from app.service.blocks import loaded
from app.service.link_import import LinkImport, Target
from app.service.rehearsal import Rehearsal
from app.settings import Settings


@asynccontextmanager
async def open_import(
    settings: Settings, policy: TargetPolicy, domains: DomainIndex, *, updates: bool, dry_run: bool
) -> AsyncIterator[LinkImport]:
    """An import into the store, whose blocks and *domains* are read first; a dry run leaves it as it is."""
    async with open_store(settings) as store:
        domains.replace(await store.domains())
        if policy.blocks is not None:
            policy.blocks.replace(await loaded(store))
        if not dry_run:
            yield _import(settings, policy, store, updates=updates)
            return
        async with _scratch() as scratch:
            yield _import(settings, policy, Rehearsal(store, scratch), updates=updates)


def _import(settings: Settings, policy: TargetPolicy, target: Target, *, updates: bool) -> LinkImport:
    return LinkImport(
        target,
        clock=utc_now,
        choice=secrets.choice,
        own_hosts=own_hosts(settings),
        policy=policy,
        updates=updates,
    )


@asynccontextmanager
async def _scratch() -> AsyncIterator[Store]:
    """An empty store that is gone afterwards; on the disk, as a file may hold more than memory does."""
    from app.adapters.sqlite.store import SqliteStore

    with tempfile.TemporaryDirectory(prefix="hopgate-") as folder:
        path = Path(folder) / "scratch.db"
        migrate(f"sqlite:///{path}")
        store = await SqliteStore.open(path)
        try:
            yield store
        finally:
            await store.aclose()
