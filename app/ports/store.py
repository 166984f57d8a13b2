"""`Store`: everything that a database adapter implements. Services ask for the parts they use."""

from __future__ import annotations

from typing import Protocol

from app.ports.api_keys import ApiKeyStore
from app.ports.batches import BatchStore
from app.ports.blocks import BlockStore
from app.ports.clicks import ClickStore
from app.ports.console_sessions import ConsoleSessionStore
from app.ports.domains import DomainStore
from app.ports.events import EventLogStore
from app.ports.find import FindStore
from app.ports.history import HistoryStore
from app.ports.idempotency import IdempotencyStore
from app.ports.imports import ImportStore
from app.ports.links import LinkStore
from app.ports.outbox import OutboxStore
from app.ports.visit_quota import VisitQuotaStore
from app.ports.visits import VisitorKeyStore, VisitStore
from app.ports.webhooks import WebhookStore


class Store(
    LinkStore,
    FindStore,
    BatchStore,
    HistoryStore,
    ImportStore,
    OutboxStore,
    ClickStore,
    VisitStore,
    VisitorKeyStore,
    VisitQuotaStore,
    ApiKeyStore,
    ConsoleSessionStore,
    IdempotencyStore,
    BlockStore,
    DomainStore,
    EventLogStore,
    WebhookStore,
    Protocol,
):
    """
    The source of truth.

    Every method is one transaction: it happens entirely or not at all. Reads see every change
    that was acknowledged before the call; replicas never answer here.

    Raises (every method): Unavailable.
    """

    async def ping(self) -> None:
        """
        Return if the store answers and its schema is not older than this code.

        Raises `Refused` while the store answers, but refuses writes.
        """
        ...

    async def try_write(self) -> None:
        """Write something of no consequence. Raises `Refused` if the store takes no writes."""
        ...

    async def epoch(self) -> int:
        """
        Return the number of the history that the links have; every link is read with it.

        It changes when the store goes back to an earlier state: a failover to a server that lacks the
        last changes, a restore. What a cache holds of another epoch may never have happened.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection. Further calls are errors."""
        ...
