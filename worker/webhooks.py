"""
Delivers events to webhooks, at least once each, and those of one link in order.

The log of events in the store is the queue: nothing of a delivery depends on the broker (docs/adr/0030). Each
webhook has a window of planned deliveries over the log, leased by whichever worker makes them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from app.concurrency.stopping import stop
from app.domain.errors import Unavailable
from app.domain.webhooks import (
    DeliveryState,
    DisabledReason,
    RetryPolicy,
    Webhook,
    asked_pause,
    signed_headers,
)
from app.ports import (
    Attempted,
    DueDelivery,
    EventLogStore,
    HookAnswer,
    Undeliverable,
    WebhookSender,
    WebhookStore,
    WebhookWork,
)
from app.service.event_view import EventView

log = logging.getLogger(__name__)

_POLL_S = 0.2
_PAUSE_S = 1.0
_NUMBERED = 1000
_EXPIRED = 500
# Planned and not delivered: the rest waits in the log, so a webhook that is away costs nothing more.
_WINDOW = 1000
_PAGE = 200
# Attempts for one webhook at a time.
_ATTEMPTS = 8
# Much longer than an attempt and its notes take.
_LEASE = timedelta(seconds=90)
# Calls to the store at a time, of all webhooks: the others of the process need it too.
_STORE_CALLS = 4
_GONE = 410
# With these a receiver asks for time, whatever it is sent; with others its `Retry-After` is for one delivery.
_BUSY = (429, 503)


class Store(EventLogStore, WebhookStore, Protocol):
    """The log, and what is to be delivered of it."""


class WebhookDispatcher:
    """
    Numbers events, notices links that expire, and delivers to every webhook independently of the others.

    Any number may run.

    `attempts` counts attempts by their outcome: delivered, failed, dead. `oldest_s` is the age of the oldest
    delivery that waits, `pending` their number; both None while the store does not answer.

    Args:
        clock: the present time in UTC.
        random: gives floats in [0, 1).
    """

    def __init__(
        self,
        store: Store,
        sender: WebhookSender,
        view: EventView,
        retries: RetryPolicy,
        *,
        clock: Callable[[], datetime],
        random: Callable[[], float],
    ) -> None:
        self._store = store
        self._sender = sender
        self._view = view
        self._retries = retries
        self._clock = clock
        self._random = random
        self._lanes: dict[str, asyncio.Task[bool]] = {}
        self._lane_ended = asyncio.Event()
        self._places = asyncio.Semaphore(_STORE_CALLS)
        self._is_away = False
        # Ends of the pauses that receivers have asked this worker for, by webhook and version.
        self._paused: dict[tuple[str, int], datetime] = {}
        self.attempts: Counter[str] = Counter(delivered=0, failed=0, dead=0)
        self.oldest_s: float | None = None
        self.pending: int | None = None

    async def run(self) -> None:
        """Deliver, until cancelled."""
        try:
            while True:
                pause = _POLL_S
                try:
                    await self.look()
                    self._note_away(None)
                except Unavailable as error:
                    self.oldest_s = self.pending = None
                    self._note_away(error)
                    pause = _PAUSE_S
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._lane_ended.wait()
                self._lane_ended.clear()
        finally:
            await stop(self._lanes.values(), "webhook deliveries")

    async def look(self) -> None:
        """Number what is new, and start what there is to do. Raises Unavailable."""
        await self._store.expire_links(now=self._clock(), limit=_EXPIRED)
        while await self._store.number_events(limit=_NUMBERED) == _NUMBERED:
            pass
        now = self._clock()
        works = await self._store.webhook_work(now=now)
        last = await self._store.last_event() if works else 0
        served = [work for work in works if work.webhook.enabled]
        waiting = [work.oldest for work in served if work.oldest is not None]
        self.oldest_s = max(0.0, (now - min(waiting)).total_seconds()) if waiting else 0.0
        self.pending = sum(work.pending for work in served)
        self._paused = {key: until for key, until in self._paused.items() if until > now}
        for work in served:
            webhook = work.webhook
            has_work = work.is_due or (webhook.position < last and work.pending < _WINDOW)
            has_work = has_work and (webhook.webhook_id, webhook.version) not in self._paused
            if has_work and webhook.webhook_id not in self._lanes:
                self._start(work)

    def _start(self, work: WebhookWork) -> None:
        webhook_id = work.webhook.webhook_id
        lane = asyncio.create_task(self._step(work), name=f"webhook {webhook_id}")
        self._lanes[webhook_id] = lane

        def ended(task: asyncio.Task[bool]) -> None:
            del self._lanes[webhook_id]
            if task.cancelled():
                return
            if (error := task.exception()) is not None:
                log.error("delivery to webhook %s failed unexpectedly", webhook_id, exc_info=error)
            elif task.result():
                self._lane_ended.set()

        lane.add_done_callback(ended)

    async def _step(self, work: WebhookWork) -> bool:
        """Plan one page of events for a webhook, and make what is due; return whether there was anything."""
        webhook, has_planned = work.webhook, False
        with suppress(Unavailable):  # `look` notices it as well
            if work.pending < _WINDOW:
                async with self._places:
                    has_planned = await self._plan(webhook)
            async with self._places:
                due = await self._store.take_deliveries(
                    webhook.webhook_id, limit=_ATTEMPTS, lease=_LEASE, now=self._clock()
                )
                await self._view.prepare([one.event for one in due if one.event is not None])
            outcomes = await asyncio.gather(*(self._attempt(webhook, one) for one in due))
            if due:
                async with self._places:
                    attempted = {one.position: made for one, made in zip(due, outcomes, strict=True)}
                    await self._store.note_attempts(webhook.webhook_id, attempted)
                    if any(made.status == _GONE for made in outcomes):
                        await self._disable(webhook)
            return has_planned or bool(due)
        return False

    async def _plan(self, webhook: Webhook) -> bool:
        page = await self._store.events_after(webhook.position, limit=_PAGE)
        if page.until == webhook.position:
            return False
        await self._view.prepare(page.events)
        wanted = [event for event in page.events if self._view.passes(event, webhook.filter)]
        return await self._store.plan_deliveries(
            webhook.webhook_id, wanted, after=webhook.position, until=page.until, now=self._clock()
        )

    async def _disable(self, webhook: Webhook) -> None:
        """Send no more to a receiver that is gone for good, unless the webhook was changed meanwhile."""
        gone = DisabledReason.RECEIVER_GONE
        disabled = replace(webhook, enabled=False, disabled_reason=gone, updated_at=self._clock())
        if await self._store.change_webhook(disabled):
            log.warning("webhook %s is disabled: its receiver answers 410", webhook.webhook_id)

    async def _attempt(self, webhook: Webhook, due: DueDelivery) -> Attempted:
        now = self._clock()
        if due.event is None:
            return self._outcome(due, None, "its event is forgotten", is_last=True)
        body = self._view.message(due.event)
        headers = signed_headers(f"evt_{due.event.uid}", now, body, webhook.secrets(now))
        try:
            answer = await self._sender.send(webhook.url, headers, body)
        except Undeliverable as error:
            return self._outcome(due, None, str(error))
        asked = self._asked(webhook, answer)
        is_redirect = 300 <= answer.status < 400
        problem = "a redirect is not followed" if is_redirect else None
        return self._outcome(due, answer.status, problem, asked=asked)

    def _asked(self, webhook: Webhook, answer: HookAnswer) -> timedelta:
        """Return how long the receiver asks to wait with a delivery; pause the webhook if it is busy."""
        now = self._clock()
        asked = self._retries.bounded(asked_pause(answer.retry_after, now))
        if asked and answer.status in _BUSY:
            key = webhook.webhook_id, webhook.version
            self._paused[key] = max(now + asked, self._paused.get(key, now))
        return asked

    def _outcome(
        self,
        due: DueDelivery,
        status: int | None,
        problem: str | None,
        *,
        asked: timedelta = timedelta(0),
        is_last: bool = False,
    ) -> Attempted:
        now = self._clock()
        if status is not None and 200 <= status < 300:
            state, pause = DeliveryState.DELIVERED, timedelta(0)
            self.attempts["delivered"] += 1
        else:
            next_pause = None if is_last else self._retries.pause(due.attempts, self._random, asked=asked)
            state = DeliveryState.DEAD if next_pause is None else DeliveryState.PENDING
            pause = next_pause or timedelta(0)
            self.attempts["dead" if next_pause is None else "failed"] += 1
        return Attempted(state=state, at=now, next_attempt_at=now + pause, status=status, problem=problem)

    def _note_away(self, error: Unavailable | None) -> None:
        if error is not None and not self._is_away:
            log.warning("webhooks wait: %s", error)
        elif error is None and self._is_away:
            log.warning("webhooks are delivered again")
        self._is_away = error is not None
