"""
One AMQP connection that is kept: opened, watched, and opened again.

Deliberately not `aio_pika.connect_robust`: its replay of channels and consumers hides when
something was lost, and a publish on it waits for the reconnect. Here a lost connection ends
a session, and everything on it is declared anew by the next one.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aio_pika import Connection
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from app.domain.errors import Unavailable

logger = logging.getLogger(__name__)

# The library notices a dead peer after three heartbeats and a bit: 18 s instead of 183 s.
HEARTBEAT_S = 5
# So each connection is asked for an answer too: a silent broker is noticed within the sum.
PROBE_S = 3.0
PROBE_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 5.0
# Declaring is a dozen round trips. The library bounds most of them, and not the opening and
# closing of channels: one whose answer got lost would keep a session from ever beginning.
SETUP_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 2.0
# A refused attempt costs little, and whoever waits for the broker to come back waits this long for us.
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.2, 2.0
_CREDENTIALS = re.compile(r"//[^/\s@]*@")

Session = Callable[[AbstractConnection, Callable[[], None]], Coroutine[Any, Any, None]]


class Link:
    """
    Runs *session* on a connection, again and again until it is closed.

    A session sets up what it needs, calls the function it is given (now it is ready), and
    returns or raises when a new connection is needed.
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
        Prepare the link; `start` connects.

        Args:
            url: `amqp://` or `amqps://`; a heartbeat in its query wins over ours.
            name: shown in logs and in the broker's list of connections.
            session: see the class.
            probe_s: between two questions whether the broker still answers.
            setup_s: from the connection until the session is ready.
            sleep: waits for a number of seconds.
            random: gives floats in [0, 1), for the jitter between two attempts.
        """
        self._url = URL(url)
        if "heartbeat" not in self._url.query:
            self._url = self._url.update_query(heartbeat=HEARTBEAT_S)
        self._name = name
        self._session = session
        self._probe_s = probe_s
        self._setup_s = setup_s
        self._sleep = sleep
        self._random = random
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._goodbye: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect in the background, unless that was begun before."""
        if self._task is None:
            self._task = asyncio.create_task(self._supervise(), name=f"amqp-{self._name}")

    async def aclose(self) -> None:
        """End the session and disconnect. Takes `CLOSE_TIMEOUT_S` for each of the two at the worst."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._goodbye is not None:
            await self._goodbye

    async def _supervise(self) -> None:
        while True:
            try:
                await self._connect_and_run()
                reason = "the session ended"
            except Exception as error:  # noqa: BLE001 - a supervisor: any end is followed by a new start
                reason = f"{type(error).__name__}: {error}"
            # Full jitter: after an outage the whole fleet comes back, but not at once.
            delay_s = self._random() * min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2**self._failures)
            self._failures = min(self._failures + 1, 16)
            logger.warning(
                "RabbitMQ link %s was lost (%s), connecting again in %.2f s",
                self._name,
                redacted(reason),
                delay_s,
            )
            await self._sleep(delay_s)

    async def _connect_and_run(self) -> None:
        transport = _Transport(
            TLSTransportFactory() if self._url.scheme == "amqps" else TCPTransportFactory()
        )
        connection = Connection(self._url, client_properties={"connection_name": f"hopgate {self._name}"})
        connection.kwargs["transport_factory"] = transport
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.connect()
        is_ready = asyncio.Event()

        def ready() -> None:
            is_ready.set()
            self._succeeded()

        tasks = [
            asyncio.create_task(self._session(connection, ready)),
            asyncio.create_task(_probe(connection, self._probe_s)),
            asyncio.create_task(_expect(is_ready, self._setup_s)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            # A session ends its work first. It may be stuck in the library, though, or have lost the
            # cancellation there: `asyncio.wait_for` drops it when an answer comes at the same moment.
            # It ends with its connection then, at the latest.
            _, stuck = await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
            for task in stuck:
                task.add_done_callback(_ignore)
            # `aclose` cancels us, and must not leave a connection behind that is half closed.
            self._goodbye = asyncio.create_task(_close(connection, transport))
            await asyncio.shield(self._goodbye)
            if stuck and is_ready.is_set():
                # It may be working still, and the next one must not begin meanwhile.
                await asyncio.wait(stuck)
            for task in stuck:
                task.cancel()

    def _succeeded(self) -> None:
        if self._failures:
            logger.warning("RabbitMQ link %s is back", self._name)
        self._failures = 0


async def open_channel(connection: AbstractConnection) -> AbstractChannel:
    """
    Open a channel without confirms, past aio_pika: what is opened often has to be opened here.

    A channel that aio_pika has opened leaves 4 KiB behind when it is closed, as long as the connection lasts.

    Raises:
        Exception: whatever the library raises; see `Link`.
    """
    if connection.transport is None:
        raise Unavailable("rabbitmq", "is not connected")
    return await connection.transport.connection.channel(publisher_confirms=False)


def redacted(text: str) -> str:
    """Return *text* without the credentials of any URL in it."""
    return _CREDENTIALS.sub("//***@", text)


async def _expect(is_ready: asyncio.Event, within_s: float) -> None:
    """Raise if it does not become ready in time."""
    try:
        async with asyncio.timeout(within_s):
            await is_ready.wait()
    except TimeoutError:
        raise Unavailable("rabbitmq", f"is not set up within {within_s:g} s") from None
    await asyncio.Event().wait()


def _ignore(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


async def _probe(connection: AbstractConnection, interval_s: float) -> None:
    """Ask for an answer again and again; raise when none comes."""
    channel: AbstractChannel | None = None
    while True:
        await asyncio.sleep(interval_s)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                if channel is None:
                    channel = await open_channel(connection)
                # Nobody consumes on this channel: all that this does is to be answered.
                await channel.basic_qos(prefetch_count=1)
        except TimeoutError:
            raise Unavailable("rabbitmq", f"is silent for {PROBE_TIMEOUT_S:g} s") from None


class _Transport(TransportFactory):
    """The usual transport, which can be ended at once."""

    def __init__(self, usual: TransportFactory) -> None:
        self._usual = usual
        self._writer: asyncio.StreamWriter | None = None

    async def create(
        self, *arguments: Any, **options: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await self._usual.create(*arguments, **options)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


async def _close(connection: AbstractConnection, transport: _Transport) -> None:
    closing = asyncio.create_task(connection.close())
    closing.add_done_callback(_ignore)
    # It is given up anyway, and a silent peer cannot say goodbye. The library would wait until the
    # peer has taken what was not sent yet: for minutes, if it is gone, and in an alarm as long as that lasts.
    await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
    if not closing.done():
        transport.abort()
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
        closing.cancel()
