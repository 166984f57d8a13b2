"""Links in bulk, on every adapter: stored with what they were before, once, and exported as they are."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from app.domain.events import ClicksCounted
from app.domain.link import Link, LinkFields, Slug
from app.ports import ExportPage, ImportedLink, Store
from tests.contract.store_database import Database
from tests.contract.store_links import FIELDS, FULL, LATER, NOW, added

LONG_AGO = datetime(2001, 2, 3, 4, 5, 6, 789_012, tzinfo=UTC)
METERED = LinkFields(long_url="https://example.com/", max_visits=10)


def imported(slug: str, key: str | None = None, fields: LinkFields = FIELDS, **more: Any) -> ImportedLink:
    return ImportedLink(slug=Slug(slug), fields=fields, created_at=LONG_AGO, key=key, **more)


async def exported(store: Store, limit: int = 1000) -> list[tuple[Link, int]]:
    found: list[tuple[Link, int]] = []
    after = None
    while True:
        page = await store.export_page(after=after, limit=limit)
        assert len(page.links) <= limit
        found += page.links
        if (after := page.next_after) is None:
            return found


async def test_link_comes_with_its_past(store: Store) -> None:
    [link] = await store.add_imported(
        [imported("mine", fields=FULL, visits=2**53 - 1, spent_visits=2**53 - 1)], now=NOW
    )

    assert link == Link(
        slug=Slug("mine"),
        fields=FULL,
        version=1,
        created_at=LONG_AGO,
        updated_at=NOW,
        visits=2**53 - 1,
    )
    assert await store.get(Slug("mine")) == link
    assert await exported(store) == [(link, 2**53 - 1)]


async def test_import_leaves_no_events(store: Store) -> None:
    """No cache can hold a slug that is new: a million links must not become a million messages."""
    await store.add_imported([imported(f"s-{n}") for n in range(20)], now=NOW)
    depth = await store.outbox_depth()
    await store.touch([Slug("s-3")])

    assert depth.rows == 0
    assert (await store.outbox_depth()).rows == 1


async def test_spent_visits_are_not_given_again(store: Store) -> None:
    await store.add_imported([imported("few", fields=METERED, visits=7, spent_visits=7)], now=NOW)
    await store.add_imported([imported("over", fields=METERED, spent_visits=12)], now=NOW)

    leased = [await store.lease_quota(Slug("few")) for _ in range(4)]

    assert leased == [1, 1, 1, 0]
    assert await store.lease_quota(Slug("over")) == 0


async def test_spent_visits_are_told_of_known_links(store: Store) -> None:
    await store.add_imported([imported("few", visits=7, spent_visits=5), imported("none")], now=NOW)

    spent = await store.spent_visits([Slug("few"), Slug("none"), Slug("absent")])

    assert spent == {"few": 5, "none": 0}
    assert await store.spent_visits([]) == {}


async def test_visits_are_counted_on(store: Store) -> None:
    await store.add_imported([imported("mine", visits=5)], now=NOW)

    await store.add_clicks(ClicksCounted("b1", NOW, {Slug("mine"): 2}), now=NOW)

    link = await store.get(Slug("mine"))
    assert link is not None
    assert link.visits == 7


async def test_taken_slugs_are_left_as_they_are(store: Store) -> None:
    """Neither a link that is there, nor a removed one, nor an earlier entry is touched, nor counted."""
    [kept, removed] = await added(store, "kept", "removed")
    await store.remove(removed.slug, expected_version=None, now=NOW)

    answer = await store.add_imported(
        [
            imported("kept", fields=FULL, visits=5),
            imported("free"),
            imported("free", fields=FULL, visits=4),
            imported("removed", fields=FULL, visits=5),
        ],
        now=LATER,
    )

    assert [link and link.slug for link in answer] == [None, "free", None, None]
    assert await store.get(kept.slug) == kept
    free = await store.get(Slug("free"))
    assert free is not None
    assert (free.fields, free.visits) == (FIELDS, 0)
    gone = await store.get(removed.slug)
    assert gone is not None
    assert (gone.fields, gone.visits) == (FIELDS, 0)


async def test_key_becomes_one_link(store: Store) -> None:
    first = await store.add_imported([imported("one", "k1"), imported("two", "k2")], now=NOW)
    await store.remove(Slug("one"), expected_version=None, now=NOW)

    again = await store.add_imported(
        [imported("other", "k1"), imported("three", "k3"), imported("four", "k3")], now=LATER
    )

    assert [link and link.slug for link in (*first, *again)] == ["one", "two", None, "three", None]
    assert await store.find_imported(["k3", "k1", "k4"]) == {"k1": "one", "k3": "three"}
    assert await store.get(Slug("other")) is None
    assert await store.get(Slug("four")) is None


async def test_key_whose_slug_was_taken_is_free(store: Store) -> None:
    await added(store, "taken")

    first = await store.add_imported([imported("taken", "k1")], now=NOW)
    second = await store.add_imported([imported("free", "k1")], now=NOW)

    assert list(first) == [None]
    assert second[0] is not None
    assert await store.find_imported(["k1"]) == {"k1": "free"}


async def test_keys_are_not_forgotten(store: Store) -> None:
    await store.add_imported([imported("one", "k1")], now=NOW)

    await store.forget_requests(before=LATER)

    assert await store.find_imported(["k1"]) == {"k1": "one"}


async def test_concurrent_imports_store_each_record_once(store: Store) -> None:
    def batch(run: int) -> list[ImportedLink]:
        records = [imported(f"r{run}-{n}", f"k{n}") for n in range(20)]
        return [*records, *(imported(f"same-{n}", visits=1) for n in range(20))][:: 1 if run % 2 else -1]

    answers = await asyncio.gather(*(store.add_imported(batch(run), now=NOW) for run in range(6)))

    stored = [link for answer in answers for link in answer if link is not None]
    assert len(stored) == 40
    assert sorted((link.slug, 0) for link in stored) == sorted(
        (link.slug, spent) for link, spent in await exported(store)
    )
    assert {link.visits for link in stored if link.slug.startswith("same")} == {1}


async def test_nothing_is_asked_of_nothing(store: Store) -> None:
    assert list(await store.add_imported([], now=NOW)) == []
    assert await store.find_imported([]) == {}
    assert await store.export_page(after=None, limit=5) == ExportPage((), None)


async def test_export_is_oldest_first_and_complete(store: Store) -> None:
    """In the order of the file that was imported, so that another import keeps the order of listings."""
    slugs = [f"s-{n}" for n in range(7)]
    await store.add_imported([imported(slug) for slug in slugs], now=NOW)
    await store.remove(Slug("s-3"), expected_version=None, now=NOW)

    for limit in (1, 2, 3, 6, 7):
        assert [link.slug for link, _ in await exported(store, limit)] == [s for s in slugs if s != "s-3"]


async def test_imports_are_in_the_listing(store: Store) -> None:
    await store.add_imported([imported("one", visits=3), imported("two")], now=NOW)

    page = await store.page(after=None, limit=5)

    assert [(link.slug, link.visits) for link in page.links] == [("two", 0), ("one", 3)]


async def test_stored_link_equals_the_answer(store: Store, database: Database) -> None:
    """Every field that a link has, whatever its value."""
    fields = [
        replace(FIELDS, title="Zoë 🦆"),
        replace(FIELDS, tags=("a,b", "", "ä")),
        FULL,
    ]
    entries = [imported(f"s-{n}", fields=one, visits=n) for n, one in enumerate(fields)]

    answer = await store.add_imported(entries, now=NOW)

    assert {link.slug: link for link in answer if link} == await store.get_many([e.slug for e in entries])
    assert Counter(database.execute("SELECT visits_taken FROM links")) == {(0,): 3}


async def test_aliases_come_with_their_link(store: Store) -> None:
    [taken] = await added(store, "taken")
    entries = [
        imported("one", aliases=(Slug("two"), Slug("three"))),
        imported("plain"),
        imported("four", aliases=(Slug("five"), taken.slug)),
        imported("six", aliases=(Slug("two"),)),
    ]

    answer = await store.add_imported(entries, now=NOW)

    assert [link is not None for link in answer] == [True, True, False, False]
    one = await store.get(Slug("one"))
    assert one is not None
    assert (one.aliases, one.version) == (("two", "three"), 1)
    assert await store.get(Slug("three")) == one
    assert await store.get_many([Slug("four"), Slug("five"), Slug("six")]) == {}
    assert {link.slug: link.aliases for link, _ in await exported(store)} == {
        "taken": (),
        "one": ("two", "three"),
        "plain": (),
    }
