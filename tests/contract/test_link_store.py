"""`LinkStore`: one suite for every adapter. What only one of them promises stands beside it."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Link, LinkFields, NewLink, Slug
from app.migrations import migrate
from app.ports import (
    Added,
    ApiKey,
    Changed,
    IdempotentRequest,
    LinkStore,
    OutboxDepth,
    Replayed,
    RequestMismatch,
    VersionMismatch,
)
from tests.contract.store_database import Database, PostgresDatabase, SqliteDatabase
from tests.contract.store_model import Model, without_ids
from tests.servers.postgres import PrivatePostgres

NOW = datetime(2030, 1, 31, 12, 34, 56, 123457, tzinfo=UTC)
LATER = NOW + timedelta(microseconds=1)
FIELDS = LinkFields(long_url="https://example.com/")
FULL = LinkFields(
    long_url="https://example.com/a%20b?c=d#e",
    title="Zoë 🦆 漢字 \"quoted\" 'n' \\ back, {brace}",
    tags=("zebra", "Äpfel", "a,b", "", '"', "{x}", "null", "\\", "🦆"),
    redirect_code=308,
    valid_from=datetime(2029, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    expires_at=datetime(2031, 7, 1, 2, 0, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    forward_query=True,
    enabled=False,
)
REQUEST = IdempotentRequest("key-1", "order-7", b"digest")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "links.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return SqliteDatabase(request.getfixturevalue("sqlite_template"), tmp_path)
    return PostgresDatabase(request.getfixturevalue("postgres"))


@pytest.fixture
async def store(database: Database) -> AsyncIterator[LinkStore]:
    store = await database.open()
    yield store
    await store.aclose()


def new(*slugs: str, fields: LinkFields = FIELDS) -> list[NewLink]:
    return [NewLink(slug=Slug(slug), fields=fields) for slug in slugs]


async def added(store: LinkStore, *slugs: str, fields: LinkFields = FIELDS) -> list[Link]:
    answer = await store.add(new(*slugs, fields=fields), now=NOW)
    assert isinstance(answer, Added)
    assert None not in answer.links
    return [link for link in answer.links if link is not None]


async def changes(store: LinkStore, database: Database) -> Counter[tuple[str, int]]:
    """Everything in the outbox."""
    database.make_events_due()
    events = await store.take_events(limit=10_000, lease_s=60)
    return Counter((event.change.slug, event.change.version) for event in events)


# --- add -------------------------------------------------------------------------------


async def test_an_added_link_reads_back_exactly(store: LinkStore) -> None:
    [link] = await added(store, "a-B_9", fields=FULL)

    found = await store.get(Slug("a-B_9"))

    assert link == Link(slug=Slug("a-B_9"), fields=FULL, version=1, created_at=NOW, updated_at=NOW)
    assert found == link
    assert found.fields.valid_from is not None
    assert found.fields.valid_from.utcoffset() == found.created_at.utcoffset() == timedelta(0)


async def test_slugs_are_case_sensitive(store: LinkStore) -> None:
    await added(store, "abc", "ABC", "aBc")

    assert await store.get(Slug("Abc")) is None


async def test_a_missing_link_is_none(store: LinkStore) -> None:
    assert await store.get(Slug("nope")) is None


async def test_a_taken_slug_is_skipped_and_the_rest_is_stored(store: LinkStore, database: Database) -> None:
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


async def test_a_removed_link_keeps_its_slug(store: LinkStore) -> None:
    await added(store, "gone")
    await store.remove(Slug("gone"), expected_version=None, now=NOW)

    answer = await store.add(new("gone"), now=LATER)

    assert answer == Added((None,), ())


async def test_of_two_entries_with_one_slug_the_first_wins(store: LinkStore) -> None:
    answer = await store.add(new("twin", fields=FULL) + new("twin"), now=NOW)

    assert isinstance(answer, Added)
    assert answer.links[0] is not None
    assert answer.links[0].fields == FULL
    assert answer.links[1] is None
    assert len(answer.events) == 1
    assert await store.get(Slug("twin")) == answer.links[0]


async def test_nothing_to_add_is_no_error(store: LinkStore) -> None:
    assert await store.add([], now=NOW) == Added((), ())
    assert await store.add([], now=NOW, request=REQUEST) == Added((), ())


async def test_a_mistake_in_one_link_stores_none_and_is_not_hidden(store: LinkStore) -> None:
    bad = new("bad", fields=replace(FIELDS, redirect_code=999))

    with pytest.raises(Exception, match=r"(?i)check constraint") as caught:
        await store.add(new("good") + bad, now=NOW)

    assert not isinstance(caught.value, Unavailable)
    assert await store.get(Slug("good")) is None
    assert (await store.outbox_depth()).rows == 0


async def test_a_mistake_takes_no_simultaneous_call_with_it(store: LinkStore) -> None:
    bad = store.add(new("bad", fields=replace(FIELDS, redirect_code=999)), now=NOW)
    good = [store.add(new(f"good-{n}"), now=NOW) for n in range(10)]

    answers = await asyncio.gather(*good[:5], bad, *good[5:], return_exceptions=True)

    assert sum(isinstance(answer, Added) for answer in answers) == 10
    assert len(await store.get_many([Slug(f"good-{n}") for n in range(10)])) == 10


async def test_one_hundred_claim_one_slug_and_one_gets_it(store: LinkStore, database: Database) -> None:
    claims = [store.add(new("prize", fields=replace(FIELDS, title=str(n))), now=NOW) for n in range(100)]

    answers = await asyncio.gather(*claims)

    [winner] = [answer.links[0] for answer in answers if isinstance(answer, Added) and answer.links[0]]
    assert await store.get(Slug("prize")) == winner
    assert await changes(store, database) == Counter([("prize", 1)])


async def test_bulk_adds_of_the_same_slugs_do_not_deadlock(store: LinkStore, database: Database) -> None:
    slugs = [f"s{n:03}" for n in range(200)]

    answers = await asyncio.gather(
        *(store.add(new(*(slugs if n % 2 else reversed(slugs))), now=NOW) for n in range(8))
    )

    stored = Counter(
        link.slug for answer in answers if isinstance(answer, Added) for link in answer.links if link
    )
    assert stored == Counter(slugs)


# --- idempotent requests ---------------------------------------------------------------


async def test_a_repeated_request_is_replayed_with_the_links_as_they_are_now(store: LinkStore) -> None:
    first = await store.add(new("two", "one"), now=NOW, request=REQUEST)
    changed = await store.update(Slug("two"), FULL, expected_version=1, now=LATER)

    # A retry brings new random slugs; the fingerprint is what says that it is the same.
    again = await store.add(new("other", "another"), now=LATER, request=REQUEST)

    assert isinstance(first, Added)
    assert isinstance(changed, Changed)
    assert again == Replayed((changed.link, first.links[1]))
    assert await store.get(Slug("other")) is None


async def test_a_key_used_for_something_else_is_a_mismatch(store: LinkStore) -> None:
    await store.add(new("one"), now=NOW, request=REQUEST)

    answer = await store.add(new("two"), now=NOW, request=replace(REQUEST, fingerprint=b"other"))

    assert answer == RequestMismatch()
    assert await store.get(Slug("two")) is None


async def test_the_same_key_in_another_scope_is_another_request(store: LinkStore) -> None:
    await store.add(new("one"), now=NOW, request=REQUEST)

    answer = await store.add(new("two"), now=NOW, request=replace(REQUEST, scope="key-2"))

    assert isinstance(answer, Added)
    assert answer.links[0] is not None


@pytest.mark.parametrize("slugs", [["free", "taken"], ["twin", "twin"]])
async def test_a_request_is_all_or_nothing(store: LinkStore, slugs: list[str]) -> None:
    await added(store, "taken")

    failed = await store.add(new(*slugs), now=NOW, request=REQUEST)
    retried = await store.add(new("other"), now=NOW, request=replace(REQUEST, fingerprint=b"another"))

    assert failed == Added((None, None), ())
    assert await store.get(Slug(slugs[0])) is None
    assert isinstance(retried, Added)
    assert retried.links[0] is not None


@pytest.mark.parametrize("slug", ["same", "own-{}"])
async def test_the_same_request_twenty_times_at_once_takes_effect_once(
    store: LinkStore, database: Database, slug: str
) -> None:
    calls = [store.add(new(slug.format(n)), now=NOW, request=REQUEST) for n in range(20)]

    answers = await asyncio.gather(*calls)

    [effect] = [answer for answer in answers if isinstance(answer, Added)]
    assert effect.links[0] is not None
    assert [a for a in answers if a is not effect] == [Replayed((effect.links[0],))] * 19
    assert (await store.outbox_depth()).rows == 1


async def test_forgotten_requests_may_come_again(store: LinkStore) -> None:
    await store.add(new("old"), now=NOW, request=REQUEST)
    await store.add(new("young"), now=LATER, request=replace(REQUEST, key="order-8"))

    forgotten = await store.forget_requests(before=LATER)

    assert forgotten == 1
    assert isinstance(await store.add(new("new"), now=LATER, request=REQUEST), Added)
    again = await store.add(new("x"), now=LATER, request=replace(REQUEST, key="order-8"))
    assert isinstance(again, Replayed)


# --- reading ---------------------------------------------------------------------------


async def test_get_many_returns_those_that_exist_removed_ones_included(store: LinkStore) -> None:
    await added(store, *(f"s{n}" for n in range(1000)))
    await store.remove(Slug("s7"), expected_version=None, now=LATER)

    found = await store.get_many([Slug(f"s{n}") for n in range(1, 1000)] + [Slug("nope")])

    assert found.keys() == {f"s{n}" for n in range(1, 1000)}
    assert found[Slug("s7")].removed_at == LATER
    assert await store.get_many([]) == {}


async def test_pages_are_newest_first_and_end(store: LinkStore) -> None:
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


async def test_pages_skip_removed_links_and_stay_put_while_others_insert(store: LinkStore) -> None:
    await added(store, "a", "b", "c", "d")
    await store.remove(Slug("b"), expected_version=1, now=NOW)

    first = await store.page(after=None, limit=2)
    await added(store, "e", "f")
    second = await store.page(after=first.next_after, limit=2)

    assert [link.slug for link in first.links + second.links] == ["d", "c", "a"]


async def test_an_empty_listing_is_one_empty_page(store: LinkStore) -> None:
    page = await store.page(after=None, limit=10)

    assert (page.links, page.next_after) == ((), None)


async def test_reads_see_what_another_store_acknowledged(store: LinkStore, database: Database) -> None:
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


async def test_an_update_replaces_all_fields(store: LinkStore, database: Database) -> None:
    [link] = await added(store, "slug")

    answer = await store.update(Slug("slug"), FULL, expected_version=1, now=LATER)

    assert isinstance(answer, Changed)
    assert answer.link == replace(link, fields=FULL, version=2, updated_at=LATER)
    assert answer.event.change == LinkChanged(Slug("slug"), 2)
    assert await store.get(Slug("slug")) == answer.link
    assert await changes(store, database) == Counter([("slug", 1), ("slug", 2)])


async def test_an_update_can_empty_the_fields(store: LinkStore) -> None:
    await added(store, "slug", fields=FULL)

    await store.update(Slug("slug"), FIELDS, expected_version=1, now=LATER)

    link = await store.get(Slug("slug"))
    assert link is not None
    assert link.fields == FIELDS


async def test_removing_is_a_change_like_others(store: LinkStore, database: Database) -> None:
    [link] = await added(store, "slug", fields=FULL)

    answer = await store.remove(Slug("slug"), expected_version=1, now=LATER)

    assert isinstance(answer, Changed)
    assert answer.link == replace(link, version=2, updated_at=LATER, removed_at=LATER)
    assert await store.get(Slug("slug")) == answer.link
    assert await changes(store, database) == Counter([("slug", 1), ("slug", 2)])


@pytest.mark.parametrize("expected_version", [0, 1, 3])
async def test_another_version_changes_nothing(store: LinkStore, expected_version: int) -> None:
    await added(store, "slug")
    [touched] = await store.touch([Slug("slug")])

    updated = await store.update(Slug("slug"), FULL, expected_version=expected_version, now=LATER)
    removed = await store.remove(Slug("slug"), expected_version=expected_version, now=LATER)

    assert updated == removed == VersionMismatch(touched.link)
    assert await store.get(Slug("slug")) == touched.link
    assert (await store.outbox_depth()).rows == 2


async def test_absent_and_removed_links_cannot_be_changed(store: LinkStore) -> None:
    await added(store, "gone")
    await store.remove(Slug("gone"), expected_version=None, now=NOW)

    for slug in (Slug("gone"), Slug("absent")):
        for version in (1, 2):
            assert await store.update(slug, FULL, expected_version=version, now=LATER) is None
            assert await store.remove(slug, expected_version=version, now=LATER) is None
        assert await store.remove(slug, expected_version=None, now=LATER) is None
    assert (await store.outbox_depth()).rows == 2


async def test_touch_raises_only_the_version_of_those_that_exist(
    store: LinkStore, database: Database
) -> None:
    one, two = await added(store, "one", "two")
    gone = await store.remove(Slug("two"), expected_version=None, now=NOW)

    answers = await store.touch([Slug("two"), Slug("nope"), Slug("one"), Slug("two")])

    assert isinstance(gone, Changed)
    assert [answer.link for answer in answers] == [replace(gone.link, version=3), replace(one, version=2)]
    assert await store.get_many([one.slug, two.slug]) == {a.link.slug: a.link for a in answers}
    assert (await changes(store, database))["two", 3] == 1
    assert await store.touch([]) == []


async def test_of_concurrent_updates_to_one_version_one_succeeds(store: LinkStore) -> None:
    await added(store, "slug")
    fields = [replace(FIELDS, title=str(n)) for n in range(20)]

    answers = await asyncio.gather(
        *(store.update(Slug("slug"), one, expected_version=1, now=LATER) for one in fields)
    )

    [winner] = [answer for answer in answers if isinstance(answer, Changed)]
    assert [answer for answer in answers if answer is not winner] == [VersionMismatch(winner.link)] * 19


async def test_concurrent_touches_each_make_a_version(store: LinkStore, database: Database) -> None:
    await added(store, "a", "b")
    orders = [[Slug("a"), Slug("b")], [Slug("b"), Slug("a")]]

    await asyncio.gather(*(store.touch(orders[n % 2]) for n in range(20)))

    assert await changes(store, database) == Counter((slug, n) for slug in "ab" for n in range(1, 22))


# --- outbox ----------------------------------------------------------------------------


async def test_events_are_due_after_the_grace(store: LinkStore, database: Database) -> None:
    await added(store, "slug")

    early = await store.take_events(limit=10, lease_s=60)
    database.make_events_due()
    due = await store.take_events(limit=10, lease_s=60)

    assert early == []
    assert [event.change for event in due] == [LinkChanged(Slug("slug"), 1)]


async def test_the_grace_is_two_seconds_of_the_database_clock(store: LinkStore, database: Database) -> None:
    await added(store, "slug")

    [(grace,)] = database.execute("SELECT next_attempt_at - created_at FROM outbox")

    assert grace in (timedelta(seconds=2), 2_000_000)


async def test_a_leased_event_is_nobody_elses(store: LinkStore, database: Database) -> None:
    other = await database.open()
    await added(store, *(f"s{n}" for n in range(100)))
    database.make_events_due()

    batches = await asyncio.gather(*(s.take_events(limit=7, lease_s=60) for s in (store, other) * 10))
    rest = await other.take_events(limit=100, lease_s=60)

    taken = Counter(event.id for batch in [*batches, rest] for event in batch)
    assert len(taken) == 100
    assert set(taken.values()) == {1}
    assert max(len(batch) for batch in batches) == 7
    await other.aclose()


async def test_an_event_comes_back_when_its_lease_ends(store: LinkStore, database: Database) -> None:
    await added(store, "slug")
    database.make_events_due()

    [first] = await store.take_events(limit=10, lease_s=0)
    async with asyncio.timeout(5):
        while not (again := await store.take_events(limit=10, lease_s=60)):
            await asyncio.sleep(0.001)

    assert again == [first]
    assert database.execute("SELECT attempts FROM outbox") == [(2,)]


async def test_dropped_events_are_gone_and_unknown_ids_no_error(store: LinkStore, database: Database) -> None:
    answer = await store.add(new("one", "two"), now=NOW)
    assert isinstance(answer, Added)

    await store.drop_events([answer.events[0].id, 10**12, answer.events[0].id])
    await store.drop_events([])

    assert await changes(store, database) == Counter([("two", 1)])


async def test_ids_are_those_that_are_taken_later(store: LinkStore, database: Database) -> None:
    answer = await store.add(new("b", "a"), now=NOW)
    database.make_events_due()

    taken = await store.take_events(limit=10, lease_s=60)

    assert isinstance(answer, Added)
    assert set(taken) == set(answer.events)


async def test_depth_counts_all_rows_and_the_age_of_the_oldest(store: LinkStore, database: Database) -> None:
    assert await store.outbox_depth() == OutboxDepth(0, 0.0)
    await added(store, "one", "two")
    database.make_events_due()
    await store.take_events(limit=1, lease_s=60)

    depth = await store.outbox_depth()

    assert depth.rows == 2
    assert 0 <= depth.oldest_s < 30


# --- keys ------------------------------------------------------------------------------

KEY = ApiKey(
    key_id="k1",
    name="Zoë",
    secret_hash=bytes(range(32)),
    scopes=frozenset({"links:read", "admin"}),
    created_at=NOW,
)


async def test_keys_read_back_oldest_first(store: LinkStore) -> None:
    second = replace(KEY, key_id="k0", scopes=frozenset(), created_at=LATER, revoked_at=LATER)
    await store.add_key(second)
    await store.add_key(KEY)

    assert await store.list_keys() == [KEY, second]
    assert await store.get_key("k0") == second
    assert await store.get_key("k2") is None


async def test_revoking_twice_keeps_the_first_time(store: LinkStore) -> None:
    await store.add_key(KEY)

    first = await store.revoke_key("k1", now=NOW)
    second = await store.revoke_key("k1", now=LATER)

    assert (first, second) == (True, True)
    assert await store.get_key("k1") == replace(KEY, revoked_at=NOW)
    assert await store.revoke_key("nope", now=NOW) is False


# --- the whole -------------------------------------------------------------------------


async def test_ping_answers(store: LinkStore) -> None:
    await store.ping()


async def test_ping_names_the_remedy_for_an_old_schema(store: LinkStore, database: Database) -> None:
    database.forget_schema()

    with pytest.raises(Unavailable, match="hopgate migrate"):
        await store.ping()


async def test_a_closed_store_is_unavailable(database: Database) -> None:
    store = await database.open()
    await store.aclose()
    await store.aclose()

    with pytest.raises(Unavailable):
        await store.get(Slug("slug"))
    with pytest.raises(Unavailable):
        await store.add(new("slug"), now=NOW)


async def test_cancelled_calls_happen_entirely_or_not_at_all(store: LinkStore, database: Database) -> None:
    calls = [asyncio.ensure_future(store.add(new(f"a{n}", f"b{n}"), now=NOW)) for n in range(60)]
    for n, call in enumerate(calls):
        if n % 3 == 0:
            await asyncio.sleep(0)
        if n % 2:
            call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await store.aclose()  # lets the calls under way end

    other = await database.open()
    events = await changes(other, database)
    await other.aclose()
    stored = {slug for slug, _ in events}
    assert {f"{letter}{n}" for n in range(0, 60, 2) for letter in "ab"} <= stored
    assert all((f"a{n}" in stored) == (f"b{n}" in stored) for n in range(60))


# --- against the model -----------------------------------------------------------------

_slugs = st.sampled_from([Slug(slug) for slug in ("aaa", "aab", "AAA", "z_-", "mmm")])
_times = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
_fields = st.builds(
    LinkFields,
    long_url=st.sampled_from(["https://a.example/", "http://b.example/x?y=z"]),
    title=_text,
    tags=st.lists(_text, max_size=3).map(tuple),
    redirect_code=st.sampled_from([301, 302, 307, 308]),
    valid_from=st.none() | _times,
    expires_at=st.none() | _times,
    forward_query=st.booleans(),
    enabled=st.booleans(),
)
_requests = st.builds(
    IdempotentRequest, st.sampled_from(["s", "t"]), st.sampled_from(["k", "l"]), st.sampled_from([b"1", b"2"])
)
_versions = st.integers(1, 4)
_steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.lists(st.builds(NewLink, slug=_slugs, fields=_fields), max_size=4),
            _times,
            st.none() | _requests,
        ),
        st.tuples(st.just("update"), _slugs, _fields, _versions, _times),
        st.tuples(st.just("remove"), _slugs, st.none() | _versions, _times),
        st.tuples(st.just("touch"), st.lists(_slugs, max_size=3), _times),
    ),
    max_size=12,
)


async def compare(store: LinkStore, database: Database, steps: Sequence[Any]) -> None:
    model = Model()
    for verb, *rest in steps:
        if verb == "add":
            items, now, request = rest
            expected = model.add(items, now, request)
            answer: Any = await store.add(items, now=now, request=request)
        elif verb == "update":
            slug, fields, version, now = rest
            expected = model.update(slug, fields, version, now)
            answer = await store.update(slug, fields, expected_version=version, now=now)
        elif verb == "remove":
            slug, version, now = rest
            expected = model.remove(slug, version, now)
            answer = await store.remove(slug, expected_version=version, now=now)
        else:
            slugs, now = rest
            expected = model.touch(slugs)
            answer = await store.touch(slugs)
        assert without_ids(answer) == expected, verb

    listing: list[Link] = []
    after = None
    while True:
        page = await store.page(after=after, limit=2)
        listing += page.links
        if (after := page.next_after) is None:
            break
    assert listing == model.listing()
    assert await store.get_many([*model.links, Slug("nope")]) == model.links
    assert await changes(store, database) == Counter((c.slug, c.version) for c in model.changes)


async def compare_anew(database: Database, steps: Sequence[Any]) -> None:
    for table in ("links", "outbox", "idempotency"):
        database.execute(f"DELETE FROM {table}")
    async with aclosing(await database.open()) as store:
        await compare(store, database, steps)


@pytest.fixture(scope="module")
def database_in_memory(sqlite_template: Path) -> Iterator[SqliteDatabase]:
    # The model knows nothing of power cuts, so nobody needs to wait for a disk.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield SqliteDatabase(sqlite_template, Path(directory))


@given(steps=_steps)
@settings(max_examples=150, deadline=None)
def test_sqlite_does_what_the_model_does(steps: Sequence[Any], database_in_memory: SqliteDatabase) -> None:
    asyncio.run(compare_anew(database_in_memory, steps))


@pytest.fixture(scope="module")
def one_database(postgres: PrivatePostgres) -> PostgresDatabase:
    return PostgresDatabase(postgres)


@pytest.mark.services
@given(steps=_steps)
@settings(max_examples=25, deadline=None)
def test_postgres_does_what_the_model_does(steps: Sequence[Any], one_database: PostgresDatabase) -> None:
    asyncio.run(compare_anew(one_database, steps))
