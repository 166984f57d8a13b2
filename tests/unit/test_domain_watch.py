"""Domains in a process: what the store has reaches the index, whatever fails between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from app.adapters.copy_file import DomainFile
from app.domain.domains import Domain, DomainIndex, DomainSettings
from app.domain.errors import Unavailable
from app.domain.link import LinkFields, NewLink, Resolution, Slug
from app.ports import Store
from app.service.domains import DomainInUse, Domains, DomainWatch, NoAnswers
from tests.conftest import NOW
from tests.unit.services import CountingStore

HOST = "go.example"
PAGES = DomainSettings(not_found_url="https://example.com/404")


class Answers(NoAnswers):
    """An L1 cache that holds some slugs, and notes which it renders."""

    def __init__(self, *slugs: str) -> None:
        self.slugs = slugs
        self.rendered: list[str] = []

    def held(self):
        return [Resolution(Slug(slug), 1) for slug in self.slugs]

    def render_again(self, slugs):
        self.rendered += slugs


class Gate:
    """A store whose read of the domains waits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reading, self.go_on = asyncio.Event(), asyncio.Event()
        self.is_away = False

    async def domains_version(self) -> int:
        if self.is_away:
            raise Unavailable("store", "away")
        return await self._store.domains_version()

    async def domains(self):
        found = await self._store.domains()
        self.reading.set()
        await self.go_on.wait()
        return found


@pytest.fixture
def index() -> DomainIndex:
    return DomainIndex("https://hop.example")


async def add(store: Store, settings: DomainSettings = PAGES, host: str = HOST) -> Domain:
    added = await store.add_domain(host, settings, case_sensitive=True, now=NOW)
    assert added is not None
    return added


async def test_only_a_new_version_is_read(embedded_store, index):
    store = CountingStore(embedded_store)
    watch = DomainWatch(store, index, NoAnswers())
    for _ in range(3):
        await watch.look()
    added = await add(embedded_store)
    for _ in range(3):
        await watch.look()

    assert index.named(HOST) == added
    assert store.calls["domains"] == 2


async def test_answers_of_changed_domains_are_rendered(embedded_store, index):
    answers = Answers("aaa", "~1~aaa", "~2~aaa")
    watch = DomainWatch(embedded_store, index, answers)
    await add(embedded_store)
    await watch.look()
    await add(embedded_store, host="other.example")
    answers.rendered.clear()

    await watch.look()

    assert answers.rendered == ["~2~aaa"]


async def test_history_that_begins_during_a_read_is_read(embedded_store, index):
    """The store may have gone back to the same version, with other domains."""
    store = Gate(embedded_store)
    watch = DomainWatch(cast("Store", store), index, NoAnswers())
    reading = asyncio.create_task(watch.look())
    await store.reading.wait()
    watch.begin_epoch(2)
    store.go_on.set()
    await reading
    store.reading.clear()

    await watch.look()

    assert store.reading.is_set()


async def test_change_is_rendered_whatever_becomes_of_the_copy(embedded_store, index):
    class Full:
        async def keep(self, domains):
            raise asyncio.CancelledError

        async def kept(self):
            return None

    answers = Answers("~1~aaa")
    watch = DomainWatch(embedded_store, index, answers, copy=Full())
    await add(embedded_store)

    with pytest.raises(asyncio.CancelledError):
        await watch.run()

    assert answers.rendered == ["~1~aaa"]


async def test_process_that_starts_without_its_store_has_the_copy(embedded_store, index, tmp_path: Path):
    path = tmp_path / "domains"
    added = await add(embedded_store)
    first = DomainWatch(embedded_store, index, NoAnswers(), copy=DomainFile(path))
    await first.first_look()
    await first.aclose()
    store = Gate(embedded_store)
    store.is_away = True
    again = DomainIndex("https://hop.example")
    seen: list[DomainIndex] = []
    watch = DomainWatch(cast("Store", store), again, NoAnswers(), copy=DomainFile(path), changed=seen.append)

    await watch.first_look()

    assert again.named(HOST) == added
    assert seen == [again]
    store.is_away = False
    store.go_on.set()
    await watch.look()
    assert again.named(HOST) == added


@pytest.mark.parametrize("body", [b"", b"{}", b"[{}]", b'[{"domain_id": "x"}]', b"\xff"])
async def test_copy_that_cannot_be_read_is_none(tmp_path: Path, body: bytes):
    (tmp_path / "domains").write_bytes(body)

    assert await DomainFile(tmp_path / "domains").kept() is None


async def test_link_that_is_made_during_a_removal_keeps_the_domain(embedded_store, index):
    """Another process did not know of the removal: its link would have no address."""
    added = await add(embedded_store)
    watch = DomainWatch(embedded_store, index, NoAnswers())
    await watch.look()

    async def meanwhile(_seconds: float) -> None:
        new = NewLink(slug=added.key("late"), fields=LinkFields(long_url="https://example.com/"))
        await embedded_store.add([new], now=NOW)

    domains = Domains(embedded_store, index, watch.look, clock=lambda: NOW, own_hosts=(), sleep=meanwhile)

    assert await domains.remove(HOST) == DomainInUse(added.key("late"))
    back = index.named(HOST)
    assert back is not None
    assert (back.domain_id, back.settings) == (added.domain_id, PAGES)
