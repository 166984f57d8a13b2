"""`HistoryStore`: one suite for every adapter."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.concurrency.actors import acting_as
from app.domain.link import Link, LinkFields, Slug
from app.domain.link_key import key_of
from app.ports import (
    Batch,
    Changed,
    ExternalIdTaken,
    Found,
    ImportedLink,
    LinkHistory,
    LinkState,
    Store,
    VersionMismatch,
    Wanted,
)
from tests.contract.store_database import Database
from tests.contract.store_links import FIELDS, FULL, LATER, NOW, added, changes

SLUG = Slug("abc")
OTHER = replace(FIELDS, title="other")


async def past(store: Store, slug: str = SLUG, **asked: Any) -> LinkHistory:
    found = await store.history(Slug(slug), **{"before": None, "limit": 100, **asked})
    assert found is not None
    return found


async def updated(store: Store, wanted: LinkFields, version: int, at: datetime = LATER) -> Link:
    outcome = await store.update(SLUG, wanted, expected_version=version, now=at)
    assert isinstance(outcome, Changed)
    return outcome.link


async def restored(store: Store, state: LinkState, version: int) -> Link:
    outcome = await store.restore(SLUG, state, expected_version=version, now=LATER)
    assert isinstance(outcome, Changed)
    return outcome.link


async def test_absent_link_has_no_history(store: Store) -> None:
    assert await store.history(SLUG, before=None, limit=10) is None


async def test_new_link_has_no_change_and_remembers_its_maker(store: Store) -> None:
    with acting_as("key-1"):
        [link] = await added(store, SLUG)

    found = await past(store)

    assert (replace(found.link, epoch=0), found.created_by) == (replace(link, epoch=0), "key-1")
    assert (found.changes, found.next_before) == ((), None)


async def test_each_create_has_its_own_maker(store: Store) -> None:
    """Single creates of different keys share a statement."""

    async def create(number: int) -> None:
        with acting_as(f"key-{number}"):
            await added(store, f"s-{number}")

    await asyncio.gather(*(create(number) for number in range(20)), added(store, "unknown"))

    makers = {number: (await past(store, f"s-{number}")).created_by for number in range(20)}
    assert makers == {number: f"key-{number}" for number in range(20)}
    assert (await past(store, "unknown")).created_by is None


async def test_edit_leaves_what_it_replaced(store: Store) -> None:
    await added(store, SLUG, fields=FULL)

    with acting_as("key-1"):
        await updated(store, OTHER, 1)
    found = await past(store)

    [change] = found.changes
    assert (change.version, change.replaced, change.at, change.by) == (2, 1, LATER, "key-1")
    assert (change.before, change.after) == (
        LinkState(FULL, False, SLUG, ()),
        LinkState(OTHER, False, SLUG, ()),
    )
    assert not change.is_undo


@pytest.mark.parametrize("name", [field.name for field in fields(LinkFields)])
async def test_every_field_is_in_the_history(store: Store, name: str) -> None:
    await added(store, SLUG, fields=FULL)
    wanted = replace(FULL, **{name: getattr(LinkFields(long_url="https://example.com/b"), name)})

    await updated(store, wanted, 1)
    [change] = (await past(store)).changes

    assert (change.before.fields, change.after.fields) == (FULL, wanted)


async def test_edit_that_changes_no_field_leaves_nothing(store: Store) -> None:
    await added(store, SLUG, fields=FULL)

    link = await updated(store, FULL, 1)
    await store.touch([SLUG])
    await store.lease_quota(SLUG)
    await store.return_quota(SLUG, 1, 1)

    assert link.version == 2
    assert (await past(store)).changes == ()


async def test_removal_is_a_change_and_leaves_a_history(store: Store) -> None:
    await added(store, SLUG)

    with acting_as("cli"):
        await store.remove(SLUG, expected_version=None, now=LATER)
    found = await past(store)

    [change] = found.changes
    assert found.link.removed_at == LATER
    assert (change.version, change.by) == (2, "cli")
    assert (change.before, change.after) == (
        LinkState(FIELDS, False, SLUG, ()),
        LinkState(FIELDS, True, SLUG, ()),
    )


async def test_actor_of_one_change_is_not_that_of_the_next(store: Store, database: Database) -> None:
    """An earlier release leaves the column as it is, and so does another program."""
    await added(store, SLUG)
    with acting_as("key-1"):
        await updated(store, OTHER, 1)

    database.execute("UPDATE links SET title = 'odd', version = version + 1")
    database.execute("UPDATE links SET title = 'odder'")
    await updated(store, FIELDS, 3)

    found = await past(store)
    assert [change.by for change in found.changes] == [None, None, None, "key-1"]
    assert [change.before.fields.title for change in found.changes] == ["odder", "odd", "other", ""]
    assert [change.version for change in found.changes] == [4, 3, 3, 2]


async def test_every_way_to_change_a_link_leaves_a_row(store: Store) -> None:
    tagged = replace(FIELDS, tags=("old",))
    [link, gone] = await added(store, SLUG, "gone", fields=tagged)
    batched = replace(link, fields=replace(tagged, title="batch"), version=4, updated_at=LATER)
    removed = replace(gone, version=2, updated_at=LATER, removed_at=LATER)

    def decide(_: Found) -> Batch:
        # Several items of one batch may change a link: its version grows by each.
        return Batch(changed=[(batched, 1), (removed, 1)])

    with acting_as("key-b"):
        await store.write_batch(Wanted(slugs=[SLUG, Slug("gone")], locks=True), decide, now=LATER)
    with acting_as("key-t"):
        await store.retag("old", "new", limit=10, now=LATER)
        await store.retag("new", None, limit=10, now=LATER)
    with acting_as("key-r"):
        await store.remove(SLUG, expected_version=None, now=LATER)

    found = await past(store)
    assert [(one.replaced, one.version, one.by) for one in found.changes] == [
        (6, 7, "key-r"),
        (5, 6, "key-t"),
        (4, 5, "key-t"),
        (1, 4, "key-b"),
    ]
    assert [one.before.fields.tags for one in found.changes] == [(), ("new",), ("old",), ("old",)]
    [removal] = (await past(store, "gone")).changes
    assert (removal.by, removal.after) == ("key-b", LinkState(tagged, True, Slug("gone"), ()))


async def test_links_of_batches_and_imports_remember_their_makers(store: Store) -> None:
    link = Link(slug=SLUG, fields=FIELDS, version=1, created_at=NOW, updated_at=NOW)
    imported = ImportedLink(slug=Slug("imported"), fields=FIELDS, created_at=NOW)

    with acting_as("key-b"):
        await store.write_batch(Wanted(), lambda _: Batch(added=[link]), now=NOW)
    with acting_as("cli"):
        await store.add_imported([imported], now=NOW)

    assert (await past(store)).created_by == "key-b"
    assert (await past(store, "imported")).created_by == "cli"


async def test_change_that_is_not_stored_leaves_nothing(store: Store) -> None:
    await added(store, "holder", fields=replace(FIELDS, external_id="crm-1"))
    [link] = await added(store, SLUG)

    taken = await store.update(SLUG, replace(FIELDS, external_id="crm-1"), expected_version=1, now=LATER)
    late = await store.update(SLUG, OTHER, expected_version=9, now=LATER)

    assert isinstance(taken, ExternalIdTaken)
    assert late == VersionMismatch(link) or isinstance(late, VersionMismatch)
    assert (await past(store)).changes == ()


async def test_history_is_read_in_pages(store: Store) -> None:
    await added(store, SLUG)
    await added(store, "another")
    for version in range(1, 8):
        await updated(store, replace(FIELDS, title=str(version)), version)
        await store.update(Slug("another"), OTHER, expected_version=version, now=LATER)
    whole = (await past(store)).changes

    pages, before = [], None
    while True:
        page = await past(store, before=before, limit=3)
        pages.append(page.changes)
        before = page.next_before
        if before is None:
            break

    assert [len(page) for page in pages] == [3, 3, 1]
    assert sum(pages, ()) == whole
    assert [one.after.fields.title for one in whole] == list("7654321")
    assert [one.before.fields.title for one in whole] == [*"654321", ""]


async def test_slugs_of_other_domains_have_their_own_history(store: Store) -> None:
    key = key_of(7, SLUG)
    await added(store, SLUG, key)

    await store.update(key, OTHER, expected_version=1, now=LATER)

    assert (await past(store)).changes == ()
    assert len((await past(store, key)).changes) == 1


async def test_restore_is_a_change_that_says_so(store: Store, database: Database) -> None:
    await added(store, SLUG, fields=FULL)
    await updated(store, OTHER, 1)

    with acting_as("key-u"):
        link = await restored(store, LinkState(FULL, False), 2)
    [undo, _] = (await past(store)).changes

    assert (link.version, link.fields, link.updated_at, link.removed_at) == (3, FULL, LATER, None)
    assert (undo.version, undo.by, undo.is_undo) == (3, "key-u", True)
    assert (undo.before.fields, undo.after.fields) == (OTHER, FULL)
    assert await changes(store, database) == {(SLUG, 1): 1, (SLUG, 2): 1, (SLUG, 3): 1}


async def test_removed_link_is_restored_and_found_again(store: Store) -> None:
    tagged = replace(FULL, tags=("spring",))
    await added(store, SLUG, fields=tagged)
    await store.remove(SLUG, expected_version=None, now=LATER)

    link = await restored(store, LinkState(tagged, False), 2)

    assert (link.version, link.removed_at) == (3, None)
    assert [one.slug for one in (await store.page(after=None, limit=10)).links] == [SLUG]
    assert [(one.tag, one.links) for one in await store.tags(after=None, limit=10)] == [("spring", 1)]
    assert (await store.find_external([str(FULL.external_id)])).keys() == {FULL.external_id}
    [undo, removal] = (await past(store)).changes
    assert (removal.is_undo, removal.after.removed) == (False, True)
    assert (undo.is_undo, undo.before.removed, undo.after.removed) == (True, True, False)


async def test_restore_removes_again(store: Store) -> None:
    await added(store, SLUG)
    await store.remove(SLUG, expected_version=None, now=NOW)
    await restored(store, LinkState(FIELDS, False), 2)

    link = await restored(store, LinkState(FIELDS, True), 3)

    assert (link.version, link.removed_at) == (4, LATER)
    assert (await store.page(after=None, limit=10)).links == ()


async def test_restore_is_of_one_version(store: Store) -> None:
    await added(store, SLUG)
    await updated(store, OTHER, 1)

    late = await store.restore(SLUG, LinkState(FIELDS, False), expected_version=1, now=LATER)
    absent = await store.restore(Slug("absent"), LinkState(FIELDS, False), expected_version=1, now=LATER)

    assert isinstance(late, VersionMismatch)
    assert late.current.version == 2
    assert absent is None
    assert len((await past(store)).changes) == 1


async def test_restores_at_once_take_effect_once(store: Store) -> None:
    await added(store, SLUG)
    await updated(store, OTHER, 1)

    outcomes = await asyncio.gather(
        *(store.restore(SLUG, LinkState(FIELDS, False), expected_version=2, now=LATER) for _ in range(5))
    )

    assert sum(isinstance(one, Changed) for one in outcomes) == 1
    assert len((await past(store)).changes) == 2


@pytest.mark.parametrize("was_removed", [True, False])
async def test_restored_external_id_may_be_that_of_another_link(store: Store, was_removed: bool) -> None:
    named = replace(FIELDS, external_id="crm-1")
    await added(store, SLUG, fields=named)
    if was_removed:
        await store.remove(SLUG, expected_version=None, now=LATER)
    else:
        await updated(store, FIELDS, 1)
    await added(store, "holder", fields=named)

    outcome = await store.restore(SLUG, LinkState(named, False), expected_version=2, now=LATER)

    assert isinstance(outcome, ExternalIdTaken)
    assert outcome.link.slug == "holder"
    assert len((await past(store)).changes) == 1


async def test_old_changes_are_forgotten_in_batches(store: Store) -> None:
    await added(store, SLUG)
    for version in range(1, 8):
        at = NOW + timedelta(days=version)
        await updated(store, replace(FIELDS, title=str(version)), version, at)
    page = await past(store, limit=3)

    before = NOW + timedelta(days=6)
    gone = [await store.forget_history(before=before, limit=3) for _ in range(3)]

    assert gone == [3, 2, 0]
    found = await past(store)
    assert [one.version for one in found.changes] == [8, 7]
    assert [one.before.fields.title for one in found.changes] == ["6", "5"]
    # A page that began before goes on without what is forgotten.
    assert (await past(store, before=page.next_before)).changes == ()
    assert (await past(store)).link.version == 8


async def test_changes_that_other_programs_make_have_a_time(store: Store, database: Database) -> None:
    await added(store, SLUG)

    database.execute("UPDATE links SET title = 'odd'")
    [change] = (await past(store)).changes

    assert abs(datetime.now(change.at.tzinfo) - change.at) < timedelta(minutes=5)


async def test_deleted_row_leaves_its_history(store: Store, database: Database) -> None:
    """Another program may delete a link: nothing of it is found, and nothing fails."""
    await added(store, SLUG)
    await updated(store, OTHER, 1)

    database.execute("DELETE FROM links")

    assert await store.history(SLUG, before=None, limit=10) is None
    assert await store.forget_history(before=LATER + timedelta(days=1), limit=10) == 1
