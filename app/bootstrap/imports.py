"""Imports and exports, for a gateway and for the command line."""

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
from app.service.imports import Imports
from app.service.link_import import LinkImport
from app.service.links import Deliver, leave_to_relay
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
        imports = new_imports(settings, store, leave_to_relay, policy)
        async with imports.open(updates=updates, dry_run=dry_run) as links:
            yield links


def new_imports(
    settings: Settings, store: Store, deliver: Deliver, policy: TargetPolicy, folder: Path | None = None
) -> Imports:
    """Return imports into *store* that obey *policy*; bodies wait in *folder*."""
    return Imports(
        store,
        store,
        deliver,
        clock=utc_now,
        choice=secrets.choice,
        own_hosts=own_hosts(settings),
        policy=policy,
        scratch=_scratch,
        folder=folder,
    )


@asynccontextmanager
async def _scratch() -> AsyncIterator[Store]:
    from app.adapters.sqlite.store import SqliteStore

    with tempfile.TemporaryDirectory(prefix="hopgate-") as folder:
        path = Path(folder) / "scratch.db"
        migrate(f"sqlite:///{path}")
        store = await SqliteStore.open(path)
        try:
            yield store
        finally:
            await store.aclose()
