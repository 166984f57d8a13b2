"""
One connection to Redis that concurrent reads share.

A command of redis-py costs a task, two timers and a connection from the pool, 50 to 100 µs in all, which
every batch of misses would pay. Here the commands are pipelined, and all of them have one timer: 8 µs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.concurrency.stopping import stop

# A timer that fires this late means that the event loop was busy: replies may be waiting unread.
_LATE_S = 0.01
_NOTHING = object()


class SharedConnection:
    """
    Executes commands on one connection, which the first call opens, as does the next one after a failure.

    redis-py opens it, with all that its URL says. A command that is not answered within the connection's
    `socket_timeout` closes it, and fails with all others that wait: Redis answers in order. A cancelled call
    closes nothing, but its reply is still waited for. Belongs to one event loop.

    Args:
        make: returns a connection of redis-py that is not open yet.
    """

    def __init__(self, make: Callable[[], AbstractConnection]) -> None:
        self._make = make
        self._opening: asyncio.Task[_Replies] | None = None
        self._replies: _Replies | None = None
        self._connection: AbstractConnection | None = None

    async def execute(self, *command: str) -> Any:
        """
        Return the reply to *command*.

        Raises:
            RedisError: an error reply; or no connection, no reply in time, a lost connection.
            OSError: no connection.
        """
        replies = self._replies
        if replies is None or replies.is_closed:
            replies = await self._opened()
        return await replies.send(hiredis.pack_command(command))  # type: ignore[arg-type]

    async def aclose(self) -> None:
        """Close the connection; calls under way fail."""
        if self._opening is not None:
            await stop([self._opening], "connecting to Redis")
        await self._close()

    async def _opened(self) -> _Replies:
        # Callers share one attempt, and its failure; a caller that gives up does not end it for the others.
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open(), context=Context())
            self._opening.add_done_callback(self._note_opened)
        return await asyncio.shield(self._opening)

    def _note_opened(self, opening: asyncio.Task[_Replies]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # each caller gets it, if any is left

    async def _open(self) -> _Replies:
        await self._close()
        self._connection = connection = self._make()
        await connection.connect()  # type: ignore[no-untyped-call]
        writer = connection._writer  # noqa: SLF001 - redis-py hands its transport out nowhere else
        if writer is None:
            raise RedisConnectionError("the connection was closed")
        self._replies = _Replies(writer.transport, connection.socket_timeout)
        return self._replies

    async def _close(self) -> None:
        replies, self._replies = self._replies, None
        if replies is not None:
            replies.close(RedisConnectionError("the connection was closed"))
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError):
                # Without waiting: its own protocol is not notified of the end.
                await connection.disconnect(nowait=True)


class _Replies(asyncio.Protocol):
    """Gives each command on *transport* its reply. They come in order, also those of cancelled calls."""

    def __init__(self, transport: asyncio.WriteTransport, timeout_s: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        # When each of them is late, and what waits for it.
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._has_extended = False
        transport.set_protocol(self)

    @property
    def is_closed(self) -> bool:
        return self._transport.is_closing()

    def send(self, command: bytes) -> asyncio.Future[Any]:
        """Send the packed *command*; not on a closed connection."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        late_at = 0.0 if self._timeout_s is None else self._loop.time() + self._timeout_s
        self._waiting.append((late_at, reply))
        self._transport.write(command)
        if self._timer is None and self._timeout_s is not None:
            self._set_timer(late_at)
        return reply

    def close(self, error: RedisError) -> None:
        """Close the connection; calls under way fail with *error*."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for _, reply in waiting:
            if not reply.done():
                reply.set_exception(error)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (value := self._reader.gets()) is not _NOTHING:
                _, reply = self._waiting.popleft()
                if reply.done():
                    continue
                if isinstance(value, hiredis.ReplyError):
                    reply.set_exception(ResponseError(str(value)))
                else:
                    reply.set_result(value)
        except (hiredis.ProtocolError, IndexError):
            self.close(RedisConnectionError("the reply is not one of Redis"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(RedisConnectionError(str(exc or "the server closed the connection")))

    def _set_timer(self, due: float) -> None:
        self._due = due
        self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        """Close the connection if the oldest command is late; else look again when it would be."""
        self._timer = None
        if not self._waiting or self._timeout_s is None:
            self._has_extended = False
            return
        now, (late_at, _) = self._loop.time(), self._waiting[0]
        if late_at > now:
            self._has_extended = False
            self._set_timer(late_at)
        elif now - self._due > _LATE_S and not self._has_extended:
            self._has_extended = True
            self._set_timer(now + min(now - self._due, self._timeout_s))
        else:
            self.close(RedisTimeoutError(f"no reply within {self._timeout_s:g} s"))
