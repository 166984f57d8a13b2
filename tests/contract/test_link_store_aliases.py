"""Further, other and taken-over slugs of links: the contract of every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from app.concurrency.actors import acting_as
from app.domain.events import ClicksCounted
from app.domain.link import Link, LinkFields, NewLink, Resolution, Slug
from app.ports import (
    Added,
    AddressTaken,
    Changed,
    LinkState,
    Replayed,
    RequestMismatch,
    Store,
    VersionMismatch,
)
from tests.contract.store_database import Database
from tests.contract.store_links import FIELDS, LATER, NOW, REQUEST, added, changes, new

A, B, C, D = Slug("aaa"), Slug("bbb"), Slug("~1~ccc"), Slug("ddd")
METERED = replace(FIELDS, max_visits=80)
HOUR = NOW.replace(minute=0, second=0, microsecond=0)


async def readdressed(store: Store, slug: Slug, to: Slug, *aliases: Slug, version: int) -> Changed:
    outcome = await store.readdress(slug, to=to, aliases=aliases, expected_version=version, now=LATER)
    assert isinstance(outcome, Changed)
    return outcome


async def with_alias(store: Store, fields: LinkFields = FIELDS) -> Link:
    await added(store, A, fields=fields)
    return (await readdressed(store, A, A, B, C, version=1)).link


async def test_alias_is_another_slug_of_the_link(store: Store, database: Database) -> None:
    link = await with_alias(store)

    assert (link.slug, link.version, link.aliases) == (A, 2, (B, C))
    assert await store.get(B) == await store.get(A) == link
    assert await store.get_many([A, B, C, D]) == {A: link, B: link, C: link}
    assert await store.resolve([A, B, C]) == {one: Resolution.of(link, one) for one in (A, B, C)}
    assert await changes(store, database) == {(A, 1): 1, (A, 2): 1, (B, 2): 1, (C, 2): 1}


async def test_every_change_of_the_link_is_one_of_its_aliases(store: Store, database: Database) -> None:
    await with_alias(store)
    other = replace(FIELDS, long_url="https://other.example/")

    await store.update(A, other, expected_version=2, now=LATER)
    await store.touch([A])
    removed = await store.remove(A, expected_version=None, now=LATER)
    gone = await store.resolve([A, B])
    restored = await store.restore(A, LinkState(other, removed=False), expected_version=5, now=LATER)

    assert isinstance(removed, Changed)
    assert gone == {
        A: Resolution(A, 5, epoch=removed.link.epoch),
        B: Resolution(B, 5, epoch=removed.link.epoch),
    }
    assert isinstance(restored, Changed)
    assert restored.link.aliases == (B, C)
    assert (await store.resolve([B]))[B].long_url == "https://other.example/"
    counted = await changes(store, database)
    assert {(B, version) for version in range(2, 7)} <= counted.keys()
    assert set(counted.values()) == {1}


async def test_alias_is_no_link_of_its_own(store: Store) -> None:
    await with_alias(store, replace(FIELDS, external_id="one"))

    assert [link.slug for link in (await store.page(after=None, limit=10)).links] == [A]
    assert [link.slug for link, _ in (await store.export_page(after=None, limit=10)).links] == [A]
    assert await store.update(B, FIELDS, expected_version=2, now=LATER) is None
    assert await store.remove(B, expected_version=None, now=LATER) is None
    assert await store.restore(B, LinkState(FIELDS, removed=False), expected_version=2, now=LATER) is None
    assert await store.readdress(B, to=D, aliases=(), expected_version=2, now=LATER) is None


async def test_taken_slugs_are_no_aliases(store: Store) -> None:
    await with_alias(store)
    await added(store, D)
    await store.remove(D, expected_version=None, now=LATER)
    [other] = await added(store, "other")

    for to, alias in ((other.slug, A), (other.slug, B), (other.slug, D), (B, None), (A, None), (D, None)):
        aliases = () if alias is None else (alias,)
        taken = await store.readdress(other.slug, to=to, aliases=aliases, expected_version=1, now=LATER)
        assert taken == AddressTaken(alias or to)
    assert await store.get(other.slug) == other
    answer = await store.add(new(B, C), now=LATER)
    assert isinstance(answer, Added)
    assert answer.links == (None, None)


async def test_removed_alias_is_gone_and_stays_that_of_the_link(store: Store, database: Database) -> None:
    link = await with_alias(store)
    await changes(store, database)

    outcome = await readdressed(store, A, A, C, version=2)
    gone = await store.resolve([B])

    assert (outcome.link.aliases, outcome.ended) == ((C,), (B,))
    assert gone == {B: Resolution(B, 3, epoch=link.epoch)}
    assert (await changes(store, database))[B, 3] == 1
    [other] = await added(store, "other")
    assert await store.readdress(
        other.slug, to=other.slug, aliases=(B,), expected_version=1, now=LATER
    ) == AddressTaken(B)
    assert (await readdressed(store, A, A, C, B, version=3)).link.aliases == (C, B)
    assert (await store.resolve([B]))[B].long_url == FIELDS.long_url


async def test_rename_keeps_everything(store: Store, database: Database) -> None:
    await with_alias(store, METERED)
    await store.add_clicks(ClicksCounted("1" * 32, HOUR, {A: 3, B: 4}), now=NOW)
    assert await store.lease_quota(A) == 10
    await changes(store, database)

    outcome = await readdressed(store, A, D, B, A, version=2)
    await store.add_clicks(ClicksCounted("2" * 32, HOUR, {A: 1, B: 1, D: 1}), now=NOW)
    await store.return_quota(A, 5, 1)
    link = await store.get(D)

    assert outcome.ended == (C,)
    assert link is not None
    assert (link.slug, link.aliases, link.version, link.visits) == (D, (B, A), 3, 10)
    assert await store.hourly_clicks(D, since=HOUR, until=HOUR + timedelta(hours=1)) == {HOUR: 10}
    assert (await store.resolve([A]))[A] == Resolution.of(link, A)
    assert (await store.resolve([A]))[A].spends == D
    written = await changes(store, database)
    assert {one: count for one, count in written.items() if one[1] == 3} == {
        (one, 3): 1 for one in (A, B, C, D)
    }
    # Of 80 visits 10 were leased and 5 came back; all its slugs share the rest.
    leased = 5
    while taken := await store.lease_quota((A, B, D)[leased % 3]):
        leased += taken
    assert leased == 80


async def test_former_slug_of_a_renamed_link_is_gone_unless_it_is_kept(store: Store) -> None:
    [link] = await added(store, A)

    outcome = await readdressed(store, A, B, version=1)
    back = await readdressed(store, B, A, B, version=2)

    assert outcome.ended == (A,)
    assert (back.link.slug, back.link.aliases, back.link.version) == (A, (B,), 3)
    assert (await store.page(after=None, limit=9)).links == (back.link,)
    assert back.link.created_at == link.created_at


async def test_alias_becomes_the_slug(store: Store) -> None:
    await with_alias(store)

    link = (await readdressed(store, A, B, C, A, version=2)).link

    assert (link.slug, link.aliases) == (B, (C, A))
    assert await store.get_many([A, B, C]) == dict.fromkeys((A, B, C), link)


async def test_version_is_compared(store: Store) -> None:
    [link] = await added(store, A)

    assert await store.readdress(A, to=B, aliases=(), expected_version=2, now=NOW) == VersionMismatch(link)
    assert await store.readdress(D, to=B, aliases=(), expected_version=1, now=NOW) is None
    await store.remove(A, expected_version=None, now=NOW)
    assert await store.readdress(A, to=B, aliases=(), expected_version=2, now=NOW) is None


async def test_one_of_several_renames_wins(store: Store) -> None:
    await added(store, *(f"one-{number}" for number in range(6)))

    outcomes = await asyncio.gather(
        *(
            store.readdress(Slug(f"one-{number}"), to=D, aliases=(), expected_version=1, now=LATER)
            for number in range(6)
        )
    )

    assert sum(isinstance(outcome, Changed) for outcome in outcomes) == 1
    assert [one for one in outcomes if not isinstance(one, Changed)] == [AddressTaken(D)] * 5


async def test_rename_and_create_of_one_slug(store: Store) -> None:
    """Whichever is first. Both take what the other one takes in the same order, without a deadlock."""
    for number in range(12):
        old, wanted = Slug(f"old-{number}"), Slug(f"wanted-{number}")
        await added(store, old)

        renamed, created = await asyncio.gather(
            store.readdress(old, to=wanted, aliases=(old,), expected_version=1, now=LATER),
            store.add(new(wanted), now=LATER),
        )

        assert isinstance(created, Added)
        assert isinstance(renamed, Changed) == (created.links == (None,))


async def test_request_is_served_once(store: Store) -> None:
    await added(store, A)
    ask = {"to": B, "aliases": (A,), "expected_version": 1, "now": LATER, "request": REQUEST}

    first = await store.readdress(A, **ask)  # type: ignore[arg-type]
    assert isinstance(first, Changed)
    await readdressed(store, B, D, version=2)
    again = await store.readdress(A, **ask)  # type: ignore[arg-type]
    other = await store.readdress(A, **{**ask, "request": replace(REQUEST, fingerprint=b"x")})  # type: ignore[arg-type]

    assert isinstance(again, Replayed)
    assert [link.slug for link in again.links] == [D]
    assert other == RequestMismatch()


async def test_refused_request_is_not_recorded(store: Store) -> None:
    await added(store, A, B)

    taken = await store.readdress(A, to=B, aliases=(), expected_version=1, now=NOW, request=REQUEST)
    done = await store.readdress(A, to=D, aliases=(), expected_version=1, now=NOW, request=REQUEST)

    assert taken == AddressTaken(B)
    assert isinstance(done, Changed)


async def test_history_goes_on_and_shows_the_slugs(store: Store) -> None:
    await added(store, A)
    with acting_as("key-a"):
        await readdressed(store, A, B, A, version=1)
    await store.update(B, replace(FIELDS, title="new"), expected_version=2, now=LATER)
    undone = await store.readdress(B, to=A, aliases=(), expected_version=3, now=LATER, is_undo=True)
    assert isinstance(undone, Changed)

    found = await store.history(A, before=None, limit=9)
    by_alias = await store.history(B, before=None, limit=9)

    assert found is not None
    assert by_alias is not None
    assert [(c.version, c.is_undo, c.before.slug, c.after.slug) for c in found.changes] == [
        (4, True, B, A),
        (3, False, B, B),
        (2, False, A, B),
    ]
    assert [(c.before.aliases, c.after.aliases) for c in found.changes] == [
        ((A,), ()),
        ((A,), (A,)),
        ((), (A,)),
    ]
    assert found.changes[-1].by == "key-a"


async def test_link_comes_with_aliases(store: Store, database: Database) -> None:
    one = NewLink(slug=A, fields=FIELDS, aliases=(B, C))

    answer = await store.add([one], now=NOW, request=REQUEST)
    again = await store.add([one], now=NOW, request=REQUEST)

    assert isinstance(answer, Added)
    assert isinstance(again, Replayed)
    assert again.links == answer.links == (await store.get(C),)
    assert answer.links[0] is not None
    assert (answer.links[0].version, answer.links[0].aliases) == (1, (B, C))
    assert await changes(store, database) == {(A, 1): 1, (B, 1): 1, (C, 1): 1}
    found = await store.history(A, before=None, limit=9)
    assert found is not None
    assert found.changes == ()


async def test_link_with_a_taken_alias_is_not_stored(store: Store, database: Database) -> None:
    await added(store, D)

    answer = await store.add([NewLink(slug=A, fields=FIELDS, aliases=(B, D))], now=NOW, request=REQUEST)

    assert answer == Added((None,), ())
    assert await store.get_many([A, B]) == {}
    assert await changes(store, database) == {(D, 1): 1}


# --- slugs of removed links ------------------------------------------------------------


async def taken_over(store: Store, slug: Slug, fields: LinkFields = FIELDS) -> Link:
    one = NewLink(slug=slug, fields=fields)
    answer = await store.add([one], now=LATER, removed_before=LATER)
    assert isinstance(answer, Added)
    [link] = answer.links
    assert link is not None
    return link


@pytest.mark.parametrize("before", [NOW, NOW - timedelta(days=1)])
async def test_slug_is_taken_until_its_time_is_over(store: Store, before: object) -> None:
    await added(store, A)
    await added(store, B)
    await store.remove(A, expected_version=None, now=NOW)

    for slug in (A, B):
        one = NewLink(slug=slug, fields=FIELDS)
        answer = await store.add([one], now=LATER, removed_before=before)  # type: ignore[arg-type]
        assert answer == Added((None,), ())


async def test_new_link_goes_on_with_the_version_and_nothing_else(store: Store, database: Database) -> None:
    await added(store, A, fields=METERED)
    await readdressed(store, A, A, B, version=1)
    await store.add_clicks(ClicksCounted("1" * 32, HOUR, {A: 3}), now=NOW)
    assert await store.lease_quota(A) == 10
    await store.remove(A, expected_version=None, now=NOW)

    link = await taken_over(store, A, METERED)
    await store.return_quota(A, 5, 2)
    await store.add_clicks(
        ClicksCounted("2" * 32, HOUR - timedelta(hours=1), {A: 7}), now=NOW
    )  # of the removed link
    await store.add_clicks(ClicksCounted("3" * 32, HOUR, {A: 1}), now=NOW)

    assert (link.version, link.visits, link.aliases) == (4, 0, ())
    assert (await changes(store, database))[A, 4] == 1
    found = await store.history(A, before=None, limit=9)
    assert found is not None
    assert found.changes == ()
    assert found.link.visits == 1
    assert await store.hourly_clicks(A, since=HOUR - timedelta(days=1), until=HOUR + timedelta(hours=1)) == {
        HOUR: 1
    }
    gone = await store.get(B)
    assert gone is not None
    assert (gone.slug, gone.removed_at is not None) == (B, True)
    leased = 0
    while taken := await store.lease_quota(A):
        leased += taken
    assert leased == 80


async def test_leases_of_the_new_link_come_back(store: Store) -> None:
    await added(store, A, fields=METERED)
    await store.remove(A, expected_version=None, now=NOW)
    link = await taken_over(store, A, METERED)

    taken = await store.lease_quota(A)
    assert taken == 10
    await store.return_quota(A, 10, link.version)

    assert await store.lease_quota(A) == 10


async def test_one_of_several_takes_a_slug_over(store: Store) -> None:
    await added(store, A)
    await store.remove(A, expected_version=None, now=NOW)

    one = NewLink(slug=A, fields=FIELDS)
    answers = await asyncio.gather(*(store.add([one], now=LATER, removed_before=LATER) for _ in range(5)))

    stored = [answer for answer in answers if isinstance(answer, Added) and answer.links[0] is not None]
    assert len(stored) == 1


async def test_alias_is_not_taken_over(store: Store) -> None:
    await with_alias(store)
    await store.remove(A, expected_version=None, now=NOW)

    answer = await store.add([NewLink(slug=B, fields=FIELDS)], now=LATER, removed_before=LATER)

    assert answer == Added((None,), ())
