"""The writer of the SQLite store: jobs that share a commit, and jobs that have one of their own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import apsw
import pytest

from app.adapters.sqlite.writer import NothingStored, Writer
from app.migrations import migrate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "links.db"
    migrate(f"sqlite:///{path}")
    with contextlib.closing(apsw.Connection(str(path))) as db:
        db.execute("CREATE TABLE written (job INTEGER, part INTEGER, UNIQUE (job, part))")
    return path


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[Writer]:
    writer = Writer(apsw.Connection(str(path)), path)
    yield writer
    await writer.aclose()


def written(path: Path) -> list[tuple[int, int]]:
    with contextlib.closing(apsw.Connection(str(path))) as db:
        return sorted(db.execute("SELECT job, part FROM written"))


@pytest.mark.parametrize("seed", range(5))
async def test_each_job_is_written_or_undone_whatever_shares_its_commit(
    writer: Writer, path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    order: list[int] = []
    failing = {job for job in range(200) if draw.random() < 0.3}

    def write(db: apsw.Connection, job: int) -> int:
        order.append(job)
        for part in range(3):
            db.execute("INSERT INTO written VALUES (?, ?)", (job, part))
            if job in failing and part == 1:
                raise NothingStored(job)
        return job

    jobs = [writer.run(partial(write, job=job), alone=draw.random() < 0.3) for job in range(200)]
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)

    assert order == sorted(order), "in the order in which they came"
    for job, outcome in enumerate(outcomes):
        assert isinstance(outcome, NothingStored) if job in failing else outcome == job
    assert written(path) == [(job, part) for job in range(200) if job not in failing for part in range(3)]


async def test_job_that_is_alone_shares_no_commit(writer: Writer) -> None:
    """So nothing keeps copies of the pages that it changes, for a way back to somewhere in between."""
    done = ""
    queued = threading.Event()

    def begin(db: apsw.Connection) -> None:
        assert queued.wait(10)
        db.set_commit_hook(commit)

    def commit() -> bool:
        nonlocal done
        done += "|"
        return False

    def write(_db: apsw.Connection, name: str) -> None:
        nonlocal done
        done += name

    jobs = [writer.run(begin, alone=True)]
    jobs += [writer.run(partial(write, name=name), alone=name.isupper()) for name in "abCdEFgh"]
    wait = asyncio.gather(*jobs)
    await asyncio.sleep(0)
    queued.set()
    await wait

    assert done == "|ab|C|d|E|F|gh|"
