"""`WebhookStore`: webhooks, and what is to be delivered to them; `WebhookSender` sends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.domain.errors import HopgateError
from app.domain.webhooks import DeliveryState, EventKind, LinkEvent, Webhook


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookWork:
    """
    What is to be done for a webhook.

    `pending`: planned and not delivered; `oldest`: the time of the first of them; `is_due`: one can be
    attempted.
    """

    webhook: Webhook
    pending: int
    oldest: datetime | None
    is_due: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDelivery:
    """A delivery to be attempted, for the *attempts*th time; None: its event is forgotten."""

    position: int
    attempts: int
    event: LinkEvent | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """What came of an attempt. `status` is that of the answer, if there was one."""

    state: DeliveryState
    at: datetime
    next_attempt_at: datetime
    status: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery as a listing shows it; `kind` and `uid` are None once its event is forgotten."""

    position: int
    slug: str
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime
    created_at: datetime
    attempted_at: datetime | None
    status: int | None
    problem: str | None
    kind: EventKind | None
    uid: str | None


class WebhookStore(Protocol):
    """
    Webhooks and their deliveries.

    Deliveries of one link to one webhook are made in the order of their positions: one is due when none
    before it is pending. Raises (every method): Unavailable.
    """

    async def add_webhook(self, webhook: Webhook, *, most: int) -> bool:
        """Store *webhook*, which gets what happens from now on; False if there are *most* already."""
        ...

    async def webhooks(self) -> Sequence[Webhook]:
        """Return all webhooks, oldest first."""
        ...

    async def change_webhook(self, webhook: Webhook) -> bool:
        """Store the settings of *webhook* as its next version, if it is at its version still."""
        ...

    async def remove_webhook(self, webhook_id: str) -> bool:
        """Remove the webhook and its deliveries; False if there is none."""
        ...

    async def webhook_work(self, *, now: datetime) -> Sequence[WebhookWork]:
        """Return what is to be done for each webhook. Cheap: it is asked all the time."""
        ...

    async def plan_deliveries(
        self, webhook_id: str, events: Sequence[LinkEvent], *, after: int, until: int, now: datetime
    ) -> bool:
        """
        Plan the delivery of *events*, those of (after, until] that the webhook wants.

        False, and nothing is planned, if the webhook is not at the position *after* any more.
        """
        ...

    async def take_deliveries(
        self, webhook_id: str, *, limit: int, lease: timedelta, now: datetime
    ) -> Sequence[DueDelivery]:
        """Return up to *limit* deliveries that are due; no other caller gets them within *lease*."""
        ...

    async def note_attempts(self, webhook_id: str, attempted: Mapping[int, Attempted]) -> None:
        """Store what came of attempts, by position; those that are not pending any more stay as they are."""
        ...

    async def deliveries(self, webhook_id: str, *, before: int | None, limit: int) -> Sequence[Delivery]:
        """Return up to *limit* deliveries before a position, latest first."""
        ...

    async def replay_dead(self, webhook_id: str, *, now: datetime) -> int:
        """Make all dead deliveries pending again, from their first attempt on; return how many."""
        ...

    async def replay_after(self, webhook_id: str, position: int) -> bool:
        """Set the webhook back to *position*: what is after it is planned again. False if it is not later."""
        ...


class Undeliverable(HopgateError):
    """A message was not sent, or not answered; the text is for the webhook's owner and names no secret."""


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """What a receiver says: a status, and its `Retry-After` as it was sent, if the status is no success."""

    status: int
    retry_after: str | None = None


class WebhookSender(Protocol):
    """Sends messages to servers of others."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> HookAnswer:
        """Return what the receiver answers. Takes a bounded time. Raises Undeliverable."""
        ...
