"""
`WebhookSender` over HTTP/1.1: one request on one connection, to an address that was checked.

The client is as small as the task: it resolves the name once, connects to an address that passed, sends, and
reads the status, of a failure the headers as well. So there is nothing that follows redirects, reads a proxy
from the environment, resolves again or keeps a body.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

from app.concurrency.single_flight import SingleFlight
from app.domain.addresses import IpNetwork, may_connect
from app.ports import HookAnswer, Undeliverable

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
# Of an answer no more is read than this, for each head: there may be several with 1xx.
_MAX_HEAD_BYTES = 16_384
_MAX_HEADS = 4
# The status is there: what its headers say is worth this wait.
_HEADERS_S = 1.0
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Of a name; the time of an attempt is shared among them.
_MAX_ADDRESSES = 4
# At a time, each for another name: a name whose servers are silent holds its thread for half a minute.
_LOOK_UPS = 16


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
        self._resolve = resolve or LookUps().resolve
        self._tls = tls or _system_tls

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> HookAnswer:
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

    async def _sent(self, url: str, headers: Mapping[str, str], body: bytes) -> HookAnswer:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
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
            return await _answer(reader)
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
        tried = addresses[:_MAX_ADDRESSES]
        for address in tried[:-1]:
            try:
                async with asyncio.timeout(self._timeout_s / len(tried)):
                    return await self._opened(address, host, port, context)
            except ssl.SSLError:
                raise
            except OSError:  # refused, unreachable, or silent
                continue
        return await self._opened(tried[-1], host, port, context)

    async def _opened(
        self, address: str, host: str, port: int, context: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = host.removesuffix(".") if context is not None else None
        return await asyncio.open_connection(
            address, port, ssl=context, server_hostname=name, limit=_MAX_HEAD_BYTES
        )


class LookUps:
    """
    Resolves names, each once at a time: a look-up that is given up goes on until it ends.

    In threads of its own. Those of the event loop are for connections to services, and the end of the process
    waits for them.

    Args:
        look_up: as `socket.getaddrinfo`.
    """

    def __init__(self, look_up: Callable[..., Sequence[Any]] = socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._places = asyncio.Semaphore(_LOOK_UPS)
        self._asking: SingleFlight[tuple[str, int], Sequence[str]] = SingleFlight()

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of *host*. Raises Undeliverable, or ValueError if no name can be as *host*."""
        return await self._asking.do((host, port), lambda: self._ask(host, port))

    async def _ask(self, host: str, port: int) -> Sequence[str]:
        async with self._places:
            return await _in_thread(partial(self._look_up, host, port, type=socket.SOCK_STREAM))


async def _in_thread(look_up: Callable[[], Sequence[Any]]) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Sequence[str]] = loop.create_future()

    def give(addresses: Sequence[str], error: Exception | None) -> None:
        if answer.done():  # the loop ends
            return
        if error is None:
            answer.set_result(addresses)
        else:
            answer.set_exception(error)

    def ask() -> None:
        addresses: list[str] = []
        failure: Exception | None = None
        try:
            addresses = [str(address[0]) for *_, address in look_up()]
        except OSError:
            failure = Undeliverable("the host has no address")
        except ValueError as error:  # it is too long for a name
            failure = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(give, addresses, failure)

    threading.Thread(target=ask, name="hopgate-hook-name", daemon=True).start()
    return await answer


async def _answer(reader: asyncio.StreamReader) -> HookAnswer:
    for _ in range(_MAX_HEADS):
        match = _STATUS.fullmatch(await reader.readuntil(b"\n"))
        if match is None:
            break
        status = int(match[1])
        if 200 <= status < 300:
            return HookAnswer(status)
        if status >= 300:
            return HookAnswer(status, await _retry_after(reader))
        # 101 is an answer to a question that was not asked.
        if status == 101 or await _headers(reader) is None:
            break
    raise Undeliverable("the answer is no HTTP")


async def _retry_after(reader: asyncio.StreamReader) -> str | None:
    """Return what the headers say; nothing if they are late, too many or none: the status counts without."""
    try:
        async with asyncio.timeout(_HEADERS_S):
            lines = await _headers(reader) or []
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    pairs = [line.partition(b":") for line in lines]
    values = [value for name, _, value in pairs if name.lower() == b"retry-after"]
    return values[0].strip().decode("latin-1") if values else None


async def _headers(reader: asyncio.StreamReader) -> Sequence[bytes] | None:
    """Return the lines up to the empty one; None: they are longer than a head may be."""
    lines: list[bytes] = []
    left = _MAX_HEAD_BYTES
    while left > 0:
        line = await reader.readuntil(b"\n")
        if not line.strip():
            return lines
        lines.append(line)
        left -= len(line)
    return None


@cache
def _system_tls() -> ssl.SSLContext:
    """Return what verifies servers by the certificates of the system; loading them takes a while."""
    return ssl.create_default_context()
