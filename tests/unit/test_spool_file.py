"""Batches of clicks on disk: in order, through crashes, bounded, and nobody else's meanwhile."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
from pathlib import Path

import pytest

from app.adapters.spool_file import FileSpool
from app.domain.events import ClicksCounted
from app.domain.link import Slug
from tests.conftest import NOW

_names = itertools.count()


def batch(n: int) -> ClicksCounted:
    return ClicksCounted(f"{n:032x}", NOW, {Slug("aaa"): n + 1})


def opened(folder, **options) -> FileSpool:
    return FileSpool(folder, new_name=lambda: f"{next(_names):04}", **options)


def killed(spool: FileSpool) -> None:
    """Do what the kernel does to the files of a process that was killed."""
    for file in spool._reading:
        os.close(file._descriptor)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def no_descriptor_left(*_args):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "not" / "yet"


async def test_batches_come_back_in_order_until_dropped(folder):
    spool = opened(folder)
    assert await spool.oldest(10) == ()
    for n in range(5):
        assert await spool.append(batch(n))

    assert await spool.oldest(2) == [batch(0), batch(1)]
    assert await spool.oldest(2) == [batch(0), batch(1)]
    await spool.drop(1)
    assert await spool.oldest(2) == [batch(1), batch(2)]
    await spool.append(batch(5))
    await spool.drop(2)
    assert await spool.oldest(9) == [batch(3), batch(4), batch(5)]
    await spool.drop(3)
    assert await spool.oldest(9) == ()


async def test_a_folder_that_is_not_needed_is_not_made(folder):
    spool = opened(folder)
    await spool.oldest(1)
    await spool.aclose()

    assert not folder.exists()


async def test_nothing_is_left_of_what_was_dropped(folder):
    spool = opened(folder)
    await spool.append(batch(1))
    await spool.oldest(1)
    await spool.drop(1)
    await spool.aclose()

    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("end", ["closed", "killed"])
async def test_another_process_finds_what_was_kept(folder, end):
    spool = opened(folder)
    for n in range(3):
        await spool.append(batch(n))
    await spool.oldest(1)
    await spool.drop(1)
    killed(spool) if end == "killed" else await spool.aclose()

    other = opened(folder)
    await other.append(batch(9))

    assert set(map(str, await other.oldest(9))) >= {str(batch(1)), str(batch(2))}
    await other.drop(len(await other.oldest(9)))
    assert await other.oldest(9) == [batch(9)]


async def test_what_a_living_process_keeps_is_left_to_it(folder):
    spool, other = opened(folder), opened(folder)
    await spool.append(batch(1))

    assert await other.oldest(9) == ()
    await other.append(batch(2))
    assert await spool.oldest(9) == [batch(1)]


async def test_files_of_the_dead_have_one_heir(folder):
    for n in range(4):
        spool = opened(folder)
        await spool.append(batch(n))
        killed(spool)

    heirs = [opened(folder) for _ in range(4)]
    found = []
    for heir in heirs:
        while batches := await heir.oldest(9):
            found += batches
            await heir.drop(len(batches))

    assert found == [batch(n) for n in range(4)]
    assert list(folder.iterdir()) == []


async def test_a_line_that_was_not_written_to_its_end_is_left_out(folder):
    spool = opened(folder)
    await spool.append(batch(1))
    killed(spool)
    [path] = folder.iterdir()
    with path.open("ab") as file:
        file.write(b'{"kind":"clicks","v":1,"ba')

    other = opened(folder)

    assert await other.oldest(9) == [batch(1)]
    await other.drop(1)
    assert await other.oldest(9) == ()
    assert list(folder.iterdir()) == []


async def test_garbage_between_batches_is_passed_over(folder):
    spool = opened(folder)
    await spool.append(batch(1))
    killed(spool)
    [path] = folder.iterdir()
    kept = path.read_bytes()
    path.write_bytes(kept + b'\x00\xff\n\n{"kind":"changed","v":1,"slug":"a","version":1}\n' + kept)

    other = opened(folder)

    assert await other.oldest(9) == [batch(1), batch(1)]


async def test_a_file_that_cannot_be_opened_stands_in_nobodys_way(folder, caplog):
    """It is named once, and adopted when it can be opened."""
    for n in range(3):
        spool = opened(folder)
        await spool.append(batch(n))
        killed(spool)
    path = sorted(folder.iterdir())[1]
    aside = path.rename(folder / "aside")
    path.mkdir()
    (folder / "vanished.clicks").symlink_to(folder / "nowhere")

    heir = opened(folder)
    await heir.append(batch(3))
    for n in (0, 2, 3):
        assert (await heir.oldest(9))[0] == batch(n)
        await heir.drop(1)
    assert await heir.oldest(9) == ()
    path.rmdir()
    aside.rename(path)
    assert await heir.oldest(9) == [batch(1)]
    await heir.drop(1)

    assert [record.args[0] for record in caplog.records] == [path]
    await heir.aclose()
    assert [path.name for path in folder.iterdir()] == ["vanished.clicks"]


async def test_a_file_that_appears_does_not_come_before_what_was_given_out(folder):
    heir = opened(folder)
    await heir.append(batch(2))
    (folder / "0.clicks").mkdir()
    assert await heir.oldest(9) == [batch(2)]

    spool = opened(folder)
    await spool.append(batch(1))
    killed(spool)
    assert await heir.oldest(9) == [batch(2)]
    await heir.drop(1)

    assert await heir.oldest(9) == [batch(1)]


async def test_a_folder_that_cannot_be_listed_hides_nothing_else(folder, monkeypatch):
    spool = opened(folder)
    await spool.append(batch(1))
    killed(spool)
    heir = opened(folder)
    await heir.append(batch(2))

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", no_descriptor_left)
        patch.setattr(os, "scandir", no_descriptor_left)
        assert await heir.oldest(9) == [batch(2)]
        await heir.drop(1)

    assert await heir.oldest(9) == [batch(1)]


async def test_a_file_that_cannot_be_locked_is_closed(folder, monkeypatch):
    spool = opened(folder)
    await spool.append(batch(1))
    killed(spool)
    before = open_descriptors()

    monkeypatch.setattr(fcntl, "flock", no_descriptor_left)
    heir = opened(folder)
    for _ in range(3):
        assert await heir.oldest(9) == ()

    assert open_descriptors() == before


async def test_a_full_file_refuses_the_newest_until_it_is_emptied(folder):
    spool = opened(folder, max_bytes=250)
    taken = [await spool.append(batch(n)) for n in range(5)]
    assert taken == [True, True, False, False, False]

    await spool.oldest(9)
    await spool.drop(2)
    await spool.oldest(9)

    assert await spool.append(batch(7))


async def test_a_folder_that_cannot_be_made_is_no_room(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    spool = opened(tmp_path / "file" / "clicks")

    assert not await spool.append(batch(1))
    assert await spool.oldest(9) == ()
    await spool.aclose()
    assert "clicks in" in caplog.text


async def test_a_write_that_fails_half_way_leaves_nothing_behind(folder):
    spool = opened(folder)
    await spool.append(batch(1))
    own = spool._own
    descriptor = own._descriptor
    own._descriptor = os.open(own.path, os.O_RDONLY)
    assert not await spool.append(batch(2))
    os.close(own._descriptor)
    own._descriptor = descriptor

    assert await spool.append(batch(3))
    assert await spool.oldest(9) == [batch(1), batch(3)]


async def test_a_caller_that_is_cancelled_does_no_harm(folder):
    spool = opened(folder)
    for n in range(20):
        task = asyncio.create_task(spool.append(batch(n)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await spool.append(batch(n))

    found = await spool.oldest(99)

    assert [one for one, _ in itertools.groupby(found)] == [batch(n) for n in range(20)]
