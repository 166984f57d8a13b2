"""
`Store`: one suite for every adapter.

Idempotent requests, outbox, clicks and visit quota have files of their own, as has each adapter.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import fields, replace
from datetime import timedelta

import pytest

from app.domain.errors import Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Link, LinkFields, NewLink, Resolution, Slug
from app.ports import Added, Changed, Store, VersionMismatch
from tests.contract.store_database import Database
from tests.contract.store_links import FIELDS, FULL, LATER, NOW, REQUEST, added, changes, new

# --- add -------------------------------------------------------------------------------


def test_full_fixture_sets_every_field() -> None:
    """A field at its default would survive every store that drops it."""
    assert [field.name for field in fields(LinkFields) if getattr(FULL, field.name) == field.default] == []


async def test_added_link_reads_back_exactly(store: Store) -> None:
    [link] = await added(store, "a-B_9", fields=FULL)

    found = await store.get(Slug("a-B_9"))

    assert link == Link(slug=Slug("a-B_9"), fields=FULL, version=1, created_at=NOW, updated_at=NOW)
    assert found == link
    assert found.fields.valid_from is not None
    assert found.fields.valid_from.utcoffset() == found.created_at.utcoffset() == timedelta(0)


async def test_slugs_are_case_sensitive(store: Store) -> None:
    await added(store, "abc", "ABC", "aBc")

    assert await store.get(Slug("Abc")) is None


async def test_missing_link_is_none(store: Store) -> None:
    assert await store.get(Slug("nope")) is None


async def test_taken_slug_is_skipped_others_are_stored(store: Store, database: Database) -> None:
    await added(store, "taken", fields=FULL)

    answer = await store.add(new("one", "taken", "two"), now=LATER)

    assert isinstance(answer, Added)
    assert [link and link.slug for link in answer.links] == ["one", None, "two"]
    assert [event.change for event in answer.events] == [
        LinkChanged(Slug("one"), 1),
        LinkChanged(Slug("two"), 1),
    ]
    kept = await store.get(Slug("taken"))
    assert kept is not None
    assert kept.fields == FULL
    assert await changes(store, database) == Counter([("taken", 1), ("one", 1), ("two", 1)])


async def test_removed_link_keeps_its_slug(store: Store) -> None:
    await added(store, "gone")
    await store.remove(Slug("gone"), expected_version=None, now=NOW)

    answer = await store.add(new("gone"), now=LATER)

    assert answer == Added((None,), ())


async def test_first_of_two_equal_slugs_wins(store: Store) -> None:
    answer = await store.add(new("twin", fields=FULL) + new("twin"), now=NOW)

    assert isinstance(answer, Added)
    assert answer.links[0] is not None
    assert answer.links[0].fields == FULL
    assert answer.links[1] is None
    assert len(answer.events) == 1
    assert await store.get(Slug("twin")) == answer.links[0]


async def test_first_of_many_equal_slugs_wins(store: Store) -> None:
    """The sort of PostgreSQL is stable only for up to six equal rows."""
    first = replace(FULL, external_id=None)
    for size in range(7, 40):
        others = [new(f"other-{size}-{number}")[0] for number in range(size - 2)]
        slug, half = f"twin-{size}", size // 2
        entries = [*others[:half], *new(slug, fields=first), *others[half:], *new(slug)]

        answer = await store.add(entries, now=NOW)

        assert isinstance(answer, Added)
        assert answer.links[-1] is None
        stored = await store.get(Slug(slug))
        assert stored is not None
        assert stored.fields == first


async def test_adding_nothing_is_no_error(store: Store) -> None:
    assert await store.add([], now=NOW) == Added((), ())
    assert await store.add([], now=NOW, request=REQUEST) == Added((), ())


async def test_invalid_link_fails_its_whole_call(store: Store) -> None:
    bad = new("bad", fields=replace(FIELDS, redirect_code=999))

    with pytest.raises(Exception, match=r"(?i)check constraint") as caught:
        await store.add(new("good") + bad, now=NOW)

    assert not isinstance(caught.value, Unavailable)
    assert await store.get(Slug("good")) is None
    assert (await store.outbox_depth()).rows == 0


async def test_invalid_link_fails_no_concurrent_call(store: Store) -> None:
    bad = store.add(new("bad", fields=replace(FIELDS, redirect_code=999)), now=NOW)
    good = [store.add(new(f"good-{n}"), now=NOW) for n in range(10)]

    answers = await asyncio.gather(*good[:5], bad, *good[5:], return_exceptions=True)

    assert sum(isinstance(answer, Added) for answer in answers) == 10
    assert len(await store.get_many([Slug(f"good-{n}") for n in range(10)])) == 10


async def test_one_of_a_hundred_claims_succeeds(store: Store, database: Database) -> None:
    claims = [store.add(new("prize", fields=replace(FIELDS, title=str(n))), now=NOW) for n in range(100)]

    answers = await asyncio.gather(*claims)

    [winner] = [answer.links[0] for answer in answers if isinstance(answer, Added) and answer.links[0]]
    assert await store.get(Slug("prize")) == winner
    assert await changes(store, database) == Counter([("prize", 1)])


async def test_bulk_adds_of_same_slugs_do_not_deadlock(store: Store, database: Database) -> None:
    slugs = [f"s{n:03}" for n in range(200)]

    answers = await asyncio.gather(
        *(store.add(new(*(slugs if n % 2 else reversed(slugs))), now=NOW) for n in range(8))
    )

    stored = Counter(
        link.slug for answer in answers if isinstance(answer, Added) for link in answer.links if link
    )
    assert stored == Counter(slugs)


# --- reading ---------------------------------------------------------------------------


async def test_get_many_includes_removed_links(store: Store) -> None:
    await added(store, *(f"s{n}" for n in range(1000)))
    await store.remove(Slug("s7"), expected_version=None, now=LATER)

    found = await store.get_many([Slug(f"s{n}") for n in range(1, 1000)] + [Slug("nope")])

    assert found.keys() == {f"s{n}" for n in range(1, 1000)}
    assert found[Slug("s7")].removed_at == LATER
    assert await store.get_many([]) == {}


async def test_resolve_equals_resolution_of_the_link(store: Store) -> None:
    """The store may read fewer columns; the outcome equals `Resolution.of`."""
    fields = {
        "plain": FIELDS,
        "timed": replace(FIELDS, valid_from=NOW, expires_at=LATER.replace(microsecond=123_457)),
        "metered": replace(FIELDS, max_visits=3, redirect_code=308, forward_query=True),
        "disabled": replace(FIELDS, enabled=False, redirect_code=301),
        "removed": replace(FIELDS, redirect_code=301, max_visits=1),
    }
    await store.add([NewLink(slug=Slug(slug), fields=f) for slug, f in fields.items()], now=NOW)
    await store.remove(Slug("removed"), expected_version=1, now=LATER)

    resolved = await store.resolve([*map(Slug, fields), Slug("nope")])

    links = await store.get_many([Slug(slug) for slug in fields])
    assert resolved == {slug: Resolution.of(link) for slug, link in links.items()}
    assert resolved.keys() == fields.keys()
    assert await store.resolve([]) == {}


async def test_pages_are_newest_first_and_end(store: Store) -> None:
    await added(store, "d", "b", "c", "a", "e")

    first = await store.page(after=None, limit=2)
    second = await store.page(after=first.next_after, limit=2)
    third = await store.page(after=second.next_after, limit=2)

    assert [[link.slug for link in page.links] for page in (first, second, third)] == [
        ["e", "a"],
        ["c", "b"],
        ["d"],
    ]
    assert third.next_after is None
    assert (await store.page(after=None, limit=5)).next_after is None


async def test_pages_skip_removed_links_and_are_stable(store: Store) -> None:
    await added(store, "a", "b", "c", "d")
    await store.remove(Slug("b"), expected_version=1, now=NOW)

    first = await store.page(after=None, limit=2)
    await added(store, "e", "f")
    second = await store.page(after=first.next_after, limit=2)

    assert [link.slug for link in first.links + second.links] == ["d", "c", "a"]


async def test_empty_listing_is_one_empty_page(store: Store) -> None:
    page = await store.page(after=None, limit=10)

    assert (page.links, page.next_after) == ((), None)


async def test_reads_see_writes_of_another_process(store: Store, database: Database) -> None:
    other = await database.open()
    for version in range(1, 20):
        if version == 1:
            await added(other, "slug")
        else:
            await other.touch([Slug("slug")])

        link = await store.get(Slug("slug"))

        assert link is not None
        assert link.version == version
    await other.aclose()


# --- changes ---------------------------------------------------------------------------


async def test_update_replaces_all_fields(store: Store, database: Database) -> None:
    [link] = await added(store, "slug")

    answer = await store.update(Slug("slug"), FULL, expected_version=1, now=LATER)

    assert isinstance(answer, Changed)
    assert answer.link == replace(link, fields=FULL, version=2, updated_at=LATER)
    assert answer.event.change == LinkChanged(Slug("slug"), 2)
    assert await store.get(Slug("slug")) == answer.link
    assert await changes(store, database) == Counter([("slug", 1), ("slug", 2)])


async def test_update_can_empty_the_fields(store: Store) -> None:
    await added(store, "slug", fields=FULL)

    await store.update(Slug("slug"), FIELDS, expected_version=1, now=LATER)

    link = await store.get(Slug("slug"))
    assert link is not None
    assert link.fields == FIELDS


async def test_removal_is_a_change(store: Store, database: Database) -> None:
    [link] = await added(store, "slug", fields=FULL)

    answer = await store.remove(Slug("slug"), expected_version=1, now=LATER)

    assert isinstance(answer, Changed)
    assert answer.link == replace(link, version=2, updated_at=LATER, removed_at=LATER)
    assert await store.get(Slug("slug")) == answer.link
    assert await changes(store, database) == Counter([("slug", 1), ("slug", 2)])


@pytest.mark.parametrize("expected_version", [0, 1, 3])
async def test_version_mismatch_changes_nothing(store: Store, expected_version: int) -> None:
    await added(store, "slug")
    [touched] = await store.touch([Slug("slug")])

    updated = await store.update(Slug("slug"), FULL, expected_version=expected_version, now=LATER)
    removed = await store.remove(Slug("slug"), expected_version=expected_version, now=LATER)

    assert updated == removed == VersionMismatch(touched.link)
    assert await store.get(Slug("slug")) == touched.link
    assert (await store.outbox_depth()).rows == 2


async def test_absent_and_removed_links_cannot_be_changed(store: Store) -> None:
    await added(store, "gone")
    await store.remove(Slug("gone"), expected_version=None, now=NOW)

    for slug in (Slug("gone"), Slug("absent")):
        for version in (1, 2):
            assert await store.update(slug, FULL, expected_version=version, now=LATER) is None
            assert await store.remove(slug, expected_version=version, now=LATER) is None
        assert await store.remove(slug, expected_version=None, now=LATER) is None
    assert (await store.outbox_depth()).rows == 2


async def test_touch_raises_versions_only(store: Store, database: Database) -> None:
    one, two = await added(store, "one", "two")
    gone = await store.remove(Slug("two"), expected_version=None, now=NOW)

    answers = await store.touch([Slug("two"), Slug("nope"), Slug("one"), Slug("two")])

    assert isinstance(gone, Changed)
    assert [answer.link for answer in answers] == [replace(gone.link, version=3), replace(one, version=2)]
    assert await store.get_many([one.slug, two.slug]) == {a.link.slug: a.link for a in answers}
    assert (await changes(store, database))["two", 3] == 1
    assert await store.touch([]) == []


async def test_one_of_concurrent_updates_succeeds(store: Store) -> None:
    await added(store, "slug")
    fields = [replace(FIELDS, title=str(n)) for n in range(20)]

    answers = await asyncio.gather(
        *(store.update(Slug("slug"), one, expected_version=1, now=LATER) for one in fields)
    )

    [winner] = [answer for answer in answers if isinstance(answer, Changed)]
    assert [answer for answer in answers if answer is not winner] == [VersionMismatch(winner.link)] * 19


async def test_each_concurrent_touch_raises_the_version(store: Store, database: Database) -> None:
    await added(store, "a", "b")
    orders = [[Slug("a"), Slug("b")], [Slug("b"), Slug("a")]]

    await asyncio.gather(*(store.touch(orders[n % 2]) for n in range(20)))

    assert await changes(store, database) == Counter((slug, n) for slug in "ab" for n in range(1, 22))


# --- the whole -------------------------------------------------------------------------


async def test_ping_answers(store: Store) -> None:
    await store.ping()


async def test_ping_names_remedy_for_old_schema(store: Store, database: Database) -> None:
    database.forget_schema()

    with pytest.raises(Unavailable, match="hopgate migrate"):
        await store.ping()


async def test_closed_store_is_unavailable(database: Database) -> None:
    store = await database.open()
    await store.aclose()
    await store.aclose()

    with pytest.raises(Unavailable):
        await store.get(Slug("slug"))
    with pytest.raises(Unavailable):
        await store.add(new("slug"), now=NOW)


async def test_cancelled_calls_are_atomic(store: Store, database: Database) -> None:
    calls = [asyncio.ensure_future(store.add(new(f"a{n}", f"b{n}"), now=NOW)) for n in range(60)]
    for n, call in enumerate(calls):
        if n % 3 == 0:
            await asyncio.sleep(0)
        if n % 2:
            call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await store.aclose()  # finishes pending calls

    other = await database.open()
    events = await changes(other, database)
    await other.aclose()
    stored = {slug for slug, _ in events}
    assert {f"{letter}{n}" for n in range(0, 60, 2) for letter in "ab"} <= stored
    assert all((f"a{n}" in stored) == (f"b{n}" in stored) for n in range(60))
