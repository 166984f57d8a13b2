"""The connection that batch reads of Redis share, against a scripted server on a real socket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import hiredis
import pytest
import uvloop

from app.adapters.redis.cache import RedisCache
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.wire import cache_key, encode_resolution
from tests.contract.cache_entries import A, B, cached, live
from tests.servers.certificates import Authority

_HELD = {cache_key(slug).encode(): encode_resolution(live(slug, 7)) for slug in (A, B)}


class _Redis:
    """
    Answers MGET from `_HELD`; nothing while `is_silent`.

    `commands` has the commands of each connection, in order.
    """

    def __init__(self) -> None:
        self.commands: list[list[list[bytes]]] = []
        self.is_silent = False
        self.answer: Callable[[list[bytes]], bytes] = self.values
        self.open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serving(self, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls) as server:
            yield server.sockets[0].getsockname()[1]
            self.hang_up()

    @asynccontextmanager
    async def serving_on(self, path: Path) -> AsyncIterator[None]:
        async with await asyncio.start_unix_server(self._serve, path):
            yield
            self.hang_up()

    def hang_up(self) -> None:
        for writer in self.open:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser, received = hiredis.Reader(), list[list[bytes]]()
        self.commands.append(received)
        self.open.add(writer)
        while data := await reader.read(65_536):
            parser.feed(data)
            while command := parser.gets():
                received.append(command)
                if not self.is_silent:
                    writer.write(self.answer(command))
        writer.close()
        self.open.discard(writer)

    @staticmethod
    def values(command: list[bytes]) -> bytes:
        if command[0] != b"MGET":
            return b"+OK\r\n"
        values = [_HELD.get(key) for key in command[1:]]
        replies = [
            b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value) for value in values
        ]
        return b"*%d\r\n%s" % (len(replies), b"".join(replies))


@asynccontextmanager
async def _cache(url: str, timeout_s: float = 20) -> AsyncIterator[RedisCache]:
    cache = RedisCache(url, timeout_s=timeout_s, connect_timeout_s=20)
    yield cache
    await cache.aclose()


@asynccontextmanager
async def _both(timeout_s: float = 20) -> AsyncIterator[tuple[_Redis, RedisCache]]:
    server = _Redis()
    async with server.serving() as port, _cache(f"redis://127.0.0.1:{port}/3", timeout_s) as cache:
        yield server, cache


async def test_reads_share_one_connection() -> None:
    async with _both() as (server, cache):
        found = await asyncio.gather(*(cached(cache, slug) for slug in (A, B, A)))

    assert found == [live(A, 7), live(B, 7), live(A, 7)]
    reads = [[b"MGET", cache_key(slug).encode()] for slug in (A, B, A)]
    assert server.commands == [[[b"SELECT", b"3"], *reads]]


async def test_reply_of_a_cancelled_read_goes_to_no_other() -> None:
    async with _both() as (server, cache):
        await cached(cache, A)
        server.is_silent = True
        given_up = asyncio.create_task(cached(cache, A))
        await _until(lambda: len(server.commands[0]) == 3)
        given_up.cancel()
        await asyncio.wait([given_up])
        server.is_silent = False
        # Both replies at once, the first of them late.
        late = server.values([b"MGET", cache_key(A).encode()])
        server.answer = lambda command: late + server.values(command)
        found = await cached(cache, B)

    assert found == live(B, 7)
    assert len(server.commands) == 1


async def test_silent_connection_is_replaced() -> None:
    async with _both(timeout_s=0.1) as (server, cache):
        await cached(cache, A)
        server.is_silent = True
        outcomes = await asyncio.gather(cached(cache, A), cached(cache, B), return_exceptions=True)
        server.is_silent = False
        found = await cached(cache, B)

    assert [str(outcome) for outcome in outcomes] == ["redis is unavailable: no reply within 0.1 s"] * 2
    assert found == live(B, 7)
    assert len(server.commands) == 2


async def test_silence_shows_though_every_caller_has_given_up() -> None:
    async with _both(timeout_s=0.1) as (server, cache):
        await cached(cache, A)
        server.is_silent = True
        given_up = asyncio.create_task(cached(cache, A))
        await _until(lambda: len(server.commands[0]) == 3)
        given_up.cancel()
        await _until(lambda: not server.open)
        server.is_silent = False

        assert await cached(cache, A) == live(A, 7)


async def test_connection_that_the_server_closed_is_replaced() -> None:
    async with _both() as (server, cache):
        await cached(cache, A)
        server.is_silent = True
        waiting = asyncio.create_task(cached(cache, A))
        await _until(lambda: len(server.commands[0]) == 3)
        server.hang_up()
        with pytest.raises(Unavailable, match="the server closed the connection"):
            await waiting
        server.is_silent = False

        assert await cached(cache, A) == live(A, 7)


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*1\r\n$-1\r\n*1\r\n$-1\r\n"])
async def test_what_is_no_reply_closes_the_connection(reply: bytes) -> None:
    """Also one reply too many: the next would not be that of its command."""
    async with _both() as (server, cache):
        await cached(cache, A)
        server.answer = lambda _: reply
        with pytest.raises(Unavailable) if b"HTTP" in reply else nullcontext():
            await cached(cache, A)
        await _until(lambda: not server.open)
        server.answer = server.values

        assert await cached(cache, A) == live(A, 7)


async def test_error_reply_is_that_of_its_command() -> None:
    async with _both() as (server, cache):
        await cached(cache, A)
        server.answer = lambda _: b"-LOADING Redis is loading the dataset in memory\r\n"
        with pytest.raises(Unavailable, match="LOADING"):
            await cached(cache, A)
        server.answer = server.values

        assert await cached(cache, A) == live(A, 7)
    assert len(server.commands) == 1


async def test_caller_that_gives_up_leaves_the_connection_to_others() -> None:
    """Connecting may take longer than a caller has."""
    async with _both() as (server, cache):
        server.is_silent = True
        first, second = (asyncio.create_task(cached(cache, A)) for _ in range(2))
        await _until(lambda: server.commands and server.commands[0])
        first.cancel()
        await asyncio.wait([first])
        server.is_silent = False
        for writer in server.open:
            writer.write(b"+OK\r\n")

        assert await second == live(A, 7)
    assert len(server.commands) == 1


async def test_failed_attempt_is_shared() -> None:
    async with _cache("redis://127.0.0.1:1/0") as cache:
        outcomes = await asyncio.gather(*(cached(cache, A) for _ in range(3)), return_exceptions=True)

    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)


def test_every_kind_of_address_on_uvloop(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.certificate(), authority.key)

    async def found(url: str) -> Resolution | None:
        async with _cache(url) as cache:
            first, _ = await asyncio.gather(cached(cache, A), cached(cache, Slug("absent")))
            return first

    async def run() -> list[Resolution | None]:
        server, path = _Redis(), tmp_path / "redis"
        async with server.serving() as port, server.serving(tls=tls) as secure, server.serving_on(path):
            return [
                await found(f"redis://127.0.0.1:{port}/0"),
                await found(f"rediss://localhost:{secure}/0?ssl_ca_certs={authority.authority}"),
                await found(f"unix://{path}"),
            ]

    assert uvloop.run(run()) == [live(A, 7)] * 3
    assert asyncio.run(run()) == [live(A, 7)] * 3


async def _until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.001)
