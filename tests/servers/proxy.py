"""
A TCP proxy that can be made a bad network while connections go through it.

It runs in a thread with an event loop of its own, so it delays no other loop. Silence is not
refusal: `Network(silent_up=True)` accepts and delivers nothing, as a lost route does. What was sent
meanwhile arrives when the silence ends, as TCP's retransmissions do, also if its sender has hung up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from tests.servers.ports import free_ports

T = TypeVar("T")

_CHUNK = 65_536
# What a direction may hold back before the proxy stops reading, and the sender is stuck.
_MAX_HELD = 64
_RESET = struct.pack("ii", 1, 0)
# Type, channel and length of the payload, which one more byte follows.
_FRAME = struct.Struct(">BHI")
_BASIC_ACK = struct.pack(">HH", 60, 80)
# A simple query of PostgreSQL's protocol: type, length, text.
_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


@dataclass(frozen=True)
class Network:
    """
    What the network does. Up is from client to server; times are seconds.

    Args:
        refuse: the port is closed; open connections are not touched.
        silent_up, silent_down: nothing arrives in that direction.
        latency_s: each chunk takes this long, give or take `jitter_s`; order is kept.
        share: of the chunks, how many are late.
        slice_bytes: chunks are cut to this size and delivered one by one.
        bytes_per_s: bandwidth of each connection and direction.
        late_confirms: a broker's confirms do not arrive, and everything else does: what a publisher
            sees of a broker whose disk is slow. They arrive with the first message after that. Only
            for a proxy with `speaks_amqp`.
        lost_commits: PostgreSQL commits, and the connection breaks before its answer arrives. Only where
            the client sends COMMIT as a message of its own, as psycopg does, and without TLS.
    """

    refuse: bool = False
    silent_up: bool = False
    silent_down: bool = False
    latency_s: float = 0.0
    jitter_s: float = 0.0
    share: float = 1.0
    slice_bytes: int | None = None
    bytes_per_s: float | None = None
    late_confirms: bool = False
    lost_commits: bool = False


GOOD = Network()
SILENT = Network(silent_up=True, silent_down=True)


class FaultProxy:
    """
    `with FaultProxy(port) as proxy:` forwards `proxy.port` to *port*, both on 127.0.0.1.

    With *speaks_amqp*, what comes down is delivered frame by frame.
    """

    def __init__(self, target: int, *, seed: int = 0, speaks_amqp: bool = False) -> None:
        self.target = target
        self._speaks_amqp = speaks_amqp
        self.port = free_ports(1)[0]
        self._random = random.Random(seed)
        self._network = GOOD
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._committing: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def become(self, network: Network) -> None:
        """Apply *network* from now on, to open connections as well."""
        self._do(lambda: self._become(network))

    def reset(self) -> int:
        """End every connection by RST, both ways; return how many there were."""
        return self._do(self._reset)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._open) // 2

    def _do(self, work: Callable[[], Awaitable[T]]) -> T:
        async def call() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, backlog=512, limit=_CHUNK
            )

    async def _become(self, network: Network) -> None:
        self._network = network
        self._committing.clear()
        if network.refuse and self._server is not None:
            self._server.close()
            self._server = None
        elif not network.refuse:
            await self._listen()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _reset(self) -> int:
        count = self.connections
        for writer in list(self._open):
            abort(writer)
        return count

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self.target, limit=_CHUNK)
        except OSError:
            abort(writer)  # the server does not listen: the client sees a reset
            return
        both = {writer, there}
        self._open |= both
        pumps = [self._begin(self._pump(reader, there, writer, up=True))]
        pumps.append(self._begin(self._pump(there_reader, writer, writer, up=False)))
        try:
            await asyncio.wait(pumps)
        finally:
            self._open -= both
            self._committing.discard(writer)
            for end in both:
                end.close()

    def _begin(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        *,
        up: bool,
    ) -> None:
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MAX_HELD)
        delivery = self._begin(self._deliver(held, writer, up=up))
        frames = AmqpFrames() if self._speaks_amqp and not up else None
        due = 0.0
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(_CHUNK)
            except OSError:
                chunk = b""  # the peer has hung up; what it sent before is still on its way
            if up and self._network.lost_commits and chunk.endswith(_COMMIT):
                self._committing.add(client)
            due = max(due, self._loop.time() + self._delay_s())
            whole = [chunk] if frames is None or not chunk else frames.feed(chunk)
            for part in (part for one in whole for part in self._sliced(one)):
                await held.put((due, part))
        await delivery

    async def _deliver(
        self, held: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        is_open = True
        late: list[bytes] = []
        while True:
            due, part = await held.get()
            if not up and self._network.late_confirms and is_confirm(part):
                late.append(part)
                continue
            if is_open:
                try:
                    if late and not self._network.late_confirms:
                        writer.writelines(late)
                        late.clear()
                    await self._deliver_one(due, part, writer, up=up)
                except (OSError, RuntimeError):
                    is_open = False  # discard what still comes, or the sender would be stuck
                    abort(writer)
            if not part:
                return

    async def _deliver_one(self, due: float, part: bytes, writer: asyncio.StreamWriter, *, up: bool) -> None:
        if (wait_s := due - self._loop.time()) > 0:
            await asyncio.sleep(wait_s)
        while self._network.silent_up if up else self._network.silent_down:
            await self._changed.wait()
        if not part:
            writer.write_eof()
            return
        if not up and writer in self._committing:
            raise ConnectionResetError  # this is the server's answer: it has committed
        writer.write(part)
        await writer.drain()
        if self._network.bytes_per_s is not None:
            await asyncio.sleep(len(part) / self._network.bytes_per_s)

    def _delay_s(self) -> float:
        network = self._network
        if not network.latency_s or self._random.random() >= network.share:
            return 0.0
        return max(0.0, network.latency_s + network.jitter_s * (2 * self._random.random() - 1))

    def _sliced(self, chunk: bytes) -> list[bytes]:
        size = self._network.slice_bytes
        if size is None or not chunk:
            return [chunk]
        return [chunk[start : start + size] for start in range(0, len(chunk), size)]


class AmqpFrames:
    """Cuts a stream of bytes that a broker sends into AMQP 0-9-1 frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the frames that *chunk* completes."""
        self._rest += chunk
        frames = []
        # Type, channel and size, the payload, and one byte that ends it.
        while len(self._rest) >= 7 and len(self._rest) >= (
            size := 8 + struct.unpack_from(">I", self._rest, 3)[0]
        ):
            frames.append(self._rest[:size])
            self._rest = self._rest[size:]
        return frames


def is_confirm(frame: bytes) -> bool:
    """Is it a `basic.ack`? A broker sends it to publishers only."""
    return frame[:1] == b"\x01" and frame[_FRAME.size :].startswith(_BASIC_ACK)


def abort(writer: asyncio.StreamWriter) -> None:
    """Hang up by RST: the port is free at once, and what was under way is lost."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None:
        # With no time to linger, closing sends RST instead of FIN.
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
