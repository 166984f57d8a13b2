"""Owners of links, and what is listed and changed within a reach: one suite for every adapter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.concurrency.actors import acting_as
from app.domain.link import Slug
from app.domain.link_key import key_of
from app.domain.reach import EVERYTHING, Reach
from app.ports import Batch, Changed, Found, LinkQuery, LinkSort, Reusable, Store, TagCount, Wanted
from tests.contract.store_database import Database
from tests.contract.store_links import FIELDS, LATER, NOW, added

TAGGED = replace(FIELDS, tags=("red",))
FIRST = Slug("first")


async def owner(store: Store, slug: str) -> str | None:
    found = await store.get(Slug(slug))
    assert found is not None
    return found.owner


async def listed(store: Store, query: LinkQuery) -> list[str]:
    """Return every page of *query*, of one link each; the count agrees."""
    found: list[str] = []
    after = None
    while True:
        page = await store.find(query, after=after, limit=1, now=NOW)
        found += [link.slug for link in page.links]
        after = page.next_after
        if after is None:
            break
    assert await store.count(query, now=NOW, limit_s=60) == len(found)
    return found


@pytest.fixture
async def owned(store: Store) -> Store:
    """Two links of the key a, one of the key b, one of the command line, one of an unknown actor."""
    for name, slugs in (("a", ["a1", "a2"]), ("b", ["b1"]), ("cli", ["c1"])):
        with acting_as(name):
            assert [link.owner for link in await added(store, *slugs, fields=TAGGED)] == [
                None if name == "cli" else name
            ] * len(slugs)
    await added(store, "u1", fields=TAGGED)
    return store


async def test_link_belongs_to_the_key_that_made_it(owned: Store):
    assert [await owner(owned, slug) for slug in ("a1", "b1", "c1", "u1")] == ["a", "b", None, None]


async def test_link_is_handed_over(owned: Store):
    for version, new, expected in ((1, "b", "b"), (2, None, "b"), (3, "", None), (4, "a", "a")):
        outcome = await owned.update(Slug("a1"), TAGGED, expected_version=version, now=LATER, owner=new)
        assert isinstance(outcome, Changed)
        assert outcome.link.owner == expected
        assert await owner(owned, "a1") == expected
    history = await owned.history(Slug("a1"), before=None, limit=10)
    assert history is not None
    assert (history.created_by, history.changes) == ("a", ())


async def test_links_of_an_earlier_release_belong_to_their_makers(owned: Store, database: Database):
    database.execute("UPDATE links SET owner = NULL")

    assert [await owner(owned, slug) for slug in ("a1", "b1", "c1", "u1")] == ["a", "b", None, None]
    assert await listed(owned, LinkQuery(owner="a")) == ["a2", "a1"]


@pytest.mark.parametrize("sort", [LinkSort.STORED, LinkSort.SLUG, LinkSort.CREATED, LinkSort.TITLE])
async def test_listings_by_owner(owned: Store, sort: LinkSort):
    for name, expected in (("a", ["a2", "a1"]), ("b", ["b1"]), ("", ["u1", "c1"]), ("cli", []), ("x", [])):
        assert await listed(owned, LinkQuery(owner=name, sort=sort)) == expected
        assert await listed(owned, LinkQuery(owner=name, sort=sort, tags_any=("red",))) == expected


async def test_listings_of_several_domains(store: Store):
    keys = [key_of(number, "same") for number in range(4)]
    with acting_as("a"):
        await added(store, *keys, fields=TAGGED)

    assert await listed(store, LinkQuery(domains=(0, 2))) == [keys[2], keys[0]]
    assert await listed(store, LinkQuery(domains=(1, 2, 3), domain=3)) == [keys[3]]
    assert await listed(store, LinkQuery(domains=(2,), owner="a")) == [keys[2]]
    assert await listed(store, LinkQuery(domains=(2,), owner="b")) == []


async def test_removed_links_are_not_listed_by_owner(owned: Store):
    await owned.remove(Slug("a1"), expected_version=None, now=LATER)

    assert await listed(owned, LinkQuery(owner="a")) == ["a2"]


async def test_tags_within_a_reach(owned: Store):
    async def counted(reach: Reach) -> list[TagCount]:
        return list(await owned.tags(after=None, limit=10, reach=reach))

    await added(owned, key_of(1, "d1"), fields=TAGGED)

    assert await counted(EVERYTHING) == [TagCount("red", 6)]
    assert await counted(Reach(owner="a")) == [TagCount("red", 2)]
    assert await counted(Reach(domains=frozenset({1}))) == [TagCount("red", 1)]
    assert await counted(Reach(owner="a", domains=frozenset({1}))) == []
    assert list(await owned.tags(after="red", limit=10, reach=Reach(owner="a"))) == []


async def test_retagging_within_a_reach(owned: Store):
    reach = Reach(owner="a")

    first = await owned.retag("red", "blue", limit=1, now=LATER, reach=reach)
    second = await owned.retag("red", "blue", limit=5, now=LATER, reach=reach)
    third = await owned.retag("red", "blue", limit=5, now=LATER, reach=reach)

    assert [[one.link.slug for one in changed] for changed in (first, second, third)] == [["a1"], ["a2"], []]
    assert list(await owned.tags(after=None, limit=10)) == [TagCount("blue", 2), TagCount("red", 3)]


async def test_batches_keep_owners_and_hand_links_over(owned: Store):
    def decide(found: Found) -> Batch:
        one, other = found.links[Slug("a1")], found.links[Slug("c1")]
        return Batch(
            added=[replace(one, slug=FIRST, version=1, owner="b")],
            changed=[
                (replace(one, version=2), 1),
                (replace(other, version=2, owner="a"), 1),
            ],
        )

    with acting_as("b"):
        await owned.write_batch(Wanted(slugs=[Slug("a1"), Slug("c1")], locks=True), decide, now=NOW)

    assert [await owner(owned, slug) for slug in ("first", "a1", "c1")] == ["b", "a", "a"]


async def test_reusable_links_of_an_owner(owned: Store):
    asked = [Reusable(TAGGED), Reusable(TAGGED, owner="b"), Reusable(TAGGED, owner="x")]
    found: dict[Reusable, str] = {}

    def decide(known: Found) -> None:
        found.update({one: link.slug for one, link in known.reusable.items()})

    await owned.write_batch(Wanted(reusable=asked), decide, now=NOW)

    assert found == {asked[0]: "a1", asked[1]: "b1"}
