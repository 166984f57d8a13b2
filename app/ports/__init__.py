"""
The ports of the core: what services need of stores, caches, buses and rate limiters.

Services depend on these protocols only. Each docstring is the contract, and the suites in
`tests/contract/` hold every adapter to it. Adapters translate the errors of their drivers into
`Unavailable`; no other error leaves them.

Data flows one way: store → event → cache. The cache never writes to the store.

    store.py         Store: everything that a database adapter implements, which is
    links.py             LinkStore         links; each change leaves an outbox row
    batches.py           BatchStore        many changes of links in one transaction
    find.py              FindStore         listings by filters, terms and sorts; tags
    history.py           HistoryStore      what links were before each change
    outbox.py            OutboxStore       outbox rows, leased to the relay
    clicks.py            ClickStore        click totals and hours; also ClickSpool, on disk
    visit_quota.py       VisitQuotaStore   the leased quota of `max_visits`
    api_keys.py          ApiKeyStore       API keys
    console_sessions.py  ConsoleSessionStore  who is signed in to the console
    blocks.py            BlockStore        blocked hosts and slugs
    domains.py           DomainStore       hosts that links are visited at
    events.py            EventLogStore     what happened to links, for programs outside
    webhooks.py          WebhookStore      webhooks and their deliveries; also WebhookSender
    idempotency.py       IdempotencyStore  requests that take effect once
    imports.py           ImportStore       links from files, and for files
    replica.py       LinkReplica: copies of the store that lag
    local_copy.py    LocalCopy: blocks and domains as they were known last, on disk
    cache.py         LinkCache: resolutions, shared by all processes
    bus.py           EventBus: work queues and invalidations
    rate_limiter.py  RateLimiter: which requests pass
"""

from app.ports.api_keys import ApiKey, ApiKeyStore
from app.ports.batches import Answered, Batch, BatchStore, Decide, Found, Reusable, Wanted
from app.ports.blocks import BlockPage, BlockStore
from app.ports.bus import (
    MAX_ATTEMPTS,
    DeliveryObserver,
    EventBus,
    EventHandler,
    InvalidationListener,
    QueueDepth,
    Unobserved,
)
from app.ports.cache import CachePage, LinkCache
from app.ports.clicks import ClickSpool, ClickStore
from app.ports.console_sessions import ConsoleSession, ConsoleSessionStore
from app.ports.domains import DomainStore
from app.ports.events import EventLogStore, EventPage
from app.ports.find import (
    MAX_RETAGGED,
    FindStore,
    FoundPage,
    LinkCondition,
    LinkQuery,
    LinkSort,
    Position,
    TagCount,
    TimeRange,
    Totals,
)
from app.ports.history import HistoryStore, LinkHistory, LinkState, PastChange
from app.ports.idempotency import IMPORT_SCOPE, IdempotencyStore, IdempotentRequest
from app.ports.imports import ExportPage, ImportedLink, ImportStore
from app.ports.links import (
    Added,
    AddressStore,
    AddressTaken,
    Changed,
    ExternalIdTaken,
    LinkStore,
    Page,
    Replayed,
    RequestMismatch,
    VersionMismatch,
)
from app.ports.local_copy import LocalCopy
from app.ports.outbox import OUTBOX_GRACE_S, OUTBOX_LONGEST_WAIT_S, OutboxDepth, OutboxEvent, OutboxStore
from app.ports.rate_limiter import Counted, Policy, RateLimiter, Refusal
from app.ports.replica import REPLICA_LAG_S, LinkReplica
from app.ports.store import Store
from app.ports.visit_quota import MAX_QUOTA_LEASE, VisitQuotaStore
from app.ports.visits import Agents, Merge, PeriodVisits, Places, VisitorKeyStore, VisitStore
from app.ports.webhooks import (
    Attempted,
    Delivery,
    DueDelivery,
    HookAnswer,
    Undeliverable,
    WebhookSender,
    WebhookStore,
    WebhookWork,
)

__all__ = [
    "IMPORT_SCOPE",
    "MAX_ATTEMPTS",
    "MAX_QUOTA_LEASE",
    "MAX_RETAGGED",
    "OUTBOX_GRACE_S",
    "OUTBOX_LONGEST_WAIT_S",
    "REPLICA_LAG_S",
    "Added",
    "AddressStore",
    "AddressTaken",
    "Agents",
    "Answered",
    "ApiKey",
    "ApiKeyStore",
    "Attempted",
    "Batch",
    "BatchStore",
    "BlockPage",
    "BlockStore",
    "CachePage",
    "Changed",
    "ClickSpool",
    "ClickStore",
    "ConsoleSession",
    "ConsoleSessionStore",
    "Counted",
    "Decide",
    "Delivery",
    "DeliveryObserver",
    "DomainStore",
    "DueDelivery",
    "EventBus",
    "EventHandler",
    "EventLogStore",
    "EventPage",
    "ExportPage",
    "ExternalIdTaken",
    "FindStore",
    "Found",
    "FoundPage",
    "HistoryStore",
    "HookAnswer",
    "IdempotencyStore",
    "IdempotentRequest",
    "ImportStore",
    "ImportedLink",
    "InvalidationListener",
    "LinkCache",
    "LinkCondition",
    "LinkHistory",
    "LinkQuery",
    "LinkReplica",
    "LinkSort",
    "LinkState",
    "LinkStore",
    "LocalCopy",
    "Merge",
    "OutboxDepth",
    "OutboxEvent",
    "OutboxStore",
    "Page",
    "PastChange",
    "PeriodVisits",
    "Places",
    "Policy",
    "Position",
    "QueueDepth",
    "RateLimiter",
    "Refusal",
    "Replayed",
    "RequestMismatch",
    "Reusable",
    "Store",
    "TagCount",
    "TimeRange",
    "Totals",
    "Undeliverable",
    "Unobserved",
    "VersionMismatch",
    "VisitQuotaStore",
    "VisitStore",
    "VisitorKeyStore",
    "Wanted",
    "WebhookSender",
    "WebhookStore",
    "WebhookWork",
]
