"""The thread that writes to a SQLite file, and the translation of SQLite's errors."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import apsw

from app.adapters.sqlite.watch import FileWatch
from app.adapters.write_state import WriteState
from app.domain.errors import Refused, Unavailable
from app.migrations.sqlite_file import after
from app.migrations.sqlite_index import index_links

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_CLOSE_S = 5.0
# Without writes, the file is looked at this often.
_LOOK_S = 1.0

OLD_SCHEMA = "its schema is older than this program: run `hopgate migrate`"
_UNAVAILABLE = (
    apsw.BusyError,
    apsw.ConnectionClosedError,
    apsw.CorruptError,
    apsw.IOError,
    apsw.InterruptError,
    apsw.LockedError,
    apsw.NoMemError,
    apsw.NotADBError,
    apsw.ProtocolError,
)
# SQLite rolls the transaction back. It cannot be opened for writing after a loss of permissions.
_REFUSED = (apsw.CantOpenError, apsw.FullError, apsw.PermissionsError, apsw.ReadOnlyError)


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of the file into `Unavailable`; bugs of this program pass unchanged."""
    try:
        yield
    except _REFUSED as error:
        raise Refused("sqlite", f"{type(error).__name__}: {error}") from error
    except _UNAVAILABLE as error:
        raise Unavailable("sqlite", f"{type(error).__name__}: {error}") from error
    except apsw.SQLError as error:
        if "no such table" in str(error) or "no such column" in str(error):
            raise Unavailable("sqlite", OLD_SCHEMA) from error
        raise


class NothingStored(Exception):
    """Raised by work that has a transaction of its own, to undo it."""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[apsw.Connection], Any]
    result: asyncio.Future[Any]
    alone: bool


class Writer:
    """
    The thread that writes, and its queue.

    Jobs that wait at the same time share one commit. Each runs in a savepoint of its own, so a job
    that raises does not affect the others; results are delivered after the commit. A job that is alone has
    a transaction and no savepoint: in one, each statement takes longer the more rows were written before it.
    """

    MAX_JOBS_A_COMMIT = 64

    def __init__(self, db: apsw.Connection, path: Path) -> None:
        self._db = db
        self._watch = FileWatch(db, path)
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # Taken from the queue, for a commit of its own.
        self._next: _Job | None = None
        self._is_closed = False
        self._state = WriteState()
        self._thread = Thread(target=self._serve, name="hopgate-sqlite", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[apsw.Connection], _T], *, alone: bool = False) -> _T:
        """
        Return the result of *work* once it is on the disk. If cancelled, *work* may or may not run.

        Args:
            alone: it shares its commit with no other: for many rows.
        """
        if self._is_closed:
            raise Unavailable("sqlite", "the store is closed")
        result: asyncio.Future[_T] = self._loop.create_future()
        self._jobs.put(_Job(work, result, alone))
        try:
            with translated():
                done = await result
        except Refused as error:
            self._state.refuse(error)
            raise
        self._state.accept()
        return done

    async def check(self) -> None:
        """Raise `Refused` while writes are refused, or if the file was lost."""
        if self._watch.loss is not None:
            raise Refused("sqlite", self._watch.loss)
        await self._state.check(self.try_write)

    async def try_write(self) -> None:
        """Allocate what a large create would, and commit a page. Raises as `run`."""
        await self.run(_try_write)

    async def aclose(self) -> None:
        """Finish the pending jobs, then close the connection; a disk that hangs is given up."""
        self._is_closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, _CLOSE_S)
        if self._thread.is_alive():
            log.error("sqlite did not finish its writes within %g s", _CLOSE_S)

    def _serve(self) -> None:
        is_open = True
        while is_open:
            batch = self._next_batch()
            if not batch:
                with suppress(Refused, apsw.Error):  # logged, and kept for the next write
                    self._watch.look()
                continue
            is_open = batch[-1] is not None
            jobs = [job for job in batch if job is not None and not job.result.cancelled()]
            outcomes = self._commit(jobs) if jobs else []
            try:
                self._loop.call_soon_threadsafe(_deliver, jobs, outcomes)
            except RuntimeError:  # the event loop is closed
                is_open = False
        self._db.close()

    def _next_batch(self) -> list[_Job | None]:
        first, self._next = self._next, None
        if first is None:
            try:
                first = self._jobs.get(timeout=_LOOK_S)
            except Empty:
                return []
        batch = [first]
        with suppress(Empty):
            while (last := batch[-1]) is not None and not last.alone and len(batch) < self.MAX_JOBS_A_COMMIT:
                job = self._jobs.get_nowait()
                if job is not None and job.alone:
                    self._next = job
                    break
                batch.append(job)
        return batch

    def _commit(self, jobs: Sequence[_Job]) -> Sequence[Any]:
        try:
            self._watch.look()
            self._db.execute("BEGIN IMMEDIATE")
            is_single = len(jobs) == 1
            outcomes = [jobs[0].work(self._db)] if is_single else [self._attempt(job) for job in jobs]
            index_links(self._db)
            count = self._db.pragma("application_id")
            self._db.pragma("application_id", after(count) if count else 1 + secrets.randbelow(1 << 29))
            self._db.execute("COMMIT")
            self._acknowledge()
        except Exception as error:  # noqa: BLE001 - a thread that ended would block its callers
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            return [_Failure(error)] * len(jobs)
        return outcomes

    def _acknowledge(self) -> None:
        """Raise unless the commit went to the file that the next start will open."""
        try:
            self._watch.look()
        except Refused as error:
            raise Unavailable("sqlite", error.reason) from None

    def _attempt(self, job: _Job) -> Any:
        self._db.execute("SAVEPOINT job")
        try:
            result = job.work(self._db)
        except Exception as error:  # goes to the caller
            if not self._db.in_transaction:  # e.g. a full disk: SQLite rolled everything back
                raise
            self._db.execute("ROLLBACK TO job")
            result = _Failure(error)
        self._db.execute("RELEASE job")
        return result


def _try_write(db: apsw.Connection) -> None:
    db.execute("SAVEPOINT room")
    db.execute("CREATE TABLE room (content)")
    db.execute("INSERT INTO room VALUES (zeroblob(32768))")
    db.execute("ROLLBACK TO room")
    db.execute("RELEASE room")
    db.pragma("user_version", db.pragma("user_version"))


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception


def _deliver(jobs: Sequence[_Job], outcomes: Sequence[Any]) -> None:
    for job, outcome in zip(jobs, outcomes, strict=True):
        if job.result.done():  # cancelled meanwhile
            continue
        if isinstance(outcome, _Failure):
            job.result.set_exception(outcome.error)
        else:
            job.result.set_result(outcome)
