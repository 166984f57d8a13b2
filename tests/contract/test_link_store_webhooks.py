"""`WebhookStore`: one suite for every adapter."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from app.domain.link import Slug
from app.domain.webhooks import DeliveryState, DisabledReason, EventFilter, EventKind, Webhook
from app.ports import Attempted, Store
from tests.contract.store_database import Database
from tests.contract.store_links import FIELDS, LATER, NOW, added

HOOK = Webhook(
    webhook_id="wh_1",
    url="https://hooks.example/in",
    name="first",
    filter=EventFilter(kinds=frozenset({EventKind.CREATED}), domain="go.example", tag="Äpfel"),
    enabled=True,
    secret=b"s" * 32,
    created_at=NOW,
    updated_at=NOW,
)
ALL = replace(HOOK, filter=EventFilter())
LEASE = timedelta(seconds=30)


async def numbered(store: Store) -> int:
    while await store.number_events(limit=100):
        pass
    return await store.last_event()


async def planned(store: Store, *slugs: str, webhook: Webhook = ALL) -> None:
    """Plan one event of each link for *webhook*, which is new."""
    assert await store.add_webhook(webhook, most=9)
    await added(store, *dict.fromkeys(slugs))
    await plan_rest(store, webhook.webhook_id)


async def plan_rest(store: Store, webhook_id: str) -> None:
    last = await numbered(store)
    [at] = [one.position for one in await store.webhooks() if one.webhook_id == webhook_id]
    page = await store.events_after(at, limit=1000)
    assert await store.plan_deliveries(webhook_id, page.events, after=at, until=last, now=NOW)


async def taken(store: Store, webhook_id: str = "wh_1", *, limit: int = 10, later_s: float = 0) -> list[int]:
    at = NOW + timedelta(seconds=later_s)
    due = await store.take_deliveries(webhook_id, limit=limit, lease=LEASE, now=at)
    assert all(one.event is not None and one.event.position == one.position for one in due)
    return [one.position for one in due]


def outcome(state: DeliveryState, *, next_s: float = 0, **more: object) -> Attempted:
    return Attempted(state=state, at=NOW, next_attempt_at=NOW + timedelta(seconds=next_s), **more)  # type: ignore[arg-type]


async def test_webhook_is_stored_whole(store: Store) -> None:
    await added(store, "earlier")
    last = await numbered(store)
    full = replace(HOOK, old_secret=b"o" * 32, old_until=LATER)

    assert await store.add_webhook(full, most=2)
    assert await store.add_webhook(replace(ALL, webhook_id="wh_2", created_at=LATER), most=2)
    assert not await store.add_webhook(replace(ALL, webhook_id="wh_3"), most=2)

    first, second = await store.webhooks()
    assert first == replace(full, position=last), "it gets what happens from now on"
    assert second.filter == EventFilter()


async def test_settings_change_at_the_version_that_was_read(store: Store) -> None:
    await store.add_webhook(HOOK, most=2)
    other = replace(HOOK, url="https://other.example/", enabled=False, updated_at=LATER)

    assert await store.change_webhook(other)
    assert not await store.change_webhook(replace(other, name="late"))

    assert await store.webhooks() == [replace(other, version=2)]


async def test_reason_is_of_a_webhook_that_is_disabled(store: Store, database: Database) -> None:
    await store.add_webhook(HOOK, most=2)
    gone = replace(HOOK, enabled=False, disabled_reason=DisabledReason.RECEIVER_GONE)

    assert await store.change_webhook(gone)
    assert await store.webhooks() == [replace(gone, version=2)]

    # An earlier release enables it, a later one knows further reasons.
    database.execute("UPDATE webhooks SET enabled = true")
    assert await store.webhooks() == [replace(HOOK, version=2)]
    database.execute("UPDATE webhooks SET enabled = false, disabled_reason = 'of_later'")
    assert await store.webhooks() == [replace(HOOK, enabled=False, version=2)]


async def test_removed_webhook_has_no_work(store: Store) -> None:
    await planned(store, "s-1")

    assert await store.remove_webhook("wh_1")

    assert not await store.remove_webhook("wh_1")
    assert await store.webhook_work(now=LATER) == []
    assert await taken(store) == []


async def test_deliveries_are_planned_once(store: Store) -> None:
    await store.add_webhook(ALL, most=2)
    await added(store, "s-1", "s-2")
    last = await numbered(store)
    page = await store.events_after(0, limit=10)

    answers = await asyncio.gather(
        *(store.plan_deliveries("wh_1", page.events, after=0, until=last, now=NOW) for _ in range(4))
    )

    assert sorted(answers) == [False, False, False, True]
    [work] = await store.webhook_work(now=NOW)
    assert (work.webhook.position, work.pending, work.oldest, work.is_due) == (last, 2, NOW, True)


async def test_deliveries_are_leased(store: Store) -> None:
    await planned(store, "s-1", "s-2", "s-3")

    both = await asyncio.gather(taken(store, limit=2), taken(store, limit=2))

    assert sorted(both[0] + both[1]) == [1, 2, 3]
    assert await taken(store, later_s=29) == []
    assert await taken(store, later_s=30) == [1, 2, 3]
    assert [one.attempts for one in await store.deliveries("wh_1", before=None, limit=9)] == [2, 2, 2]


async def test_link_waits_for_its_earlier_event(store: Store) -> None:
    await store.add_webhook(ALL, most=2)
    await added(store, "s-1", "s-2")
    await store.update(Slug("s-1"), replace(FIELDS, title="x"), expected_version=1, now=NOW)
    await plan_rest(store, "wh_1")

    assert await taken(store) == [1, 2]
    await store.note_attempts(
        "wh_1", {1: outcome(DeliveryState.PENDING, next_s=60, status=500, problem="500")}
    )
    assert await taken(store) == []
    assert await taken(store, later_s=60) == [1, 2], "2 was leased and not noted"
    await store.note_attempts("wh_1", {1: outcome(DeliveryState.DEAD, status=500)})
    assert await taken(store, later_s=60) == [3]


async def test_delivered_is_not_attempted_again(store: Store) -> None:
    await planned(store, "s-1")
    await taken(store)
    await store.note_attempts("wh_1", {1: outcome(DeliveryState.DELIVERED, status=204)})
    # Of a worker whose lease was over.
    await store.note_attempts("wh_1", {1: outcome(DeliveryState.PENDING, problem="late")})

    assert await taken(store, later_s=999) == []
    [delivery] = await store.deliveries("wh_1", before=None, limit=9)
    assert (delivery.state, delivery.status, delivery.problem) == (DeliveryState.DELIVERED, 204, None)
    assert (delivery.slug, delivery.kind, delivery.attempted_at) == ("s-1", EventKind.CREATED, NOW)


async def test_deliveries_are_listed_latest_first(store: Store) -> None:
    await planned(store, "s-1", "s-2", "s-3")

    page = await store.deliveries("wh_1", before=None, limit=2)

    assert [one.position for one in page] == [3, 2]
    assert [one.position for one in await store.deliveries("wh_1", before=2, limit=2)] == [1]


async def test_dead_deliveries_are_replayed(store: Store) -> None:
    await planned(store, "s-1", "s-2")
    await taken(store)
    await store.note_attempts("wh_1", {1: outcome(DeliveryState.DEAD)})
    await store.note_attempts("wh_1", {2: outcome(DeliveryState.DELIVERED)})

    assert await store.replay_dead("wh_1", now=NOW) == 1
    assert await store.replay_dead("wh_1", now=NOW) == 0

    assert await taken(store) == [1]


async def test_webhook_is_set_back(store: Store) -> None:
    await planned(store, "s-1", "s-2")
    await taken(store)
    for position in (1, 2):
        await store.note_attempts("wh_1", {position: outcome(DeliveryState.DELIVERED)})

    assert not await store.replay_after("wh_1", 2)
    assert await store.replay_after("wh_1", 1)
    await plan_rest(store, "wh_1")

    assert await taken(store) == [2]


async def test_forgotten_event_takes_its_deliveries_along(store: Store) -> None:
    await planned(store, "s-1", "s-2")

    await store.forget_events(before=LATER, limit=10)

    assert [one.position for one in await store.deliveries("wh_1", before=None, limit=9)] == [2]
