"""
A connection pool for PostgreSQL that survives restarts, silent servers and cancelled callers.

Each call runs in a task of its own, which is never interrupted: a cancelled caller returns at once,
while the call ends and returns a clean connection to the pool. A call that exceeds the server's
statement timeout is abandoned: its caller fails, it sends nothing any more, and its connection still
counts until the server has answered or closed it. A commit that waits for a synchronous standby heeds
neither the timeout nor a closed socket, so replacing such a session would add another one for each.
When the server refuses a connection, callers fail fast, unless a connection in use may become free.

Every pool that was opened is closed, also when that is cancelled: its tasks swallow a cancellation
while they connect, and the event loop would wait for them for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Self, TypeVar
from weakref import WeakSet

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from app.adapters.postgres.pool_state import PoolState
from app.adapters.postgres.pooler import POOLER, is_pooler, refuse_pooler
from app.adapters.write_state import WriteState
from app.domain.errors import Refused, SettingsError, Unavailable

log = logging.getLogger(__name__)

Connection = AsyncConnection[tuple[Any, ...]]
_T = TypeVar("_T")

# How long the server may exceed its statement timeout before it counts as silent.
_SILENCE_S = 1.0
# The pool gives up after the second attempt, and the next call starts another. So it reconnects soon
# after the server recovers, and circuit breakers bound the number of attempts.
_RECONNECT_S = 0.0
# A host that is gone is noticed in this time; a server that is only slow or paused acknowledges.
_GONE_S = 5
# The wait of a commit for its standby that an administrator ended: the commit stands on the primary alone.
_WAIT_FOR_STANDBY = "SyncRepWaitForLSN"
# A pool that has lost track of its connections never provides one again.
_STUCK_S = 15.0


class Connections:
    """Made by `open`, closed with `aclose`; until then the tasks of the pool keep the event loop running."""

    def __init__(
        self,
        make_pool: Callable[[type[Connection]], AsyncConnectionPool[Connection]],
        *,
        max_calls: int,
        call_timeout_s: float,
        stuck_s: float,
    ) -> None:
        self._opened: WeakSet[Connection] = WeakSet()
        self._waiting: set[asyncio.Timeout] = set()
        self._attempts = 0
        self._refusal = ""
        self._make_pool = partial(make_pool, _watched(self._connected))
        self._pool = self._make_pool()
        self.writes = WriteState()
        self._max_calls = max_calls
        self._call_timeout_s = call_timeout_s
        self._stuck_s = stuck_s
        self._obtained_at = asyncio.get_running_loop().time()
        self._calls: set[asyncio.Task[Any]] = set()
        self._abandoned: set[Connection] = set()
        self._unreplicated: WeakSet[Connection] = WeakSet()
        self._closing = False

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        role: str = "primary",
        max_connections: int,
        max_waiting: int,
        wait_timeout_s: float,
        connect_timeout_s: int,
        statement_timeout_s: float,
        stuck_s: float = _STUCK_S,
    ) -> Self:
        """Open a pool: see `PostgresStore.open`. It is replaced if it provides nothing for *stuck_s*."""
        settings = _connection_settings(url, role, connect_timeout_s, statement_timeout_s)

        def make_pool(connection_class: type[Connection]) -> AsyncConnectionPool[Connection]:
            return AsyncConnectionPool(
                url,
                connection_class=connection_class,
                kwargs=settings,
                min_size=1,
                max_size=max_connections,
                # `run` bounds the queue: the pool also counts callers that have given up, and with
                # too many of them it stops reconnecting (psycopg#1315).
                max_waiting=0,
                timeout=wait_timeout_s,
                reconnect_timeout=_RECONNECT_S,
                name="hopgate",
                open=False,
            )

        connections = cls(
            make_pool,
            max_calls=max_connections + max_waiting,
            call_timeout_s=statement_timeout_s + _SILENCE_S,
            stuck_s=stuck_s,
        )
        try:
            await connections._pool.open()
        except BaseException:
            await connections._pool.close()
            raise
        return connections

    async def run(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """
        Return what *work* returns, given a connection in autocommit mode.

        Raises:
            Unavailable: any error that is not a bug of this program. With `was_lost` a read may be
                retried; the outcome of a write is unknown.
        """
        if len(self._calls) >= self._max_calls:
            raise Unavailable("postgresql", f"{self._max_calls} calls are pending already")
        abandoned = asyncio.get_running_loop().create_future()
        call = asyncio.create_task(self._perform(work, abandoned))
        self._calls.add(call)
        call.add_done_callback(self._forget)
        # Cancelling this does not cancel the call.
        await asyncio.wait((call, abandoned), return_when=asyncio.FIRST_COMPLETED)
        if not call.done():
            raise Unavailable("postgresql", f"no answer within {self._call_timeout_s:g} s")
        try:
            with _translated():
                return call.result()
        except Refused as error:
            self.writes.refuse(error)
            raise

    @property
    def state(self) -> PoolState:
        """The present state; a connection that is being opened counts as used."""
        return PoolState.of(self._pool.get_stats(), waiting=len(self._waiting))

    async def aclose(self) -> None:
        """Wait for pending calls unless they are abandoned, then close every connection."""
        self._closing = True
        for connection in self._abandoned:
            _shut(connection, socket.SHUT_RDWR)
        try:
            if self._calls:
                await asyncio.wait(self._calls, timeout=self._call_timeout_s)
        finally:
            await self._pool.close()

    async def _perform(
        self, work: Callable[[Connection], Awaitable[_T]], abandoned: asyncio.Future[None]
    ) -> _T:
        try:
            return await self._attempt(work, abandoned)
        except PoolTimeout:
            await self._mend()
            raise

    async def _attempt(
        self, work: Callable[[Connection], Awaitable[_T]], abandoned: asyncio.Future[None]
    ) -> _T:
        loop = asyncio.get_running_loop()
        async with self._living_connection() as connection:
            limit = loop.call_later(self._call_timeout_s, self._abandon, connection, abandoned)
            try:
                result = await work(connection)
                if connection in self._unreplicated:
                    self._unreplicated.discard(connection)
                    raise Unavailable("postgresql", "the standby has not confirmed the commit")
                return result
            finally:
                limit.cancel()
                if abandoned.done():
                    self._abandoned.discard(connection)
                    self._obtained_at = loop.time()  # the pool is not stuck: it had none to give
                    await connection.close()

    def _abandon(self, connection: Connection, abandoned: asyncio.Future[None]) -> None:
        """Let the caller go. The server sees the end of the session once it has done the statement."""
        if not self._abandoned:
            log.warning(
                "postgresql has not answered within %.1f s: sessions keep their connections until it has",
                self._call_timeout_s,
            )
        self._abandoned.add(connection)
        abandoned.set_result(None)
        _shut(connection, socket.SHUT_RDWR if self._closing else socket.SHUT_WR)

    @asynccontextmanager
    async def _living_connection(self) -> AsyncIterator[Connection]:
        # After a restart of the server all idle connections are dead. They are discarded before a
        # statement is sent, so that even a write can safely continue on the next one.
        while True:
            async with AsyncExitStack() as stack:
                connection = await self._obtained(stack.enter_async_context(self._pool.connection()))
                self._obtained_at = asyncio.get_running_loop().time()
                if not _hung_up(connection):
                    yield connection
                    return
                await connection.close()

    async def _obtained(self, connection: Awaitable[Connection]) -> Connection:
        """Wait for *connection*, which the pool bounds; fail fast once the server refuses one."""
        try:
            async with asyncio.timeout(None) as limit:
                self._waiting.add(limit)
                try:
                    return await connection
                finally:
                    self._waiting.discard(limit)
        except TimeoutError:
            raise Unavailable("postgresql", self._refusal) from None

    async def _connected(self, connecting: Awaitable[Connection]) -> Connection:
        """Await an attempt to connect; if it fails and no connection is left, fail all waiting callers."""
        self._attempts += 1
        try:
            connection = await connecting
            await refuse_pooler(connection)
        except psycopg.Error as error:
            self._refusal = _reason(error)
            # A live connection is in use and will become free: callers keep waiting for it.
            if self._attempts == 1 and all(connection.closed for connection in self._opened):
                waiting, self._waiting = self._waiting, set()
                for limit in waiting:
                    limit.reschedule(asyncio.get_running_loop().time())
            raise
        finally:
            self._attempts -= 1
        self._opened.add(connection)

        def note(notice: psycopg.errors.Diagnostic) -> None:
            if notice.source_function == _WAIT_FOR_STANDBY:
                self._unreplicated.add(connection)

        connection.add_notice_handler(note)
        return connection

    async def _mend(self) -> None:
        """Replace a pool that provides no connection. Harmless if the server is the cause."""
        now = asyncio.get_running_loop().time()
        # With abandoned sessions the server is the cause, and another pool would open further ones.
        if self._abandoned or now - self._obtained_at < self._stuck_s:
            return
        self._obtained_at = now
        suspect, self._pool = self._pool, self._make_pool()
        log.warning("postgresql connection pool gave no connection for %.0f s and is replaced", self._stuck_s)
        try:
            await self._pool.open()
        finally:
            await suspect.close(timeout=1)

    def _forget(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # marks the error as retrieved: the caller may have been cancelled


def _watched(connected: Callable[[Awaitable[Connection]], Awaitable[Connection]]) -> type[Connection]:
    """Return a connection class whose attempts to connect are awaited by *connected*."""

    class Watched(AsyncConnection[tuple[Any, ...]]):
        @classmethod
        async def connect(cls, conninfo: str = "", **settings: Any) -> Connection:  # type: ignore[override]
            return await connected(super().connect(conninfo, **settings))

    return Watched


async def rows_of(
    connection: Connection, statement: str, parameters: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """Run *statement* and return its rows."""
    cursor = await connection.execute(statement.encode(), parameters, prepare=True, binary=True)
    return await cursor.fetchall()


def read_url(url: str, role: str) -> Mapping[str, Any]:
    """
    Return the parts of *url*, by libpq's names.

    Raises:
        SettingsError: libpq cannot parse it.
    """
    try:
        return conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Its message quotes the URL, which holds the password.
        raise SettingsError(
            f"the URL of the {role} database cannot be parsed as postgresql://user@host/database;"
            " check its options against libpq's"
        ) from None


def _connection_settings(
    url: str, role: str, connect_timeout_s: int, statement_timeout_s: float
) -> dict[str, str | int | bool]:
    given = read_url(url, role)
    ours = (
        f"-c statement_timeout={round(statement_timeout_s * 1000)}"
        " -c timezone=UTC -c default_transaction_isolation=read\\ committed"
    )
    return {
        "autocommit": True,
        "application_name": "hopgate",
        # Of several hosts, the one with this role, unless the URL decides.
        "target_session_attrs": given.get("target_session_attrs") or role,
        "connect_timeout": given.get("connect_timeout") or connect_timeout_s,
        "options": f"{given.get('options') or ''} {ours}".strip(),
        # Without these, a session with a host that is gone would count for hours.
        "tcp_user_timeout": given.get("tcp_user_timeout") or _GONE_S * 1000,
        "keepalives_idle": given.get("keepalives_idle") or _GONE_S,
        "keepalives_interval": given.get("keepalives_interval") or 1,
        "keepalives_count": given.get("keepalives_count") or _GONE_S,
    }


def _hung_up(connection: Connection) -> bool:
    """Did the server end this idle connection? Readable input means that it did. No round trip."""
    if connection.closed:
        return True
    poll = select.poll()  # select() fails for descriptors above 1023
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _shut(connection: Connection, how: int) -> None:
    """Shut the socket of *connection* down, *how* as `socket.shutdown` takes it; the driver closes it."""
    if connection.closed:
        return
    # An error means that it is closed already.
    with socket.socket(fileno=os.dup(connection.fileno())) as shared, suppress(OSError):
        shared.shutdown(how)


# --- errors ----------------------------------------------------------------------------

_UNAVAILABLE = (
    psycopg.OperationalError,  # includes every error of the pool
    psycopg.InterfaceError,
    psycopg.errors.InternalError_,
    psycopg.errors.DataCorrupted,
    psycopg.errors.IndexCorrupted,
)
# The server answered, so it has rolled the transaction back.
_REFUSED = (
    psycopg.errors.DiskFull,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.ReadOnlySqlTransaction,
)
OLD_SCHEMA = "its schema is older than this program: run `hopgate migrate`"


@contextmanager
def _translated() -> Iterator[None]:
    """Turn errors of the server into `Unavailable`; bugs of this program pass unchanged."""
    try:
        yield
    except _REFUSED as error:
        raise Refused("postgresql", _reason(error)) from error
    except _UNAVAILABLE as error:
        raise Unavailable("postgresql", _reason(error), was_lost=_was_lost(error)) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise Unavailable("postgresql", OLD_SCHEMA) from error


def _reason(error: psycopg.Error) -> str:
    if is_pooler(error):
        return POOLER
    if error.sqlstate is not None:
        return f"{error.diag.message_primary} ({error.sqlstate})"
    return str(error).partition("\n")[0]


def _was_lost(error: psycopg.Error) -> bool:
    """Did the connection break, or the server terminate it?"""
    if isinstance(error, PoolTimeout):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(("08", "57P"))
