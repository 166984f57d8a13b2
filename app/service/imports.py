"""Imports of files into the store of a gateway or of a command, and rehearsals of them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from app.domain.domains import DomainIndex
from app.domain.policy import TargetPolicy
from app.interchange.records import Check, domain_check
from app.ports import ApiKeyStore
from app.service.link_import import LinkImport, Target
from app.service.links import Deliver, leave_to_relay
from app.service.rehearsal import Rehearsal


class Imports:
    """
    Makes imports.

    Args:
        keys: those that may own links.
        deliver: called with each change of a link after its commit.
        own_hosts: see `app.domain.target.canonical`; so is *policy*.
        scratch: opens an empty store for a rehearsal; on the disk, as a file may hold more than memory does.
        folder: where bodies wait for their end; None: where temporary files are.
    """

    def __init__(
        self,
        store: Target,
        keys: ApiKeyStore,
        deliver: Deliver,
        *,
        clock: Callable[[], datetime],
        choice: Callable[[str], str],
        own_hosts: Collection[str],
        policy: TargetPolicy,
        scratch: Callable[[], AbstractAsyncContextManager[Target]],
        folder: Path | None = None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._deliver = deliver
        self._clock = clock
        self._choice = choice
        self._own_hosts = own_hosts
        self._policy = policy
        self._scratch = scratch
        self._folder = folder

    def new_file(self) -> BinaryIO:
        """Return an empty file without a name, which is gone when it is closed."""
        return tempfile.TemporaryFile(dir=self._folder)

    def check(self, domains: DomainIndex, host: str | None) -> Check:
        """Return the rules for links of *domains*; those that name none are of the domain *host*."""
        return domain_check(self._own_hosts, self._policy, domains, host)

    @asynccontextmanager
    async def open(self, *, updates: bool, dry_run: bool) -> AsyncIterator[LinkImport]:
        """An import; a dry run leaves the store as it is."""
        owners = {key.key_id for key in await self._keys.list_keys()}
        if not dry_run:
            yield self._import(self._store, self._deliver, updates=updates, owners=owners)
            return
        async with self._scratch() as scratch:
            target = Rehearsal(self._store, scratch)
            yield self._import(target, leave_to_relay, updates=updates, owners=owners)

    def _import(
        self, target: Target, deliver: Deliver, *, updates: bool, owners: Collection[str]
    ) -> LinkImport:
        return LinkImport(
            target,
            clock=self._clock,
            choice=self._choice,
            own_hosts=self._own_hosts,
            policy=self._policy,
            updates=updates,
            deliver=deliver,
            owners=owners,
        )
