"""`Store.write_batch` and external ids: one suite for every adapter."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from app.domain.link import Link, LinkFields, Slug
from app.ports import (
    Added,
    Answered,
    Batch,
    Changed,
    ExternalIdTaken,
    Found,
    RequestMismatch,
    Reusable,
    Store,
    Wanted,
)
from tests.contract.store_database import Database
from tests.contract.store_links import FIELDS, FULL, LATER, NOW, REQUEST, added, changes, new


def link(slug: str, fields: LinkFields = FIELDS, version: int = 1) -> Link:
    return Link(slug=Slug(slug), fields=fields, version=version, created_at=NOW, updated_at=NOW)


def named(external_id: str) -> LinkFields:
    return replace(FIELDS, external_id=external_id)


async def test_batch_is_stored_exactly_with_an_event_each(store: Store, database: Database) -> None:
    [kept] = await added(store, "kept")
    edited = replace(kept, fields=FULL, version=2, updated_at=LATER)
    batch = Batch(added=[link("one"), link("two", version=3)], changed=[(edited, 1)])

    outcome = await store.write_batch(Wanted(slugs=[kept.slug], locks=True), lambda _found: batch, now=NOW)

    assert isinstance(outcome, list)
    assert {change.link.slug: change.event.change.version for change in outcome} == {
        "one": 1,
        "two": 3,
        "kept": 2,
    }
    found = await store.get_many([Slug("one"), Slug("two"), Slug("kept")])
    assert found == {"one": link("one"), "two": link("two", version=3), "kept": edited}
    assert await changes(store, database) == Counter([("kept", 1), ("one", 1), ("two", 3), ("kept", 2)])


async def test_new_links_of_a_batch_differ_in_anything(store: Store) -> None:
    """Whatever they have in common, and whatever one of them alone has."""
    alike = [link("full", FULL), link("also", replace(FULL, external_id="another"))]
    for links in (alike, [link("plain"), link("odd", replace(FULL, external_id="third"), version=4)]):
        await store.write_batch(Wanted(), lambda _found, links=links: Batch(added=links), now=NOW)  # type: ignore[misc]

        assert await store.get_many([one.slug for one in links]) == {one.slug: one for one in links}


async def test_batch_that_decides_for_nothing_writes_nothing(store: Store) -> None:
    nothing = await store.write_batch(Wanted(), lambda _found: None, now=NOW, request=REQUEST)

    stored = await store.write_batch(Wanted(), lambda _: Batch(added=[link("a")]), now=NOW, request=REQUEST)

    assert nothing == ()
    assert isinstance(stored, list)
    assert [change.link.slug for change in stored] == ["a"]


async def test_batch_sees_what_is_wanted(store: Store) -> None:
    await added(store, "plain", "plain-too")
    await added(store, "named", fields=named("x"))
    await added(store, "gone", fields=named("y"))
    await store.remove(Slug("gone"), expected_version=None, now=NOW)
    seen: list[Found] = []
    wanted = Wanted(
        slugs=[Slug("gone"), Slug("absent")],
        external_ids=["x", "y", "z"],
        reusable=[Reusable(FIELDS), Reusable(replace(FIELDS, title="other"))],
    )

    for locks in (False, True):
        await store.write_batch(replace(wanted, locks=locks), seen.append, now=NOW)

    for found in seen:
        assert found.links.keys() == {"gone", "named"}
        assert {one: link.slug for one, link in found.external_ids.items()} == {"x": "named"}
        assert {asked: link.slug for asked, link in found.reusable.items()} == {Reusable(FIELDS): "plain"}


@pytest.mark.parametrize(
    "restricted",
    [
        {"enabled": False},
        {"valid_from": NOW},
        {"expires_at": LATER},
        {"max_visits": 1},
        {"external_id": "x"},
        {"title": "other"},
        {"tags": ("other",)},
        {"redirect_code": 301},
        {"forward_query": True},
        {"override_query": True},
        {"analytics": False},
        {"long_url": "https://example.com/other"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_restricted_or_other_links_are_not_reusable(store: Store, restricted: dict[str, Any]) -> None:
    await added(store, "other", fields=replace(FIELDS, **restricted))
    seen: list[Found] = []

    await store.write_batch(Wanted(reusable=[Reusable(FIELDS)]), seen.append, now=NOW)

    assert seen == [Found()]


async def test_same_request_is_answered_with_its_first_answer(store: Store) -> None:
    batch = Batch(added=[link("once")], answer=b"\x00answer")
    await store.write_batch(Wanted(), lambda _: batch, now=NOW, request=REQUEST)

    again = await store.write_batch(Wanted(), lambda _: batch, now=LATER, request=REQUEST)
    other = replace(REQUEST, fingerprint=b"other")
    mismatch = await store.write_batch(Wanted(), lambda _: batch, now=LATER, request=other)

    assert again == Answered(b"\x00answer")
    assert mismatch == RequestMismatch()


async def test_concurrent_equal_requests_store_once(store: Store) -> None:
    async def send(number: int) -> object:
        batch = Batch(added=[link(f"slug-{number}")], answer=b"%d" % number)
        return await store.write_batch(Wanted(), lambda _: batch, now=NOW, request=REQUEST)

    outcomes = await asyncio.gather(*map(send, range(8)))

    answered = [one for one in outcomes if isinstance(one, Answered)]
    assert len(answered) == 7
    assert len(set(map(repr, answered))) == 1
    stored = await store.get_many([Slug(f"slug-{number}") for number in range(8)])
    assert len(stored) == 1


async def test_key_of_a_single_create_is_another_request(store: Store) -> None:
    await store.add(new("single"), now=NOW, request=REQUEST)

    outcome = await store.write_batch(Wanted(), lambda _: Batch(added=[link("b")]), now=NOW, request=REQUEST)

    assert outcome == RequestMismatch()


async def test_taken_slug_makes_the_batch_decide_again(store: Store) -> None:
    """A slug may be taken after the batch has read, or be drawn twice."""
    await added(store, "taken")
    slugs = iter(["taken", "free"])

    outcome = await store.write_batch(Wanted(), lambda _: Batch(added=[link(next(slugs))]), now=NOW)

    assert isinstance(outcome, list)
    assert [change.link.slug for change in outcome] == ["free"]


async def test_concurrent_batches_for_one_reusable_link_make_one(store: Store) -> None:
    async def find_or_make(number: int) -> None:
        def decide(found: Found) -> Batch:
            return Batch(added=[] if found.reusable else [link(f"slug-{number}")])

        await store.write_batch(Wanted(reusable=[Reusable(FIELDS)]), decide, now=NOW)

    await asyncio.gather(*map(find_or_make, range(8)))

    stored = await store.get_many([Slug(f"slug-{number}") for number in range(8)])
    assert len(stored) == 1


async def test_concurrent_batches_lock_their_links(store: Store) -> None:
    """Each sees what the others have done, whatever the order in which they name the links."""
    slugs = [one.slug for one in await added(store, "a", "b", "c")]

    async def title(number: int) -> None:
        def decide(found: Found) -> Batch:
            edits = [
                (
                    replace(
                        one, fields=replace(one.fields, title=one.fields.title + "x"), version=one.version + 1
                    ),
                    one.version,
                )
                for one in found.links.values()
            ]
            return Batch(changed=edits)

        wanted = slugs if number % 2 else slugs[::-1]
        await store.write_batch(Wanted(slugs=wanted, locks=True), decide, now=NOW)

    await asyncio.gather(*map(title, range(8)))

    found = await store.get_many(slugs)
    assert {(one.fields.title, one.version) for one in found.values()} == {("x" * 8, 9)}


async def test_external_id_is_given_once(store: Store) -> None:
    await added(store, "first", fields=named("x"))

    answer = await store.add(new("second", fields=named("x")) + new("third"), now=NOW)
    twice = await store.add(new("fourth", "fifth", fields=named("y")), now=NOW)
    whole = await store.add(new("sixth", fields=named("x")), now=NOW, request=REQUEST)

    assert isinstance(answer, Added)
    assert [one and one.slug for one in answer.links] == [None, "third"]
    assert isinstance(twice, Added)
    assert [one is None for one in twice.links].count(True) == 1
    [stored] = [one for one in twice.links if one is not None]
    assert whole == Added((None,), ())
    assert {one: held.slug for one, held in (await store.find_external(["x", "y", "z"])).items()} == {
        "x": "first",
        "y": stored.slug,
    }


async def test_edit_to_a_taken_external_id_names_its_link(store: Store) -> None:
    [holder] = await added(store, "holder", fields=named("x"))
    await added(store, "other")

    outcome = await store.update(Slug("other"), named("x"), expected_version=1, now=NOW)
    own = await store.update(holder.slug, replace(named("x"), title="t"), expected_version=1, now=NOW)

    assert outcome == ExternalIdTaken(holder)
    assert isinstance(own, Changed)
    unchanged = await store.get(Slug("other"))
    assert unchanged is not None
    assert unchanged.version == 1


async def test_removed_link_frees_its_external_id(store: Store) -> None:
    await added(store, "old", fields=named("x"))
    await store.remove(Slug("old"), expected_version=None, now=NOW)

    await added(store, "new", fields=named("x"))

    assert (await store.find_external(["x"]))["x"].slug == "new"
