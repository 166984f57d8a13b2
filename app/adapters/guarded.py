"""
The policy of the guards: for each method of a port, the guard that its calls pass through.

When a guard refuses, the outcome is declared here and nowhere else:

    store    Unavailable. Redirects are served from the caches; other requests answer 503.
    cache    Unavailable. A read falls back to the store, a write is left to the worker.
    bus      `publish` returns False: link changes stay in the outbox and the writer fills the
             cache itself, clicks go to the spool. `announce` is Unavailable: the worker repeats
             the batch.

Reads and writes have separate guards, as a dependency that refuses writes (a full disk, a
replica, no memory) still answers reads. `ping` has none: it is the probe of readiness checks. Nor have
`epoch`, the versions and changes of blocks and domains, and what is new in the event log: one task of the
process reads them, all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from app.adapters.guards import CacheGuards, StoreGuards
from app.concurrency.guard import DependencyGuard
from app.domain.errors import Unavailable
from app.domain.events import Event
from app.ports import EventBus, IdempotentRequest, LinkCache, Store
from app.ports.wrapped import Method, Wrapper, unchanged, wrapped


def guarded_store(store: Store, guards: StoreGuards) -> Store:
    """Return *store* behind *guards*. A read whose connection is lost is retried once, within a budget."""
    lookup, change, bulk = guards.lookup, guards.change, guards.bulk
    return wrapped(
        Store,
        store,
        {
            # links
            Store.add: _creates(guards.create, change),
            Store.get: _reads(lookup),
            Store.get_many: _reads(bulk),
            Store.find_external: _reads(bulk),
            Store.resolve: _reads(lookup),
            Store.page: _reads(bulk),
            Store.update: _calls(change),
            Store.remove: _calls(change),
            Store.readdress: _calls(change),
            Store.touch: _calls(change),
            # listings
            Store.find: _reads(bulk),
            Store.count: _reads(bulk),
            Store.totals: _reads(bulk),
            Store.tags: _reads(bulk),
            Store.retag: _calls(change),
            # many links at once
            Store.write_batch: _calls(guards.batch),
            # history
            Store.history: _reads(bulk),
            Store.restore: _calls(change),
            Store.forget_history: _calls(bulk),
            # imports and exports
            Store.add_imported: _calls(change),
            Store.find_imported: _reads(bulk),
            Store.spent_visits: _reads(bulk),
            Store.export_page: _reads(bulk),
            # outbox
            Store.take_events: _calls(bulk),
            Store.drop_events: _calls(bulk),
            Store.outbox_depth: _reads(bulk),
            # clicks
            Store.add_clicks: _calls(bulk),
            Store.hourly_clicks: _reads(bulk),
            Store.forget_batches: _calls(bulk),
            # visits
            Store.add_visits: _calls(bulk),
            Store.roll_up_visits: _calls(bulk),
            Store.visit_values: _reads(bulk),
            Store.visit_kinds: _reads(bulk),
            Store.visitor_sketches: _reads(bulk),
            Store.visitor_key: _calls(bulk),
            Store.forget_visits: _calls(bulk),
            Store.forget_visitor_keys: _calls(bulk),
            # visit quota
            Store.lease_quota: _calls(change),
            Store.quota_left: _reads(lookup),
            Store.return_quota: _calls(change),
            # API keys
            Store.add_key: _calls(change),
            Store.get_key: _reads(lookup),
            Store.list_keys: _reads(bulk),
            Store.revoke_key: _calls(change),
            Store.rotate_key: _calls(change),
            Store.note_key_uses: _calls(bulk),
            # sessions of the console
            Store.add_session: _calls(change),
            Store.get_session: _reads(lookup),
            Store.list_sessions: _reads(bulk),
            Store.end_session: _calls(change),
            Store.forget_sessions: _calls(bulk),
            # blocks
            Store.add_blocks: _calls(change),
            Store.remove_blocks: _calls(change),
            Store.block_page: _reads(bulk),
            Store.blocks_version: unchanged,
            Store.blocks_since: unchanged,
            # domains
            Store.add_domain: _calls(change),
            Store.change_domain: _calls(change),
            Store.remove_domain: _calls(change),
            Store.domains_version: unchanged,
            Store.domains: unchanged,
            # events
            Store.number_events: unchanged,
            Store.expire_links: _calls(bulk),
            Store.events_after: _reads(bulk),
            Store.last_event: unchanged,
            Store.forget_events: _calls(bulk),
            # webhooks
            Store.add_webhook: _calls(change),
            Store.webhooks: _reads(bulk),
            Store.change_webhook: _calls(change),
            Store.remove_webhook: _calls(change),
            Store.webhook_work: unchanged,
            Store.plan_deliveries: _calls(bulk),
            Store.take_deliveries: _calls(bulk),
            Store.note_attempts: _calls(bulk),
            Store.deliveries: _reads(bulk),
            Store.replay_dead: _calls(change),
            Store.replay_after: _calls(change),
            # idempotent requests
            Store.forget_requests: _calls(bulk),
            # the store itself
            Store.ping: unchanged,
            Store.try_write: unchanged,
            Store.epoch: unchanged,
            Store.aclose: unchanged,
        },
    )


def guarded_cache(cache: LinkCache, guards: CacheGuards) -> LinkCache:
    """Return *cache* behind *guards*. Nothing is retried: the store is the fallback."""
    return wrapped(
        LinkCache,
        cache,
        {
            LinkCache.get_many: _calls(guards.read),
            LinkCache.scan: _calls(guards.read),
            LinkCache.put: _calls(guards.write),
            LinkCache.forget: _calls(guards.write),
            LinkCache.ping: unchanged,
            LinkCache.aclose: unchanged,
        },
    )


def guarded_bus(bus: EventBus, publish: DependencyGuard) -> EventBus:
    """Return *bus* behind a guard. Consumers and listeners supervise their own connections."""
    return wrapped(
        EventBus,
        bus,
        {
            EventBus.publish: _publishes(publish),
            EventBus.announce: _calls(publish),
            EventBus.listen: unchanged,
            EventBus.consume: unchanged,
            EventBus.ping: unchanged,
            EventBus.queue_depths: unchanged,
            EventBus.aclose: unchanged,
        },
    )


# --- wrappers --------------------------------------------------------------------------


def _calls(guard: DependencyGuard) -> Wrapper:
    call = guard.call
    return lambda method: lambda *args, **kwargs: call(partial(method, *args, **kwargs))


def _reads(guard: DependencyGuard) -> Wrapper:
    read = guard.read
    return lambda method: lambda *args, **kwargs: read(partial(method, *args, **kwargs))


def _creates(create: DependencyGuard, change: DependencyGuard) -> Wrapper:
    """Single creates share round trips; one with a request has a transaction of its own."""

    def wrap(add: Method) -> Method:
        def guarded(*args: Any, request: IdempotentRequest | None = None, **kwargs: Any) -> Any:
            is_shared = request is None and kwargs.get("removed_before") is None
            guard = create if is_shared else change
            return guard.call(partial(add, *args, request=request, **kwargs))

        return guarded

    return wrap


class _Unconfirmed(Unavailable):
    """The broker did not confirm every event; `confirmed` is aligned with them."""

    def __init__(self, confirmed: Sequence[bool]) -> None:
        super().__init__("rabbitmq", "did not confirm everything")
        self.confirmed = confirmed


def _publishes(guard: DependencyGuard) -> Wrapper:
    """An event without confirmation counts as a failure; an open breaker answers False for all."""

    def wrap(publish: Method) -> Method:
        async def guarded(events: Sequence[Event]) -> Sequence[bool]:
            async def work() -> Sequence[bool]:
                confirmed: Sequence[bool] = await publish(events)
                if not all(confirmed):
                    raise _Unconfirmed(confirmed)
                return confirmed

            try:
                return await guard.call(work)
            except _Unconfirmed as error:
                return error.confirmed
            except Unavailable:
                return [False] * len(events)

        return guarded

    return wrap
