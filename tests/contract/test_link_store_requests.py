"""`LinkStore.add` with an idempotent request, on every adapter: it takes effect once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.domain.link import Slug
from app.ports import IMPORT_SCOPE, Added, Changed, Replayed, RequestMismatch, Store
from tests.contract.store_database import Database
from tests.contract.store_links import FULL, LATER, NOW, REQUEST, added, new


async def test_repeated_request_replays_present_links(store: Store) -> None:
    first = await store.add(new("two", "one"), now=NOW, request=REQUEST)
    changed = await store.update(Slug("two"), FULL, expected_version=1, now=LATER)

    # A retry has new random slugs; the fingerprint identifies the request.
    again = await store.add(new("other", "another"), now=LATER, request=REQUEST)

    assert isinstance(first, Added)
    assert isinstance(changed, Changed)
    assert isinstance(again, Replayed)
    assert again.links == (changed.link, first.links[1])
    assert await store.get(Slug("other")) is None


async def test_key_of_another_request_is_a_mismatch(store: Store) -> None:
    await store.add(new("one"), now=NOW, request=REQUEST)

    answer = await store.add(new("two"), now=NOW, request=replace(REQUEST, fingerprint=b"other"))

    assert answer == RequestMismatch()
    assert await store.get(Slug("two")) is None


async def test_key_in_another_scope_is_independent(store: Store) -> None:
    await store.add(new("one"), now=NOW, request=REQUEST)

    answer = await store.add(new("two"), now=NOW, request=replace(REQUEST, scope="key-2"))

    assert isinstance(answer, Added)
    assert answer.links[0] is not None


@pytest.mark.parametrize("slugs", [["free", "taken"], ["twin", "twin"]])
async def test_request_is_all_or_nothing(store: Store, slugs: list[str]) -> None:
    await added(store, "taken")

    failed = await store.add(new(*slugs), now=NOW, request=REQUEST)
    retried = await store.add(new("other"), now=NOW, request=replace(REQUEST, fingerprint=b"another"))

    assert failed == Added((None, None), ())
    assert await store.get(Slug(slugs[0])) is None
    assert isinstance(retried, Added)
    assert retried.links[0] is not None


@pytest.mark.parametrize("slug", ["same", "own-{}"])
async def test_concurrent_requests_take_effect_once(store: Store, database: Database, slug: str) -> None:
    calls = [store.add(new(slug.format(n)), now=NOW, request=REQUEST) for n in range(20)]

    answers = await asyncio.gather(*calls)

    [effect] = [answer for answer in answers if isinstance(answer, Added)]
    assert effect.links[0] is not None
    assert [a for a in answers if a is not effect] == [Replayed((effect.links[0],))] * 19
    assert (await store.outbox_depth()).rows == 1


async def test_forgotten_request_is_served_again(store: Store) -> None:
    await store.add(new("old"), now=NOW, request=REQUEST)
    await store.add(new("young"), now=LATER, request=replace(REQUEST, key="order-8"))

    forgotten = await store.forget_requests(before=LATER)

    assert forgotten == 1
    assert isinstance(await store.add(new("new"), now=LATER, request=REQUEST), Added)
    again = await store.add(new("x"), now=LATER, request=replace(REQUEST, key="order-8"))
    assert isinstance(again, Replayed)


async def test_import_requests_are_kept(store: Store) -> None:
    request = replace(REQUEST, scope=IMPORT_SCOPE)
    await store.add(new("old"), now=NOW, request=request)

    assert await store.forget_requests(before=LATER) == 0
    assert isinstance(await store.add(new("new"), now=LATER, request=request), Replayed)
