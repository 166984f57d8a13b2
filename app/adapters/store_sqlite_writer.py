"""The one thread that writes to a SQLite file, and the errors that are the file's fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import apsw

from app.domain.errors import Unavailable

_T = TypeVar("_T")

OLD_SCHEMA = "its schema is older than this program: run `hopgate migrate`"
_UNAVAILABLE = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.ConnectionClosedError,
    apsw.CorruptError,
    apsw.FullError,
    apsw.IOError,
    apsw.InterruptError,
    apsw.LockedError,
    apsw.NoMemError,
    apsw.NotADBError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn what is the file's fault into `Unavailable`; a mistake in this program stays what it is."""
    try:
        yield
    except _UNAVAILABLE as error:
        raise Unavailable("sqlite", f"{type(error).__name__}: {error}") from error
    except apsw.SQLError as error:
        if "no such table" in str(error) or "no such column" in str(error):
            raise Unavailable("sqlite", OLD_SCHEMA) from error
        raise


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[apsw.Connection], Any]
    result: asyncio.Future[Any]


class Writer:
    """
    The one thread that writes, and its queue.

    Jobs that wait together share one commit. Each runs in a savepoint of its own, so one
    that raises takes nobody with it; none is told of success before the commit.
    """

    MAX_JOBS_A_COMMIT = 64

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._is_closed = False
        self._thread = Thread(target=self._serve, name="hopgate-sqlite", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[apsw.Connection], _T]) -> _T:
        """Return what *work* returns, once it is on the disk. Cancelled: it may happen or not."""
        if self._is_closed:
            raise Unavailable("sqlite", "the store is closed")
        result: asyncio.Future[_T] = self._loop.create_future()
        self._jobs.put(_Job(work, result))
        with translated():
            return await result

    async def aclose(self) -> None:
        """Finish what was asked for, then close the connection."""
        self._is_closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        is_open = True
        while is_open:
            batch = self._next_batch()
            is_open = batch[-1] is not None
            jobs = [job for job in batch if job is not None and not job.result.cancelled()]
            outcomes = self._commit(jobs) if jobs else []
            try:
                self._loop.call_soon_threadsafe(_deliver, jobs, outcomes)
            except RuntimeError:  # the loop is closed: nobody is left to be told
                is_open = False
        self._db.close()

    def _next_batch(self) -> list[_Job | None]:
        batch = [self._jobs.get()]
        try:
            while batch[-1] is not None and len(batch) < self.MAX_JOBS_A_COMMIT:
                batch.append(self._jobs.get_nowait())
        except Empty:
            pass
        return batch

    def _commit(self, jobs: Sequence[_Job]) -> Sequence[Any]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [self._attempt(job) for job in jobs]
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the thread must not end: its callers would wait for ever
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            return [_Failure(error)] * len(jobs)
        return outcomes

    def _attempt(self, job: _Job) -> Any:
        self._db.execute("SAVEPOINT job")
        try:
            result = job.work(self._db)
        except Exception as error:  # whatever it is, it is the caller's to hear
            if not self._db.in_transaction:  # e.g. a full disk: SQLite took everything back
                raise
            self._db.execute("ROLLBACK TO job")
            result = _Failure(error)
        self._db.execute("RELEASE job")
        return result


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
