"""
Spans around the calls of ports: one table for each port, by the semantic conventions of OpenTelemetry.

A call is recorded if the requests are that it is done for. What has no row with a span serves no
request. The rate limiter has no table: it decides in memory, and asks Redis in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from opentelemetry.trace import SpanKind

from app.concurrency.origins import on_behalf_of, origins
from app.domain.events import Event, LinkChanged, WorkQueue, origin_of, with_origin, work_queue
from app.domain.origin import Origin
from app.ports import EventBus, EventHandler, InvalidationListener, LinkCache, LinkReplica, Store
from app.ports.wrapped import Method, Wrapper, unchanged, wrapped
from app.telemetry.tracing import Attributes, Tracing, fail
from app.wire import EVENTS_EXCHANGE, INVALIDATIONS_EXCHANGE

_BATCH_SIZE = "db.operation.batch.size"


def traced_store(store: Store, tracing: Tracing, system: str) -> Store:
    """Return *store* with a span around each call; *system* is postgresql or sqlite."""

    def call(operation: str, table: str) -> Wrapper:
        return _calls(tracing, system, operation, table)

    return wrapped(
        Store,
        store,
        {
            # links
            Store.add: call("INSERT", "links"),
            Store.get: call("SELECT", "links"),
            Store.get_many: call("SELECT", "links"),
            Store.find_external: call("SELECT", "links"),
            Store.resolve: call("SELECT", "links"),
            Store.page: call("SELECT", "links"),
            Store.update: call("UPDATE", "links"),
            Store.remove: call("UPDATE", "links"),
            Store.readdress: call("UPDATE", "links"),
            Store.touch: call("UPDATE", "links"),
            Store.find: call("SELECT", "links"),
            Store.count: call("SELECT", "links"),
            Store.totals: call("SELECT", "links"),
            Store.tags: call("SELECT", "link_tags"),
            Store.retag: call("UPDATE", "links"),
            # many links at once
            Store.write_batch: call("UPDATE", "links"),
            # history
            Store.history: call("SELECT", "link_history"),
            Store.restore: call("UPDATE", "links"),
            Store.forget_history: call("DELETE", "link_history"),
            # imports and exports
            Store.add_imported: call("INSERT", "links"),
            Store.find_imported: call("SELECT", "idempotency"),
            Store.spent_visits: call("SELECT", "links"),
            Store.export_page: call("SELECT", "links"),
            # outbox
            Store.take_events: call("UPDATE", "outbox"),
            Store.drop_events: call("DELETE", "outbox"),
            Store.outbox_depth: call("SELECT", "outbox"),
            # clicks
            Store.add_clicks: call("INSERT", "click_totals"),
            Store.hourly_clicks: call("SELECT", "click_hours"),
            Store.add_visits: call("INSERT", "visit_counts"),
            Store.roll_up_visits: call("INSERT", "visit_counts"),
            Store.visit_values: call("SELECT", "visit_counts"),
            Store.visit_kinds: call("SELECT", "visit_counts"),
            Store.visitor_sketches: call("SELECT", "visit_sketches"),
            Store.visitor_key: call("INSERT", "visitor_keys"),
            Store.forget_visits: call("DELETE", "visit_counts"),
            Store.forget_visitor_keys: call("DELETE", "visitor_keys"),
            Store.forget_batches: call("DELETE", "click_batches"),
            # visit quota
            Store.lease_quota: call("UPDATE", "links"),
            Store.quota_left: call("SELECT", "links"),
            Store.return_quota: call("UPDATE", "links"),
            # API keys
            Store.add_key: call("INSERT", "api_keys"),
            Store.get_key: call("SELECT", "api_keys"),
            Store.list_keys: call("SELECT", "api_keys"),
            Store.revoke_key: call("UPDATE", "api_keys"),
            Store.rotate_key: call("UPDATE", "api_keys"),
            Store.note_key_uses: call("UPDATE", "api_keys"),
            # sessions of the console
            Store.add_session: call("INSERT", "console_sessions"),
            Store.get_session: call("SELECT", "console_sessions"),
            Store.list_sessions: call("SELECT", "console_sessions"),
            Store.end_session: call("DELETE", "console_sessions"),
            Store.forget_sessions: call("DELETE", "console_sessions"),
            # blocks
            Store.add_blocks: call("INSERT", "blocks"),
            Store.remove_blocks: call("UPDATE", "blocks"),
            Store.block_page: call("SELECT", "blocks"),
            Store.blocks_version: unchanged,
            Store.blocks_since: unchanged,
            # domains
            Store.add_domain: call("INSERT", "domains"),
            Store.change_domain: call("UPDATE", "domains"),
            Store.remove_domain: call("UPDATE", "domains"),
            Store.domains_version: unchanged,
            Store.domains: unchanged,
            # events
            Store.number_events: unchanged,
            Store.expire_links: unchanged,
            Store.events_after: call("SELECT", "link_events"),
            Store.last_event: unchanged,
            Store.forget_events: call("DELETE", "link_events"),
            # webhooks
            Store.add_webhook: call("INSERT", "webhooks"),
            Store.webhooks: call("SELECT", "webhooks"),
            Store.change_webhook: call("UPDATE", "webhooks"),
            Store.remove_webhook: call("DELETE", "webhooks"),
            Store.webhook_work: unchanged,
            Store.plan_deliveries: call("INSERT", "webhook_deliveries"),
            Store.take_deliveries: call("UPDATE", "webhook_deliveries"),
            Store.note_attempts: call("UPDATE", "webhook_deliveries"),
            Store.deliveries: call("SELECT", "webhook_deliveries"),
            Store.replay_dead: call("UPDATE", "webhook_deliveries"),
            Store.replay_after: call("UPDATE", "webhooks"),
            # idempotent requests
            Store.forget_requests: call("DELETE", "idempotency"),
            # the store itself
            Store.ping: unchanged,
            Store.try_write: unchanged,
            Store.epoch: unchanged,
            Store.aclose: unchanged,
        },
    )


def traced_replica(replica: LinkReplica, tracing: Tracing) -> LinkReplica:
    """Return *replica* with a span around each call."""
    table = {
        LinkReplica.resolve: _calls(tracing, "postgresql", "SELECT", "links", **{"hopgate.replica": True})
    }
    return wrapped(LinkReplica, replica, table)


def traced_cache(cache: LinkCache, tracing: Tracing, system: str) -> LinkCache:
    """Return *cache* with a span around each call; *system* is redis or memory."""
    return wrapped(
        LinkCache,
        cache,
        {
            LinkCache.get_many: _calls(tracing, system, "MGET", "links"),
            # A script that compares versions.
            LinkCache.put: _calls(tracing, system, "compare-and-set", "links"),
            LinkCache.scan: _calls(tracing, system, "SCAN", "links"),
            LinkCache.forget: _calls(tracing, system, "DEL", "links"),
            LinkCache.ping: unchanged,
            LinkCache.aclose: unchanged,
        },
    )


def traced_bus(bus: EventBus, tracing: Tracing, system: str) -> EventBus:
    """Return *bus* with spans around what it sends and what it hands out; *system* is rabbitmq or memory."""
    return wrapped(
        EventBus,
        bus,
        {
            EventBus.publish: _publishes(tracing, system),
            EventBus.announce: _announces(tracing, system),
            EventBus.listen: _listens(tracing, system),
            EventBus.consume: _consumes(tracing, system),
            EventBus.ping: unchanged,
            EventBus.queue_depths: unchanged,
            EventBus.aclose: unchanged,
        },
    )


# --- wrappers --------------------------------------------------------------------------


def _calls(tracing: Tracing, system: str, operation: str, table: str, **more: Any) -> Wrapper:
    name = f"{operation} {table}"
    attributes = {
        "db.system.name": system,
        "db.operation.name": operation,
        "db.collection.name": table,
        **more,
    }

    def wrap(method: Method) -> Method:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if not origins():
                return await method(*args, **kwargs)
            with tracing.work(name, SpanKind.CLIENT, attributes) as recorded:
                first = args[0] if args else None
                # One slug is no batch; a string is one slug.
                if recorded and isinstance(first, list | tuple) and len(first) > 1:
                    recorded[0].set_attribute(_BATCH_SIZE, len(first))
                return await method(*args, **kwargs)

        return call

    return wrap


def _publishes(tracing: Tracing, system: str) -> Wrapper:
    def wrap(publish: Method) -> Method:
        async def call(events: Sequence[Event]) -> Sequence[bool]:
            if not (events and origins()):
                return cast("Sequence[bool]", await publish(events))
            attributes = {
                **_sending(system, "publish", EVENTS_EXCHANGE, len(events)),
                "messaging.rabbitmq.destination.routing_key": work_queue(events[0]),
            }
            shared = len(origins()) > 1
            with tracing.work(f"publish {EVENTS_EXCHANGE}", SpanKind.PRODUCER, attributes) as recorded:
                if recorded is not None:
                    events = [_sent(event, recorded[1], keeps=shared) for event in events]
                confirmed: Sequence[bool] = await publish(events)
                if recorded is not None and not all(confirmed):
                    fail(recorded[0], "not_confirmed")
                return confirmed

        return call

    return wrap


def _announces(tracing: Tracing, system: str) -> Wrapper:
    def wrap(announce: Method) -> Method:
        async def call(changes: Sequence[LinkChanged]) -> None:
            if not origins():
                await announce(changes)
                return
            attributes = _sending(system, "publish", INVALIDATIONS_EXCHANGE, len(changes))
            with tracing.work(f"publish {INVALIDATIONS_EXCHANGE}", SpanKind.PRODUCER, attributes) as recorded:
                if recorded is not None:
                    # One message holds all of them, and has one origin.
                    changes = [with_origin(change, recorded[1]) for change in changes]
                await announce(changes)

        return call

    return wrap


def _consumes(tracing: Tracing, system: str) -> Wrapper:
    def wrap(consume: Method) -> Method:
        async def call(queue: WorkQueue, handler: EventHandler, *args: Any, **kwargs: Any) -> None:
            name = f"process {queue}"

            async def handle(events: Sequence[Event]) -> object:
                with on_behalf_of(origin_of(event) for event in events):
                    if not origins():
                        return await handler(events)
                    attributes = _processing(system, queue, len(events))
                    with tracing.work(name, SpanKind.CONSUMER, attributes):
                        return await handler(events)

            await consume(queue, handle, *args, **kwargs)

        return call

    return wrap


def _listens(tracing: Tracing, system: str) -> Wrapper:
    def wrap(listen: Method) -> Method:
        async def call(listener: InvalidationListener) -> None:
            await listen(_TracedListener(listener, tracing, system))

        return call

    return wrap


class _TracedListener:
    """Records how a gateway receives changes."""

    def __init__(self, listener: InvalidationListener, tracing: Tracing, system: str) -> None:
        self._listener = listener
        self._tracing = tracing
        self._system = system
        self.on_gap: Callable[[], None] = listener.on_gap

    def on_changes(self, changes: Sequence[LinkChanged]) -> None:
        with on_behalf_of(change.origin for change in changes):
            attributes = _processing(self._system, INVALIDATIONS_EXCHANGE, len(changes))
            with self._tracing.work(f"process {INVALIDATIONS_EXCHANGE}", SpanKind.CONSUMER, attributes):
                self._listener.on_changes(changes)


def _sent(event: Event, origin: Origin, *, keeps: bool) -> Event:
    """Return *event* from *origin*; if it *keeps* its own, its consumer goes on with its own request."""
    return event if keeps and origin_of(event) is not None else with_origin(event, origin)


def _sending(system: str, operation: str, destination: str, count: int) -> Attributes:
    return _message(system, operation, "send", destination, count)


def _processing(system: str, destination: str, count: int) -> Attributes:
    return _message(system, "process", "process", destination, count)


def _message(system: str, operation: str, kind: str, destination: str, count: int) -> Attributes:
    batch = {"messaging.batch.message_count": count} if count > 1 else {}
    return {
        "messaging.system": system,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": destination,
        **batch,
    }
