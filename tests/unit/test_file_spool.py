"""Click batches on disk: in order, through crashes, bounded, and locked by their process."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
from pathlib import Path

import pytest

from app.adapters.file_spool import FileSpool
from app.domain.events import ClicksCounted, Counted
from app.domain.link import Slug
from tests.conftest import NOW

_names = itertools.count()


def batch(n: int) -> ClicksCounted:
    return ClicksCounted(f"{n:032x}", NOW, {Slug("aaa"): n + 1})


def opened(folder, **options) -> FileSpool:
    return FileSpool(folder, new_name=lambda: f"{next(_names):04}", **options)


def killed(spool: FileSpool) -> None:
    """Close the files without cleaning up, as the kernel does for a killed process."""
    for file in spool._files:
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


async def test_unused_folder_is_not_created(folder):
    spool = opened(folder)
    await spool.oldest(1)
    await spool.aclose()

    assert not folder.exists()


async def test_drained_spool_leaves_no_file(folder):
    spool = opened(folder)
    await spool.append(batch(1))
    await spool.oldest(1)
    await spool.drop(1)
    await spool.aclose()

    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("end", ["closed", "killed"])
async def test_next_process_adopts_kept_batches(folder, end):
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


async def test_locked_file_is_not_adopted(folder):
    spool, other = opened(folder), opened(folder)
    await spool.append(batch(1))

    assert await other.oldest(9) == ()
    await other.append(batch(2))
    assert await spool.oldest(9) == [batch(1)]


async def test_orphaned_files_are_adopted_once(folder):
    for n in range(4):
        spool = opened(folder)
        await spool.append(batch(n))
        killed(spool)

    others = [opened(folder) for _ in range(4)]
    found: list[Counted] = []
    for other in others:
        while batches := await other.oldest(9):
            found += batches
            await other.drop(len(batches))

    assert found == [batch(n) for n in range(4)]
    assert list(folder.iterdir()) == []


async def test_truncated_line_is_skipped(folder):
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


async def test_garbage_between_batches_is_skipped(folder):
    spool = opened(folder)
    await spool.append(batch(1))
    killed(spool)
    [path] = folder.iterdir()
    kept = path.read_bytes()
    path.write_bytes(kept + b'\x00\xff\n\n{"kind":"changed","v":1,"slug":"a","version":1}\n' + kept)

    other = opened(folder)

    assert await other.oldest(9) == [batch(1), batch(1)]


async def test_unopenable_file_is_skipped_until_it_opens(folder, caplog):
    """It is logged once, and adopted when it can be opened."""
    for n in range(3):
        spool = opened(folder)
        await spool.append(batch(n))
        killed(spool)
    path = sorted(folder.iterdir())[1]
    aside = path.rename(folder / "aside")
    path.mkdir()
    (folder / "vanished.clicks").symlink_to(folder / "nowhere")

    other = opened(folder)
    await other.append(batch(3))
    for n in (0, 2, 3):
        assert (await other.oldest(9))[0] == batch(n)
        await other.drop(1)
    assert await other.oldest(9) == ()
    path.rmdir()
    aside.rename(path)
    assert await other.oldest(9) == [batch(1)]
    await other.drop(1)

    assert [record.args[0] for record in caplog.records] == [path]
    await other.aclose()
    assert [path.name for path in folder.iterdir()] == ["vanished.clicks"]


async def test_new_file_is_read_after_pending_batches(folder):
    other = opened(folder)
    await other.append(batch(2))
    (folder / "0.clicks").mkdir()
    assert await other.oldest(9) == [batch(2)]

    spool = opened(folder)
    await spool.append(batch(1))
    killed(spool)
    assert await other.oldest(9) == [batch(2)]
    await other.drop(1)

    assert await other.oldest(9) == [batch(1)]


async def test_unlistable_folder_hides_no_own_batch(folder, monkeypatch):
    spool = opened(folder)
    await spool.append(batch(1))
    killed(spool)
    other = opened(folder)
    await other.append(batch(2))

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", no_descriptor_left)
        patch.setattr(os, "scandir", no_descriptor_left)
        assert await other.oldest(9) == [batch(2)]
        await other.drop(1)

    assert await other.oldest(9) == [batch(1)]


async def test_unlockable_file_is_closed(folder, monkeypatch):
    spool = opened(folder)
    await spool.append(batch(1))
    killed(spool)
    before = open_descriptors()

    monkeypatch.setattr(fcntl, "flock", no_descriptor_left)
    other = opened(folder)
    for _ in range(3):
        assert await other.oldest(9) == ()

    assert open_descriptors() == before


async def test_full_file_refuses_appends_until_emptied(folder):
    spool = opened(folder, max_bytes=250)
    taken = [await spool.append(batch(n)) for n in range(5)]
    assert taken == [True, True, False, False, False]

    await spool.oldest(9)
    await spool.drop(2)
    await spool.oldest(9)

    assert await spool.append(batch(7))


async def test_uncreatable_folder_refuses_appends(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    spool = opened(tmp_path / "file" / "clicks")

    assert not await spool.append(batch(1))
    assert await spool.oldest(9) == ()
    await spool.aclose()
    assert "click spool" in caplog.text


async def test_partial_write_is_rolled_back(folder):
    spool = opened(folder)
    await spool.append(batch(1))
    own = spool._own
    assert own is not None
    descriptor = own._descriptor
    own._descriptor = os.open(own.path, os.O_RDONLY)
    assert not await spool.append(batch(2))
    os.close(own._descriptor)
    own._descriptor = descriptor

    assert await spool.append(batch(3))
    assert await spool.oldest(9) == [batch(1), batch(3)]


async def test_cancelled_append_keeps_order(folder):
    spool = opened(folder)
    for n in range(20):
        task = asyncio.create_task(spool.append(batch(n)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await spool.append(batch(n))

    found = await spool.oldest(99)

    assert [one for one, _ in itertools.groupby(found)] == [batch(n) for n in range(20)]
