"""The undo of changes, over an embedded store."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from app.concurrency.actors import acting_as
from app.domain.blocks import Block, BlockIndex, BlockKind
from app.domain.domains import Domain, DomainIndex
from app.domain.errors import InvalidInput
from app.domain.link import Link, LinkFields, Slug
from app.domain.policy import TargetPolicy
from app.ports import Changed, ExternalIdTaken, VersionMismatch
from app.service.history import History, NothingToUndo
from app.service.links import Links, leave_to_relay
from tests.conftest import NOW
from tests.unit.services import FIELDS, SLUG

SECOND, MONTH = timedelta(seconds=1), timedelta(days=30)


class Clock:
    """A clock that goes on by a millisecond at each look, and that tests move."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def policy() -> TargetPolicy:
    return TargetPolicy(blocks=BlockIndex(), domains=DomainIndex("https://hop.example"))


@pytest.fixture
def links(embedded_store, choice, clock, policy) -> Links:
    return Links(embedded_store, leave_to_relay, clock=clock, choice=choice, own_hosts=(), policy=policy)


@pytest.fixture
def delivered() -> list[Changed]:
    return []


@pytest.fixture
def history(embedded_store, clock, policy, delivered) -> History:
    async def deliver(changes) -> None:
        delivered.extend(changes)

    return History(embedded_store, deliver, clock=clock, own_hosts=(), undo=MONTH, policy=policy)


async def edited(links: Links, **fields: object) -> Link:
    link = await links.change(SLUG, fields)
    assert isinstance(link, Link)
    return link


async def test_edit_is_undone_and_delivered(links, history, delivered):
    await links.create(FIELDS, custom_slug=SLUG)
    await edited(links, title="new", long_url="https://example.com/new", tags=("a",))

    link = await history.undo(SLUG)

    assert (link.fields, link.version) == (FIELDS, 3)
    [change] = delivered
    assert (change.link, change.event.change.version) == (link, 3)


async def test_undo_of_an_undo_restores_the_edit(links, history):
    await links.create(FIELDS, custom_slug=SLUG)
    edit = await edited(links, title="new")

    titles = [(await history.undo(SLUG)).fields.title for _ in range(4)]

    assert titles == ["", "new", "", "new"]
    found = await history.page(SLUG, before=None, limit=10)
    assert found.link.fields == edit.fields
    assert [change.is_undo for change in found.changes] == [True] * 4 + [False]


async def test_removal_is_undone_and_redone(links, history):
    await links.create(FIELDS, custom_slug=SLUG)
    await links.remove(SLUG)

    back = await history.undo(SLUG)
    gone = await history.undo(SLUG)

    assert (back.removed_at, back.fields, back.version) == (None, FIELDS, 3)
    assert (gone.removed_at, gone.version) == (gone.updated_at, 4)


async def test_only_the_last_change_is_undone(links, history):
    await links.create(FIELDS, custom_slug=SLUG)
    await edited(links, title="first")
    await edited(links, enabled=False)

    link = await history.undo(SLUG)

    assert (link.fields.title, link.fields.enabled) == ("first", True)


@pytest.mark.parametrize("makes_a_version", [True, False])
async def test_link_that_was_never_changed_has_nothing_to_undo(
    links, history, embedded_store, makes_a_version
):
    await links.create(FIELDS, custom_slug=SLUG)
    if makes_a_version:
        await edited(links, title="")
        await embedded_store.touch([SLUG])

    assert isinstance(await history.undo(SLUG), NothingToUndo)
    assert await history.undo(Slug("absent")) is None


@pytest.mark.parametrize(("age", "is_undone"), [(MONTH - SECOND, True), (MONTH + SECOND, False)])
async def test_change_is_undone_for_a_time(links, history, clock, age, is_undone):
    await links.create(FIELDS, custom_slug=SLUG)
    await edited(links, title="new")
    clock.now += age

    assert isinstance(await history.undo(SLUG), Link) == is_undone


async def test_undo_is_of_one_version(links, history):
    await links.create(FIELDS, custom_slug=SLUG)
    await edited(links, title="new")

    late = await history.undo(SLUG, expected_version=1)
    link = await history.undo(SLUG, expected_version=2)

    assert isinstance(late, VersionMismatch)
    assert (late.current.version, link.version) == (2, 3)


async def test_restored_target_obeys_the_rules_of_today(links, history, policy):
    await links.create(replace(FIELDS, long_url="https://evil.example/"), custom_slug=SLUG)
    await edited(links, long_url="https://example.com/")
    policy.blocks.add(Block(BlockKind.HOST, "evil.example"))

    with pytest.raises(InvalidInput, match="operator blocks"):
        await history.undo(SLUG)
    assert (await links.get(SLUG)).version == 2


async def test_fields_that_stay_obey_no_rule_of_today(links, history, policy):
    await links.create(replace(FIELDS, long_url="https://evil.example/"), custom_slug=SLUG)
    await edited(links, title="new")
    policy.blocks.add(Block(BlockKind.HOST, "evil.example"))

    assert (await history.undo(SLUG)).fields.title == ""
    await links.remove(SLUG)
    assert (await history.undo(SLUG)).removed_at is None


@pytest.mark.parametrize("was_removed", [True, False])
async def test_no_link_comes_back_that_leads_to_a_domain(links, history, policy, was_removed):
    """Its target may have become a domain meanwhile: visitors would be sent in a circle."""
    await links.create(replace(FIELDS, long_url="https://go.example/"), custom_slug=SLUG)
    if was_removed:
        await links.remove(SLUG)
    else:
        await edited(links, long_url="https://example.com/")
    policy.domains.replace([Domain(domain_id=1, host="go.example")])

    with pytest.raises(InvalidInput, match="back to this service"):
        await history.undo(SLUG)


async def test_external_id_of_another_link_is_not_taken_back(links, history):
    named = LinkFields(long_url="https://example.com/", external_id="crm-1")
    await links.create(named, custom_slug=SLUG)
    await links.remove(SLUG)
    await links.create(named, custom_slug="holder")

    outcome = await history.undo(SLUG)

    assert isinstance(outcome, ExternalIdTaken)
    assert outcome.link.slug == "holder"


async def test_undo_names_its_actor(links, history):
    await links.create(FIELDS, custom_slug=SLUG)
    with acting_as("key-1"):
        await edited(links, title="new")
    with acting_as("key-2"):
        await history.undo(SLUG)

    found = await history.page(SLUG, before=None, limit=10)

    assert [change.by for change in found.changes] == ["key-2", "key-1"]


async def test_other_writers_do_not_stop_an_undo(links, embedded_store, clock, policy):
    """A touch between the look and the change is no reason to give up."""
    await links.create(FIELDS, custom_slug=SLUG)
    await edited(links, title="new")

    class Touched:
        touches = 3

        async def history(self, *args, **kwargs):
            found = await embedded_store.history(*args, **kwargs)
            if self.touches:
                self.touches -= 1
                await embedded_store.touch([SLUG])
            return found

        restore = embedded_store.restore
        readdress = embedded_store.readdress
        forget_history = embedded_store.forget_history

    history = History(Touched(), leave_to_relay, clock=clock, own_hosts=(), undo=MONTH, policy=policy)

    link = await history.undo(SLUG)

    assert isinstance(link, Link)
    assert (link.fields, link.version) == (FIELDS, 6)
