"""
`WebhookSender` over HTTP/1.1: one request on one connection, to an address that was checked.

The client is as small as the task: it resolves the name once, connects to an address that passed, sends, and
reads the status. So there is nothing that follows redirects, reads a proxy from the environment, resolves
again or keeps a body.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from app.domain.addresses import IpNetwork, may_connect
from app.ports import Undeliverable

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
# Of an answer no more is read than this, for each head: there may be several with 1xx.
_MAX_HEAD_BYTES = 16_384
_MAX_HEADS = 4
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Look-ups are made in threads of the event loop, which the connections to services need as well.
_LOOK_UPS = 2


class HttpSender:
    """
    Sends messages to addresses of the public internet alone.

    Belongs to one event loop.

    Args:
        networks: further addresses that it may connect to.
        timeout_s: bounds the whole exchange.
        resolve: returns the addresses of a name; the event loop's look-up by default.
        tls: verifies servers; the certificates that the system trusts by default.
    """

    def __init__(
        self,
        *,
        networks: Collection[IpNetwork] = (),
        timeout_s: float = 10.0,
        resolve: Resolve | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._networks = networks
        self._timeout_s = timeout_s
        self._resolve = resolve or _LookUps().resolve
        self._tls = tls or _system_tls

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._sent(url, headers, body)
        except TimeoutError:
            raise Undeliverable(f"no answer within {self._timeout_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise Undeliverable(f"the certificate is refused: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise Undeliverable(f"TLS failed: {error.reason}") from None
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise Undeliverable("the answer is no HTTP") from None
        except ValueError:
            raise Undeliverable("the URL cannot be requested") from None
        except OSError as error:
            raise Undeliverable(f"the connection failed: {error.strerror or type(error).__name__}") from None

    async def _sent(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
        context = self._tls() if parts.scheme == "https" else None
        reader, writer = await self._connected(host, port, context)
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            lines = [
                f"POST {target} HTTP/1.1",
                f"host: {parts.netloc}",
                "user-agent: Hopgate",
                "content-type: application/json",
                f"content-length: {len(body)}",
                "connection: close",
                *(f"{name}: {value}" for name, value in headers.items()),
            ]
            writer.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
            await writer.drain()
            return await _status(reader)
        finally:
            # The rest of the answer is not read, whatever its length.
            writer.transport.abort()

    async def _connected(
        self, host: str, port: int, context: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first address of *host* that may be connected to, and answers."""
        found = await self._resolve(host, port)
        addresses = [address for address in dict.fromkeys(found) if may_connect(address, self._networks)]
        if not addresses:
            raise Undeliverable("the host has no public address" if found else "the host has no address")
        for address in addresses[:-1]:
            with suppress(ConnectionError):
                return await self._opened(address, host, port, context)
        return await self._opened(addresses[-1], host, port, context)

    async def _opened(
        self, address: str, host: str, port: int, context: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = host.removesuffix(".") if context is not None else None
        return await asyncio.open_connection(
            address, port, ssl=context, server_hostname=name, limit=_MAX_HEAD_BYTES
        )


class _LookUps:
    """Resolves names, a few at a time: a look-up that is given up holds its thread until it ends."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_LOOK_UPS)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        await self._places.acquire()
        task = asyncio.create_task(_look_up(loop, host, port))

        def done(ended: asyncio.Task[Any]) -> None:
            self._places.release()
            if not ended.cancelled():
                ended.exception()

        task.add_done_callback(done)
        try:
            found = await asyncio.shield(task)
        except OSError:
            raise Undeliverable("the host has no address") from None
        return [str(address[0]) for *_, address in found]


async def _look_up(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Sequence[Any]:
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _status(reader: asyncio.StreamReader) -> int:
    for _ in range(_MAX_HEADS):
        head = await reader.readuntil(b"\n")
        match = _STATUS.fullmatch(head)
        if match is None:
            raise Undeliverable("the answer is no HTTP")
        status = int(match[1])
        if status >= 200:
            return status
        await reader.readuntil(b"\r\n\r\n")
    raise Undeliverable("the answer is no HTTP")


@cache
def _system_tls() -> ssl.SSLContext:
    """Return what verifies servers by the certificates of the system; loading them takes a while."""
    return ssl.create_default_context()
