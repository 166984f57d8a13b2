"""
A supervised AMQP connection: opened, probed, and reopened after a failure.

Deliberately not `aio_pika.connect_robust`: its replay of channels and consumers hides that
messages may have been lost, and a publish on it waits for the reconnect. Here a lost connection
ends a session, and the next session declares everything again.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any
from urllib.parse import urlsplit

from aio_pika import Connection
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from app.concurrency.stopping import CANCEL_EVERY_S, outlast, retrieve, stop
from app.domain.errors import SettingsError, Unavailable
from app.domain.redaction import redacted

logger = logging.getLogger(__name__)

# aiormq detects a dead peer after three heartbeats and a bit: 18 s instead of 183 s.
HEARTBEAT_S = 5
# So each connection also sends a probe: an unresponsive broker is detected within the sum of the two.
PROBE_S = 3.0
PROBE_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 5.0
# Declaring takes a dozen round trips. aiormq bounds most of them, but not the opening and closing of
# channels: a lost reply to one of those would block the session for ever.
SETUP_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 2.0
# The session, a clean close, an abort, and a session that goes on: each has `CLOSE_TIMEOUT_S`.
_END_S = 4 * CLOSE_TIMEOUT_S + 1.0
# A refused attempt is cheap, and the longest delay adds to every recovery of the broker.
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.2, 2.0
_MAX_DOUBLINGS = 16

Session = Callable[[AbstractConnection, Callable[[], None]], Coroutine[Any, Any, None]]


class SupervisedConnection:
    """
    Runs *session* on a connection, and again on a new one each time it ends, until `aclose`.

    A session declares what it needs, calls its `ready` argument, and returns or raises when it needs a
    new connection.
    """

    def __init__(
        self,
        url: str,
        name: str,
        session: Session,
        *,
        probe_s: float = PROBE_S,
        setup_s: float = SETUP_TIMEOUT_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """
        Prepare the connection; `start` opens it.

        Args:
            url: `amqp://` or `amqps://`; of several hosts one is used, and the next after a failure. A
                heartbeat in its query overrides `HEARTBEAT_S`.
            name: shown in logs and in the broker's list of connections.
            session: see the class.
            probe_s: between two probes of the broker.
            setup_s: the most from the open connection until the session is ready.
            sleep: waits for a number of seconds.
            random: returns floats in [0, 1), for the jitter between two attempts.
        """
        self._urls = [
            one if "heartbeat" in one.query else one.update_query(heartbeat=HEARTBEAT_S) for one in nodes(url)
        ]
        self._node = 0  # of `_urls`, modulo
        self._name = name
        self._session = session
        self._probe_s = probe_s
        self._setup_s = setup_s
        self._sleep = sleep
        self._random = random
        self._failures = 0  # in a row
        self._failure = ""
        self._is_ready = False
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def failure(self) -> str:
        """Why the last attempt failed, without credentials; empty once a session is ready."""
        return self._failure

    @property
    def is_ready(self) -> bool:
        """Whether a session is ready, as far as this process knows: a probe tells within `PROBE_S`."""
        return self._is_ready

    def start(self) -> None:
        """Start connecting in the background. Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._supervise(), name=f"amqp-{self._name}")

    async def aclose(self) -> None:
        """End the session, then disconnect: at most `_END_S` in all, whatever the session does."""
        self._is_closed = True
        if self._task is not None:
            await stop([self._task], f"rabbitmq connection {self._name}", within_s=_END_S)

    async def _supervise(self) -> None:
        while not self._is_closed:
            try:
                await self._connect_and_run()
                reason = "the session ended"
            except Exception as error:  # noqa: BLE001 - a supervisor: any end is followed by a new start
                reason = f"{type(error).__name__}: {error}"
            self._failure = redacted(reason)
            # Full jitter: after an outage the whole fleet reconnects, but spread out.
            doublings = min(self._failures, _MAX_DOUBLINGS)
            delay_s = self._random() * min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2**doublings)
            self._failures += 1
            # A node that was lost may be back; one that refused is not asked again at once.
            was_ready, self._is_ready = self._is_ready, False
            self._node += not was_ready
            logger.warning(
                "rabbitmq connection %s %s: %s; reconnecting in %.2f s",
                self._name,
                "lost" if was_ready else "failed",
                self._failure,
                delay_s,
            )
            await self._sleep(delay_s)

    async def _connect_and_run(self) -> None:
        url = self._urls[self._node % len(self._urls)]
        transport = _AbortableTransport(
            TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        )
        connection = Connection(url, client_properties={"connection_name": f"hopgate {self._name}"})
        # aio_pika takes no transport factory itself; it passes these on to aiormq.
        connection.kwargs["transport_factory"] = transport
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()
        except BaseException:
            # Its finalizer closes it otherwise, and complains where no event loop runs.
            await connection.close()
            raise
        is_ready = asyncio.Event()

        def ready() -> None:
            is_ready.set()
            self._note_ready()

        tasks = [
            asyncio.create_task(self._session(connection, ready)),
            asyncio.create_task(_probe(connection, self._probe_s)),
            asyncio.create_task(_require_ready(is_ready, self._setup_s)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            # `aclose` cancels this task, which must not leave a half-closed connection behind.
            await outlast(asyncio.create_task(self._end(tasks, connection, transport, is_ready)))

    async def _end(
        self,
        tasks: Sequence[asyncio.Task[None]],
        connection: AbstractConnection,
        transport: _AbortableTransport,
        is_ready: asyncio.Event,
    ) -> None:
        """End the *tasks* of a session and close its connection."""
        for task in tasks:
            task.add_done_callback(retrieve)
            task.cancel()
        # A cancelled session finishes its batch first. It may also hang in aiormq, or have lost the
        # cancellation there (see `app.concurrency.stopping`). Closing the connection then ends it.
        _, stuck = await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        await _close(connection, transport)
        # After a loss the handler may still be running, and two sessions must not overlap. A session
        # that was never ready has no handler.
        what = f"the session of rabbitmq connection {self._name}"
        while stuck and is_ready.is_set() and not self._is_closed:
            for task in stuck:
                task.cancel()
            _, stuck = await asyncio.wait(stuck, timeout=CANCEL_EVERY_S)
        await stop(stuck, what, within_s=CLOSE_TIMEOUT_S)

    def _note_ready(self) -> None:
        if self._failures:
            logger.warning(
                "rabbitmq connection %s restored; failures in a row: %d", self._name, self._failures
            )
        self._failures = 0
        self._failure = ""
        self._is_ready = True


async def open_channel(connection: AbstractConnection) -> AbstractChannel:
    """
    Open a channel without confirms, bypassing aio_pika. Use it for channels that are opened often.

    Each channel that aio_pika opens leaks 4 KiB until its connection ends.

    Raises:
        Exception: any error of the library; `SupervisedConnection` catches it.
    """
    if connection.transport is None:
        raise Unavailable("rabbitmq", "is not connected")
    return await connection.transport.connection.channel(publisher_confirms=False)


def nodes(url: str) -> list[URL]:
    """
    Return *url* once for each of its hosts, which are separated by commas.

    Raises:
        SettingsError: one of them cannot be parsed. The message quotes nothing of it.
    """
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    try:
        found = [
            URL(parts._replace(netloc=f"{credentials}{at}{host.strip()}").geturl())
            for host in hosts.split(",")
        ]
        if all(one.host and one.port != 0 for one in found):
            return found
    except ValueError:
        pass
    raise SettingsError("the URL of RabbitMQ cannot be parsed as amqp://user:password@host:5672/vhost")


async def _require_ready(is_ready: asyncio.Event, within_s: float) -> None:
    """Raise if the session is not ready in time; otherwise never return."""
    try:
        async with asyncio.timeout(within_s):
            await is_ready.wait()
    except TimeoutError:
        raise Unavailable("rabbitmq", f"session not ready within {within_s:g} s") from None
    await asyncio.Event().wait()


async def _probe(connection: AbstractConnection, interval_s: float) -> None:
    """Send a request every *interval_s* seconds; raise when the broker does not reply."""
    channel: AbstractChannel | None = None
    while True:
        await asyncio.sleep(interval_s)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                if channel is None:
                    channel = await open_channel(connection)
                # A no-op with a reply: this channel has no consumer.
                await channel.basic_qos(prefetch_count=1)
        except TimeoutError:
            raise Unavailable("rabbitmq", f"no reply to a probe within {PROBE_TIMEOUT_S:g} s") from None


class _AbortableTransport(TransportFactory):
    """A transport factory whose connection can be aborted without flushing its buffers."""

    def __init__(self, factory: TransportFactory) -> None:
        self._factory = factory
        self._writer: asyncio.StreamWriter | None = None

    async def create(
        self, *arguments: Any, **options: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await self._factory.create(*arguments, **options)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


async def _close(connection: AbstractConnection, transport: _AbortableTransport) -> None:
    closing = asyncio.create_task(connection.close())
    closing.add_done_callback(retrieve)
    # A clean close needs a responsive peer. aiormq would wait until the peer has read the send buffer:
    # minutes for a lost peer, and for the whole of a resource alarm.
    await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
    if not closing.done():
        transport.abort()
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
        closing.cancel()
