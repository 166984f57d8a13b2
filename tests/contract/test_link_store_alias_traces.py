"""What links leave beside themselves, under every slug: events, deliveries, visits, quotas, owners."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from app.concurrency.actors import acting_as
from app.domain.events import ClicksCounted, VisitsDescribed
from app.domain.link import LinkFields, NewLink, Slug
from app.domain.visits import ALL_LINKS, Dimension, LinkVisits
from app.domain.webhooks import DeliveryState, EventFilter, Webhook
from app.ports import Added, Batch, Changed, Found, Store, Wanted
from tests.contract.store_links import FIELDS, LATER, NOW, added
from tests.contract.test_link_store_events import events
from tests.contract.test_link_store_visits import add as add_visits
from tests.contract.test_link_store_visits import values
from tests.contract.test_link_store_webhooks import outcome, plan_rest, taken

A, B, C, D = Slug("aaa"), Slug("bbb"), Slug("ccc"), Slug("~1~ddd")
METERED = replace(FIELDS, max_visits=8)
HOUR = NOW.replace(minute=0, second=0, microsecond=0)
HOOK = Webhook(
    webhook_id="wh_1",
    url="https://hooks.example/in",
    name="",
    filter=EventFilter(),
    enabled=True,
    secret=b"s" * 32,
    created_at=NOW,
    updated_at=NOW,
)


async def readdressed(store: Store, slug: Slug, to: Slug, *aliases: Slug, version: int) -> None:
    outcome = await store.readdress(slug, to=to, aliases=aliases, expected_version=version, now=LATER)
    assert isinstance(outcome, Changed)


async def taken_over(store: Store, slug: Slug, fields: LinkFields = FIELDS) -> None:
    later = NOW + timedelta(days=40)
    answer = await store.add([NewLink(slug=slug, fields=fields)], now=later, removed_before=later)
    assert isinstance(answer, Added)
    assert answer.links[0] is not None


async def told(store: Store) -> list[tuple[str, str, int, tuple[Slug, ...]]]:
    return [(one.kind, one.link.slug, one.link.version, one.link.aliases) for one in await events(store)]


def clicks(n: int, **counts: int) -> ClicksCounted:
    return ClicksCounted(f"{n:032x}", HOUR, {Slug(slug): count for slug, count in counts.items()})


def visits(n: int, slug: Slug, browser: str, *visitors: int, hours: int = 0) -> VisitsDescribed:
    looks = LinkVisits({Dimension.BROWSER: {browser: 1}}, visitors)
    return VisitsDescribed(f"{n:032x}", HOUR + timedelta(hours=hours), {slug: looks})


# --- events ------------------------------------------------------------------------------


async def test_other_slugs_are_changes_of_the_link_and_an_alias_has_no_events(store: Store) -> None:
    """Each event shows the slugs that the link had by then."""
    await added(store, A)
    await readdressed(store, A, A, B, version=1)
    await readdressed(store, A, D, B, A, version=2)
    await readdressed(store, D, D, version=3)
    await store.remove(D, expected_version=None, now=LATER)

    assert await told(store) == [
        ("link.created", A, 1, ()),
        ("link.changed", A, 2, (B,)),
        ("link.changed", D, 3, (B, A)),
        ("link.changed", D, 4, ()),
        ("link.removed", D, 5, ()),
    ]


async def test_link_that_comes_with_aliases_is_one_event(store: Store) -> None:
    answer = await store.add([NewLink(slug=A, fields=FIELDS, aliases=(B, C))], now=NOW)
    assert isinstance(answer, Added)

    assert await told(store) == [("link.created", A, 1, (B, C))]


async def test_first_visit_by_an_alias_is_that_of_the_link(store: Store) -> None:
    await added(store, A)
    await readdressed(store, A, A, B, version=1)

    await store.add_clicks(clicks(1, bbb=2, aaa=1), now=NOW)
    await readdressed(store, A, C, A, B, version=2)
    await store.add_clicks(clicks(2, bbb=3), now=NOW)

    kinds = [kind for kind, *_ in await told(store)]
    assert kinds == ["link.created", "link.changed", "link.first_visit", "link.changed"]


async def test_expiry_follows_the_slug(store: Store) -> None:
    soon = NOW + timedelta(days=365)
    await added(store, A, fields=replace(FIELDS, expires_at=soon))
    await readdressed(store, A, B, A, version=1)

    while await store.expire_links(now=soon, limit=10):
        pass

    assert (await told(store))[2:] == [("link.expired", B, 2, (A,))]


async def test_limit_that_an_alias_reaches_is_that_of_the_link(store: Store) -> None:
    await added(store, A, fields=METERED)
    await readdressed(store, A, A, B, version=1)

    while await store.lease_quota(B):
        pass

    assert (await told(store))[2:] == [("link.limit_reached", A, 2, (B,))]


async def test_link_that_took_a_slug_over_has_no_earlier_events(store: Store) -> None:
    await added(store, A)
    await readdressed(store, A, C, A, B, version=1)
    await store.remove(C, expected_version=None, now=NOW)
    assert len(await told(store)) == 3

    await taken_over(store, C)

    assert await told(store) == [("link.created", C, 4, ())]


async def test_deliveries_keep_their_order_through_a_rename(store: Store) -> None:
    assert await store.add_webhook(HOOK, most=9)
    await added(store, A)
    await plan_rest(store, "wh_1")
    await readdressed(store, A, B, version=1)
    await plan_rest(store, "wh_1")
    first, *none = await taken(store)
    assert not none
    assert await taken(store) == []

    await store.note_attempts("wh_1", {first: outcome(DeliveryState.DELIVERED)})
    second, *none = await taken(store)

    assert (second > first, none) == (True, [])


async def test_events_of_both_slugs_are_delivered_one_after_the_other(store: Store) -> None:
    assert await store.add_webhook(HOOK, most=9)
    await added(store, A, D)
    await readdressed(store, A, B, A, version=1)
    await plan_rest(store, "wh_1")

    due = await store.take_deliveries("wh_1", limit=9, lease=timedelta(seconds=30), now=NOW)

    shown = {(one.event.link.slug, one.event.link.version) for one in due if one.event is not None}
    assert shown == {(A, 1), (D, 1)}


# --- visits ------------------------------------------------------------------------------


async def sketched(store: Store, slug: Slug) -> set[bytes]:
    day = HOUR.date()
    sketches = await store.visitor_sketches(slug, first=day, last=day + timedelta(days=99))
    return {one for sketch in sketches for one in sketch.split()}


async def test_visits_by_every_slug_are_those_of_the_link(store: Store) -> None:
    await added(store, A, D)
    await readdressed(store, A, A, B, C, version=1)
    await add_visits(store, visits(1, A, "Firefox", 1))
    await add_visits(store, visits(2, B, "Firefox", 2))
    await add_visits(store, visits(3, D, "Edge", 3))

    assert await values(store, A) == [(Dimension.BROWSER, "Firefox", 2)]
    assert await sketched(store, A) == {b"1", b"2"}
    await readdressed(store, A, C, version=2)
    await add_visits(store, visits(4, C, "Safari", 4))

    assert await values(store, C) == [(Dimension.BROWSER, "Firefox", 2), (Dimension.BROWSER, "Safari", 1)]
    assert await sketched(store, C) == {b"1", b"2", b"4"}


async def test_link_that_took_a_slug_over_has_no_earlier_visits(store: Store) -> None:
    await added(store, A)
    await add_visits(store, visits(1, A, "Firefox", 1))
    await store.remove(A, expected_version=None, now=NOW)
    await taken_over(store, A)
    await add_visits(store, visits(2, A, "Edge", 2, hours=40 * 24))

    whole = {"since": HOUR - timedelta(days=1), "until": HOUR + timedelta(days=99)}
    found = await store.visit_values(A, **whole, limit=9)

    assert [(one.value, one.visits) for one in found] == [("Edge", 1)]
    assert await sketched(store, A) == {b"2"}


async def test_visits_of_a_link_without_analytics_are_not_described(store: Store) -> None:
    await added(store, A, D)
    await readdressed(store, A, A, B, version=1)
    await readdressed(store, A, C, A, version=2)
    changed = await store.update(C, replace(FIELDS, analytics=False), expected_version=3, now=NOW)
    assert isinstance(changed, Changed)

    for n, slug in enumerate((A, B, C, D)):
        await add_visits(store, visits(n, slug, "Firefox", n))

    assert await values(store, C) == []
    assert await sketched(store, C) == set()
    assert await values(store, ALL_LINKS) == await values(store, D) == [(Dimension.BROWSER, "Firefox", 1)]
    assert await sketched(store, ALL_LINKS) == {b"3"}


# --- quotas and owners -------------------------------------------------------------------


async def test_what_an_alias_has_left_is_what_its_link_has(store: Store) -> None:
    await added(store, A, fields=METERED)
    await readdressed(store, A, A, B, version=1)
    leased = await store.lease_quota(B)
    assert leased is not None

    assert await store.quota_left(B) == await store.quota_left(A) == 8 - leased


async def test_batch_finds_the_owner_of_an_alias(store: Store) -> None:
    """Also after the link was handed over."""
    with acting_as("key-1"):
        await added(store, A)
    await readdressed(store, A, A, B, version=1)
    await store.update(A, FIELDS, expected_version=2, now=LATER, owner="key-2")
    seen: list[tuple[str, str | None, str | None]] = []

    def plan(found: Found) -> Batch:
        seen.extend((link.slug, link.alias_of, link.owner) for link in found.links.values())
        return Batch()

    await store.write_batch(Wanted(slugs=[A, B], locks=True), plan, now=LATER)

    assert sorted(seen) == [(A, None, "key-2"), (B, A, "key-2")]


async def test_link_with_aliases_is_owned_by_the_key_that_makes_it(store: Store) -> None:
    with acting_as("key-1"):
        answer = await store.add([NewLink(slug=A, fields=FIELDS, aliases=(B,))], now=NOW)

    assert isinstance(answer, Added)
    found = await store.get(B)
    assert found is not None
    assert (answer.links[0], found.owner) == (found, "key-1")
