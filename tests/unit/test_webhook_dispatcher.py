"""How the dispatcher reacts to answers: over a real store, with a receiver that each test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.domains import DomainIndex
from app.domain.link import LinkFields, NewLink, Slug
from app.domain.webhooks import DeliveryState, DisabledReason, EventFilter, RetryPolicy, Webhook
from app.ports import Delivery, HookAnswer, Store
from app.web.event_documents import EventDocuments
from tests.conftest import NOW
from worker.webhooks import WebhookDispatcher

FIELDS = LinkFields(long_url="https://example.com/")
PAUSES = (timedelta(seconds=10), timedelta(minutes=10))


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Receiver:
    """A `WebhookSender` that counts messages, and answers all of a webhook alike."""

    def __init__(self) -> None:
        self.answer: Callable[[str], HookAnswer] = lambda _: HookAnswer(204)
        self.sent: list[str] = []

    async def send(self, url, headers, body) -> HookAnswer:
        del headers, body
        self.sent.append(url)
        return self.answer(url)


class Site:
    """Two webhooks for the events of one store."""

    def __init__(self, store: Store) -> None:
        self.store, self.clock, self.receiver = store, Clock(), Receiver()
        self.dispatcher = WebhookDispatcher(
            store,
            self.receiver,
            EventDocuments(DomainIndex("https://hop.example"), self._nothing),
            RetryPolicy(pauses=PAUSES),
            clock=self.clock,
            random=lambda: 0.5,
        )

    async def begin(self, *slugs: str) -> None:
        for name in ("one", "two"):
            webhook = Webhook(
                webhook_id=f"wh_{name}",
                url=f"https://{name}.example/",
                name="",
                filter=EventFilter(),
                enabled=True,
                secret=b"s" * 32,
                created_at=NOW,
                updated_at=NOW,
            )
            await self.store.add_webhook(webhook, most=9)
        await self.store.add([NewLink(slug=Slug(slug), fields=FIELDS) for slug in slugs], now=NOW)

    async def passes(self, time: timedelta = timedelta(0)) -> list[str]:
        """Let *time* pass, and make what is due; return which webhooks got messages."""
        self.clock.now += time
        self.receiver.sent.clear()
        while True:
            await self.dispatcher.look()
            lanes = list(self.dispatcher._lanes.values())
            if not lanes:
                return sorted(self.receiver.sent)
            for lane in lanes:
                await lane
            await asyncio.sleep(0)  # the dispatcher notices their ends

    async def deliveries(self, name: str = "wh_one") -> list[Delivery]:
        return [*await self.store.deliveries(name, before=None, limit=99)]

    async def webhook(self) -> Webhook:
        return next(one for one in await self.store.webhooks() if one.webhook_id == "wh_one")

    async def _nothing(self) -> None: ...


ONE, TWO = "https://one.example/", "https://two.example/"


def only_one(answer: HookAnswer) -> Callable[[str], HookAnswer]:
    return lambda url: answer if url == ONE else HookAnswer(204)


@pytest.fixture
def site(embedded_store) -> Site:
    return Site(embedded_store)


@pytest.mark.parametrize("asked", ["300", "Thu, 01 Jan 2026 00:05:00 GMT"])
@pytest.mark.parametrize("status", [429, 503])
async def test_receiver_that_asks_for_time_is_left_alone(site, status, asked):
    site.clock.now = datetime(2026, 1, 1, tzinfo=UTC)
    await site.begin("a", "b")
    site.receiver.answer = only_one(HookAnswer(status, asked))
    assert await site.passes() == [ONE, ONE, TWO, TWO]

    # Neither what has failed nor what is new is sent, and no other webhook waits.
    await site.store.add([NewLink(slug=Slug("c"), fields=FIELDS)], now=NOW)
    assert await site.passes(timedelta(seconds=299)) == [TWO]
    site.receiver.answer = only_one(HookAnswer(204))
    assert await site.passes(timedelta(seconds=1)) == [ONE] * 3


async def test_receiver_keeps_events_back_no_longer_than_the_longest_pause(site):
    await site.begin("a")
    site.receiver.answer = only_one(HookAnswer(503, "999999999"))
    await site.passes()

    assert await site.passes(PAUSES[-1]) == [ONE]
    await site.passes(PAUSES[-1])
    assert [one.state for one in await site.deliveries()] == [DeliveryState.DEAD]


async def test_retry_after_of_another_failure_is_for_its_delivery(site):
    await site.begin("a")
    site.receiver.answer = only_one(HookAnswer(500, "300"))
    await site.passes()
    await site.store.add([NewLink(slug=Slug("b"), fields=FIELDS)], now=NOW)

    assert await site.passes(timedelta(seconds=10)) == [ONE, TWO]
    assert {one.slug: one.attempts for one in await site.deliveries()} == {"a": 1, "b": 1}


async def test_short_retry_after_makes_no_attempt_earlier(site):
    await site.begin("a")
    site.receiver.answer = only_one(HookAnswer(429, "1"))
    await site.passes()

    assert await site.passes(timedelta(seconds=9)) == []
    assert await site.passes(timedelta(seconds=1)) == [ONE]


async def test_changed_webhook_is_not_left_alone_for_what_was_asked_before(site):
    await site.begin("a")
    site.receiver.answer = only_one(HookAnswer(429, "600"))
    await site.passes()
    await site.store.add([NewLink(slug=Slug("b"), fields=FIELDS)], now=NOW)
    assert await site.passes(timedelta(seconds=10)) == [TWO]

    assert await site.store.change_webhook(await site.webhook())

    assert await site.passes() == [ONE]


async def test_receiver_that_is_gone_disables_its_webhook(site):
    await site.begin("a", "b")
    site.receiver.answer = only_one(HookAnswer(410))

    assert await site.passes() == [ONE, ONE, TWO, TWO]

    gone = await site.webhook()
    assert (gone.enabled, gone.disabled_reason) == (False, DisabledReason.RECEIVER_GONE)
    assert await site.passes(timedelta(days=1)) == []
    # Nothing is lost: what was not taken waits.
    assert [(one.state, one.status) for one in await site.deliveries()] == [(DeliveryState.PENDING, 410)] * 2
    assert [one.enabled for one in await site.store.webhooks()] == [False, True]


async def test_webhook_that_was_changed_meanwhile_stays_enabled(site):
    await site.begin("a")

    async def changed() -> None:
        await site.store.change_webhook(await site.webhook())

    class Changing(Receiver):
        async def send(self, url, headers, body) -> HookAnswer:
            if url == ONE:
                await changed()
            return HookAnswer(410 if url == ONE else 204)

    site.dispatcher._sender = Changing()
    await site.passes()

    assert (await site.webhook()).enabled
