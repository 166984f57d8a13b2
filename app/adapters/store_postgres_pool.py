"""
Connections to PostgreSQL that survive restarts, silent servers and cancelled callers.

A call runs in a task of its own and is never interrupted in the middle of a conversation:
whoever is cancelled leaves at once, while the call comes to its end and hands back a clean
connection. A call that takes longer than the server's own limit has its socket shut. Nobody waits
for a connection that the server has just refused, unless one of those in use may become free.
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

from app.domain.errors import Unavailable
from app.settings import SettingsError

log = logging.getLogger(__name__)

Connection = AsyncConnection[tuple[Any, ...]]
_T = TypeVar("_T")

# How long the server may overrun its own time limit before it counts as silent.
_SILENCE_S = 1.0
# The pool gives up at the second attempt, and the next call that wants a connection makes it try
# again: so it is not behind a server that came back, and breakers see to it that few calls ask.
_RECONNECT_S = 0.0
# A pool that lost sight of its connections gives none for ever.
_STUCK_S = 15.0


class Connections:
    """Made by `open`. Without `aclose` the event loop may not end: the pool's tasks outlive a cancel."""

    def __init__(
        self,
        make_pool: Callable[[type[Connection]], AsyncConnectionPool[Connection]],
        *,
        max_calls: int,
        call_timeout_s: float,
        stuck_s: float,
    ) -> None:
        self._opened: WeakSet[Connection] = WeakSet()
        self._hopes: set[asyncio.Timeout] = set()
        self._attempts = 0
        self._refusal = ""
        self._make_pool = partial(make_pool, _watched(self._connected))
        self._pool = self._make_pool()
        self._max_calls = max_calls
        self._call_timeout_s = call_timeout_s
        self._stuck_s = stuck_s
        self._obtained_at = asyncio.get_running_loop().time()
        self._calls: set[asyncio.Task[Any]] = set()

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
        """See `PostgresStore.open`. After *stuck_s* without a connection the pool itself is suspected."""
        settings = _connection_settings(url, role, connect_timeout_s, statement_timeout_s)

        def make_pool(connection_class: type[Connection]) -> AsyncConnectionPool[Connection]:
            return AsyncConnectionPool(
                url,
                connection_class=connection_class,
                kwargs=settings,
                min_size=1,
                max_size=max_connections,
                # Bounded here, by `run`: the pool goes on counting who has given up waiting, and
                # once it counts too many it does not even connect again (psycopg#1315).
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
        await connections._pool.open()
        return connections

    async def run(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """
        Return what *work* returns, given a connection in autocommit mode.

        Raises:
            Unavailable: whatever is not a mistake in this program. Its `was_lost` says that a
                read may be done again; of a write nobody knows whether it happened.
        """
        if len(self._calls) >= self._max_calls:
            raise Unavailable("postgresql", f"{self._max_calls} calls are under way already")
        call = asyncio.create_task(self._perform(work))
        self._calls.add(call)
        call.add_done_callback(self._forget)
        await asyncio.wait((call,))  # cancelling this does not cancel the call
        with _translated():
            return call.result()

    async def aclose(self) -> None:
        """Let the calls under way end, then close every connection."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._call_timeout_s)
        await self._pool.close()

    async def _perform(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        try:
            return await self._attempt(work)
        except PoolTimeout:
            await self._mend()
            raise

    async def _attempt(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        loop = asyncio.get_running_loop()
        async with self._living_connection() as connection:
            limit = loop.call_later(self._call_timeout_s, _shut, connection)
            try:
                return await work(connection)
            except psycopg.OperationalError as error:
                if loop.time() >= limit.when():
                    message = f"no answer within {self._call_timeout_s:g} s"
                    raise Unavailable("postgresql", message) from error
                raise
            finally:
                limit.cancel()

    @asynccontextmanager
    async def _living_connection(self) -> AsyncIterator[Connection]:
        # After a restart of the server all idle connections are dead. They are sorted out
        # before anything is sent, so that even a write is safe to go on with the next one.
        while True:
            async with AsyncExitStack() as stack:
                connection = await self._hoped_for(stack.enter_async_context(self._pool.connection()))
                self._obtained_at = asyncio.get_running_loop().time()
                if not _hung_up(connection):
                    yield connection
                    return
                await connection.close()

    async def _hoped_for(self, connection: Awaitable[Connection]) -> Connection:
        """Wait for *connection*, which the pool bounds, until the server refuses one."""
        try:
            async with asyncio.timeout(None) as hope:
                self._hopes.add(hope)
                try:
                    return await connection
                finally:
                    self._hopes.discard(hope)
        except TimeoutError:
            raise Unavailable("postgresql", self._refusal) from None

    async def _connected(self, connecting: Awaitable[Connection]) -> Connection:
        """Await an attempt to connect; if it fails and was the last hope, let nobody wait for the next."""
        self._attempts += 1
        try:
            connection = await connecting
        except psycopg.Error as error:
            self._refusal = _reason(error)
            # A connection that lives is in use, or on its way to somebody: it is there for all who wait.
            if self._attempts == 1 and all(connection.closed for connection in self._opened):
                hopes, self._hopes = self._hopes, set()
                for hope in hopes:
                    hope.reschedule(asyncio.get_running_loop().time())
            raise
        finally:
            self._attempts -= 1
        self._opened.add(connection)
        return connection

    async def _mend(self) -> None:
        """Replace a pool that gives nothing. If it is the server that is away, nothing is lost by it."""
        now = asyncio.get_running_loop().time()
        if now - self._obtained_at < self._stuck_s:
            return
        self._obtained_at = now
        suspect, self._pool = self._pool, self._make_pool()
        log.warning("the connection pool gave nothing for %.0f s and is replaced", self._stuck_s)
        await self._pool.open()
        await suspect.close(timeout=1)

    def _forget(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # whoever asked may have left: then nobody else looks at it


def _watched(connected: Callable[[Awaitable[Connection]], Awaitable[Connection]]) -> type[Connection]:
    """Return a class of connections that has *connected* await each attempt to connect."""

    class Watched(AsyncConnection[tuple[Any, ...]]):
        @classmethod
        async def connect(cls, conninfo: str = "", **settings: Any) -> Connection:  # type: ignore[override]
            return await connected(super().connect(conninfo, **settings))

    return Watched


async def rows_of(
    connection: Connection, statement: str, parameters: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """Return what *statement* gives."""
    cursor = await connection.execute(statement.encode(), parameters, prepare=True, binary=True)
    return await cursor.fetchall()


def read_url(url: str, role: str) -> Mapping[str, Any]:
    """
    Return what *url* says, by libpq's names.

    Raises:
        SettingsError: libpq cannot read it.
    """
    try:
        return conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Its message quotes the URL, which holds the password.
        raise SettingsError(
            f"the URL of the {role} database cannot be parsed as postgresql://user@host/database;"
            " does libpq know each of its options?"
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
        # Of several hosts, as a rule the one that holds the truth.
        "target_session_attrs": given.get("target_session_attrs") or role,
        "connect_timeout": given.get("connect_timeout") or connect_timeout_s,
        "options": f"{given.get('options') or ''} {ours}".strip(),
    }


def _hung_up(connection: Connection) -> bool:
    """Did the server say anything to an idle connection? It does so only to end it. No round trip."""
    if connection.closed:
        return True
    poll = select.poll()  # select() knows no descriptor above 1023
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _shut(connection: Connection) -> None:
    """Make whoever reads from *connection* see its end; the descriptor stays the driver's to close."""
    if connection.closed:
        return
    # An error means that it ended by itself.
    with socket.socket(fileno=os.dup(connection.fileno())) as shared, suppress(OSError):
        shared.shutdown(socket.SHUT_RDWR)


# --- errors ----------------------------------------------------------------------------

_UNAVAILABLE = (
    psycopg.OperationalError,  # among others all of the pool's
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.InternalError_,
    psycopg.errors.DataCorrupted,
    psycopg.errors.IndexCorrupted,
    psycopg.errors.InsufficientPrivilege,
)
OLD_SCHEMA = "its schema is older than this program: run `hopgate migrate`"


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what is the server's fault into `Unavailable`; a mistake in this program stays what it is."""
    try:
        yield
    except _UNAVAILABLE as error:
        raise Unavailable("postgresql", _reason(error), was_lost=_was_lost(error)) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise Unavailable("postgresql", OLD_SCHEMA) from error


def _reason(error: psycopg.Error) -> str:
    if error.sqlstate is not None:
        return f"{error.diag.message_primary} ({error.sqlstate})"
    return str(error).partition("\n")[0]


def _was_lost(error: psycopg.Error) -> bool:
    """Did the connection break, or the server throw it out?"""
    if isinstance(error, PoolTimeout):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(("08", "57P"))
