"""The watch of blocks: what the store has reaches index and L1 cache, whatever fails between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.adapters.copy_file import BlockFile
from app.domain.blocks import Block, BlockIndex, BlockKind, blocked_host, blocked_slug
from app.domain.link import Resolution, Slug
from app.domain.policy import TargetPolicy
from app.ports import Store
from app.service.blocks import BlockWatch
from app.web.blocked import rendering
from app.web.response import Response
from tests.conftest import NOW, ManualTime
from tests.contract.l1_caches import KINDS, MakeL1
from tests.unit.services import CountingStore

EVIL, SLUG = blocked_host("evil.example"), blocked_slug("aaa")


class World:
    def __init__(self, store: Store, monotonic: ManualTime, new_l1: MakeL1) -> None:
        self.store = CountingStore(store)
        self.index = BlockIndex()
        self.clicked: dict[str, int] = {}
        # Slugs that were rendered as blocked.
        self.blocked: set[str] = set()
        self._answer = rendering(TargetPolicy(blocks=self.index), "http://hop.example")
        self.l1 = new_l1(monotonic, render=self._render, clicked=self.clicked.__setitem__)
        self.watch = self.new_watch()

    def _render(self, resolution: Resolution, now: float) -> Response:
        answer = self._answer(resolution, now)
        if answer.status == 451:
            self.blocked.add(resolution.slug)
        return answer

    def new_watch(self, copy: BlockFile | None = None) -> BlockWatch:
        return BlockWatch(self.store, self.index, self.l1, copy=copy)

    def hold(self, slug: str, url: str, **fields) -> None:
        self.l1.put(Resolution(Slug(slug), 1, url, **fields))

    def status(self, slug: str) -> int:
        entry = self.l1.get(slug)
        assert entry is not None, f"{slug} is not fresh"
        return entry.answer.status


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, embedded_store: Store, monotonic: ManualTime) -> World:
    return World(embedded_store, monotonic, KINDS[request.param])


async def test_answers_that_are_held_follow_a_block(world):
    """Fresh entries stay fresh: their links have not changed."""
    world.hold("aaa", "https://www.evil.example/")
    world.hold("bbb", "https://fine.example/")
    await world.watch.look()
    await world.store.add_blocks([EVIL], now=NOW)

    await world.watch.look()

    assert (world.status("aaa"), world.status("bbb")) == (451, 302)
    await world.store.remove_blocks([EVIL])
    await world.watch.look()
    assert world.status("aaa") == 302


async def test_blocked_slug_is_rendered_anew(world):
    world.hold("aaa", "https://fine.example/")
    await world.watch.look()
    await world.store.add_blocks([SLUG], now=NOW)

    await world.watch.look()

    assert world.status("aaa") == 451


async def test_blocked_link_with_a_quota_spends_none(world):
    world.hold("aaa", "https://evil.example/", metered=True)
    await world.store.add_blocks([EVIL], now=NOW)

    await world.watch.look()

    entry = world.l1.get("aaa")
    assert (entry.answer.status, entry.answer.metered_version, entry.answer.is_visit) == (451, 0, False)


async def test_cancelled_look_leaves_no_answer_behind(world):
    """A request whose deadline passes ends its look between two parts of a large cache."""
    slugs = [f"s{number}" for number in range(3500)]
    for slug in slugs:
        world.hold(slug, "https://evil.example/")
    await world.watch.look()
    await world.store.add_blocks([EVIL], now=NOW)
    looking = asyncio.create_task(world.watch.look())
    while not world.blocked:
        await asyncio.sleep(0)
    assert len(world.blocked) < len(slugs)

    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking

    assert world.blocked == set(slugs)


async def test_stale_answer_is_blocked(world, monotonic):
    world.hold("aaa", "https://evil.example/")
    await world.store.add_blocks([EVIL], now=NOW)
    await world.watch.look()
    monotonic.now += 10

    entry = world.l1.stale("aaa")

    assert entry is not None
    assert entry.answer.status == 451


async def test_clicks_of_a_blocked_link_are_kept(world):
    world.hold("aaa", "https://evil.example/")
    entry = world.l1.get("aaa")
    world.l1.note_clicked(entry)
    entry.clicks += 3
    await world.store.add_blocks([EVIL], now=NOW)

    await world.watch.look()
    world.l1.collect()

    assert world.clicked == {"aaa": 3}


async def test_unchanged_store_is_asked_for_its_version_alone(world):
    await world.store.add_blocks([EVIL], now=NOW)
    for _ in range(5):
        await world.watch.look()

    assert world.store.calls["blocks_version"] == 5
    assert world.store.calls["blocks_since"] == 1


async def test_change_reads_what_is_later(world):
    await world.store.add_blocks([EVIL, SLUG], now=NOW)
    await world.watch.look()
    await world.store.remove_blocks([EVIL])
    await world.store.add_blocks([blocked_host("other.example")], now=NOW)

    await world.watch.look()

    assert (world.index.hosts, world.index.slugs) == ({"other.example"}, {"aaa"})


async def test_many_blocks_come_in_parts(world):
    hosts = [Block(BlockKind.HOST, f"h{number}.example") for number in range(2500)]
    await world.store.add_blocks(hosts[:1200], now=NOW)
    await world.watch.look()
    await world.store.add_blocks(hosts, now=NOW)

    await world.watch.look()

    assert world.index.hosts == {host.value for host in hosts}


async def test_other_history_is_read_from_its_beginning(world, embedded_store):
    """After a restore the same versions may be of other changes."""
    world.watch.begin_epoch(1)
    await world.store.add_blocks([EVIL], now=NOW)
    await world.watch.look()
    world.hold("aaa", "https://evil.example/")
    world.index.add(blocked_host("lost.example"))
    world.hold("bbb", "https://lost.example/")
    assert (world.status("aaa"), world.status("bbb")) == (451, 451)

    world.watch.begin_epoch(2)
    await world.watch.look()

    assert world.index.hosts == {"evil.example"}
    assert (world.status("aaa"), world.status("bbb")) == (451, 302)


async def test_store_that_is_away_changes_nothing(world):
    await world.store.add_blocks([EVIL], now=NOW)
    await world.watch.look()
    world.store.away = True

    await world.watch.look()

    assert world.index.hosts == {"evil.example"}


async def test_start_without_the_store_uses_the_copy(world, tmp_path: Path):
    copy = BlockFile(tmp_path / "data" / "blocks")
    await copy.keep([EVIL, SLUG])
    world.store.away = True
    watch = world.new_watch(copy)

    await watch.first_look()
    world.hold("bbb", "https://evil.example/")

    assert (world.index.hosts, world.index.slugs) == ({"evil.example"}, {"aaa"})
    assert world.status("bbb") == 451
    world.store.away = False
    await watch.look()
    assert (len(world.index), world.status("bbb")) == (0, 302)


@pytest.mark.parametrize(
    "content",
    [b"", b"hopgate blocks 1", b"hopgate blocks 2\n", b"hopgate blocks 1\nhost a", b"\xff", b"x y\n"],
)
async def test_copy_that_is_incomplete_is_none(tmp_path, content):
    path = tmp_path / "blocks"
    path.write_bytes(content)

    assert await BlockFile(path).kept() is None


async def test_end_of_a_process_leaves_the_copy(world, tmp_path):
    """Also of a change that came just before."""
    copy = BlockFile(tmp_path / "blocks")
    watch = world.new_watch(copy)
    await world.store.add_blocks([EVIL], now=NOW)
    await watch.look()

    await watch.aclose()

    assert await copy.kept() == [EVIL]


async def test_copy_is_what_was_kept_last(tmp_path):
    copy = BlockFile(tmp_path / "blocks")
    assert await copy.kept() is None
    for blocks in ([EVIL], [EVIL, SLUG], []):
        await copy.keep(blocks)
        assert await copy.kept() == blocks
    assert [path.name for path in tmp_path.iterdir()] == ["blocks"]
