"""The faults themselves: each breaks something when entered and heals it when left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import redis

from app.wire import CACHE_QUEUE
from tests.faults.drill import Fault
from tests.faults.observer import outbox_rows
from tests.faults.stage import Stage
from tests.servers.proxy import GOOD, SILENT, Network
from tests.servers.redis import PrivateRedis


@contextmanager
def nothing(_stage: Stage) -> Iterator[None]:
    """All is well."""
    yield


def killed(service: str) -> Fault:
    """SIGKILL; it comes back on the same port, Redis empty, the others with their data."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        server = getattr(stage.servers, service)
        server.kill()
        try:
            yield
        finally:
            server.start()

    return fault


def paused(service: str) -> Fault:
    """SIGSTOP: connections stand, and nothing answers."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        server = getattr(stage.servers, service)
        server.pause()
        try:
            yield
        finally:
            server.resume()

    return fault


def network(service: str, bad: Network, *, party: str | None = None) -> Fault:
    """The network to *service* is *bad*, for everybody or *party* alone."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        stage.network(service, bad, party=party)
        try:
            yield
        finally:
            stage.network(service, GOOD, party=party)

    return fault


def silent(service: str) -> Fault:
    """Nothing passes, either way."""
    return network(service, SILENT)


def refused(service: str) -> Fault:
    """Nobody listens, and the connections that stood are broken."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        stage.network(service, Network(refuse=True))
        stage.reset(service)
        try:
            yield
        finally:
            stage.network(service, GOOD)

    return fault


def together(*faults: Fault) -> Fault:
    """All of them at once."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        with ExitStack() as entered:
            for one in faults:
                entered.enter_context(one(stage))
            yield

    return fault


def proven(fault: Fault, evidence: Callable[[Stage], bool]) -> Fault:
    """*fault*, if there is *evidence* of it before it heals: what nobody notices may not have happened."""

    @contextmanager
    def proved(stage: Stage) -> Iterator[None]:
        with fault(stage):
            yield
            assert evidence(stage), f"nothing shows the fault: not {evidence.__name__}"

    return proved


def changes_wait(stage: Stage) -> bool:
    """More changes are in the outbox than can be on their way."""
    return outbox_rows(stage) >= 10


def redis_refuses_writes(stage: Stage) -> bool:
    """Redis says that it does not write."""
    try:
        stage.servers.redis.command("SET", "evidence", "")
    except redis.ResponseError:
        return True
    return False


def again_and_again(step: Fault, every_s: float) -> Fault:
    """Run *step*, which is over at once, again and again."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        over = threading.Event()

        def repeat() -> None:
            while not over.wait(every_s):
                with step(stage):
                    pass

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return fault


def reset(service: str) -> Fault:
    """Every connection to *service* breaks, once."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        stage.reset(service)
        yield

    return fault


@contextmanager
def redis_full(stage: Stage) -> Iterator[None]:
    """No memory for writes; reads work."""
    server = stage.servers.redis
    server.config_set("maxmemory-policy", "noeviction")
    server.config_set("maxmemory", "1mb")
    try:
        yield
    finally:
        server.config_set("maxmemory", "0")


@contextmanager
def redis_cannot_save(stage: Stage) -> Iterator[None]:
    """MISCONF: a snapshot failed, so Redis refuses writes. The file it would write is a folder."""
    server = stage.servers.redis
    (server.directory / "dump.rdb").mkdir()
    server.config_set("save", "1 1")
    server.command("BGSAVE")
    try:
        yield
    finally:
        server.config_set("save", "")
        (server.directory / "dump.rdb").rmdir()


@contextmanager
def redis_read_only(stage: Stage) -> Iterator[None]:
    """It is the replica of a primary that is away: it reads, and refuses to write."""
    stage.servers.redis.command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        stage.servers.redis.command("REPLICAOF", "NO", "ONE")


@contextmanager
def redis_loading(stage: Stage) -> Iterator[None]:
    """
    LOADING: Redis reads a large snapshot, and refuses every command until it has.

    The snapshot is somebody else's: one of its own would hold links as they were.
    """
    server = stage.servers.redis
    snapshot = server.directory / "dump.rdb"
    with PrivateRedis("--rdbcompression", "no") as other:
        other.command("EVAL", _MANY_KEYS, 0)
        other.command("SAVE")
        server.kill()
        shutil.copy(other.directory / "dump.rdb", snapshot)
    try:
        # Every key takes 2 ms, and it looks up for clients after each.
        server.start(
            *("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024"), is_loading=True
        )
        yield
        assert server.is_loading, "the snapshot was too small"
    finally:
        server.config_set("key-load-delay", "0")
        server.wait_loaded()
        snapshot.unlink()
        server.flush()


_MANY_KEYS = "for i = 1, 30000 do redis.call('SET', 'other:' .. i, string.rep('x', 1100)) end"


@contextmanager
def redis_flushed(stage: Stage) -> Iterator[None]:
    """All keys are gone at once."""
    stage.servers.redis.flush()
    yield


@contextmanager
def rabbit_alarmed(stage: Stage) -> Iterator[None]:
    """The memory alarm: publishers are read from no more, and nothing is confirmed."""
    rabbit = stage.servers.rabbitmq
    rabbit.ctl("set_vm_memory_high_watermark", "absolute", "1kB")
    try:
        yield
    finally:
        rabbit.ctl("set_vm_memory_high_watermark", "absolute", "1GB")


@contextmanager
def rabbit_disk_alarmed(stage: Stage) -> Iterator[None]:
    """The disk alarm: less is free than RabbitMQ wants, so it does as with too little memory."""
    rabbit = stage.servers.rabbitmq
    rabbit.ctl("set_disk_free_limit", "100000GB")
    try:
        yield
    finally:
        rabbit.ctl("set_disk_free_limit", "1MB")


@contextmanager
def rabbit_hangs_up(stage: Stage) -> Iterator[None]:
    """The broker closes every connection."""
    stage.servers.rabbitmq.ctl("close_all_connections", "--vhost", stage.vhost, "drill")
    yield


@contextmanager
def queue_deleted(stage: Stage) -> Iterator[None]:
    """The work queue is deleted while it is used. What was in it is gone."""
    stage.servers.rabbitmq.ctl("delete_queue", "--vhost", stage.vhost, CACHE_QUEUE)
    yield


@contextmanager
def worker_killed(stage: Stage) -> Iterator[None]:
    """The worker dies with what it was doing; another one comes."""
    stage.worker.kill()
    try:
        yield
    finally:
        stage.worker.start()


@contextmanager
def worker_killed_and_back(stage: Stage) -> Iterator[None]:
    """The worker dies and is back at once."""
    stage.worker.kill()
    stage.worker.start()
    yield


@contextmanager
def worker_paused(stage: Stage) -> Iterator[None]:
    """The worker stands still in the middle of what it does, and goes on."""
    stage.worker.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        stage.worker.signal(signal.SIGCONT)


@contextmanager
def gateway_process_killed(stage: Stage) -> Iterator[None]:
    """The process of the first gateway that serves is killed; its parent starts another."""
    for pid in stage.children(stage.gateways[0].pid):
        os.kill(pid, signal.SIGKILL)
    yield


@contextmanager
def gateways_restarted(stage: Stage) -> Iterator[None]:
    """One gateway after the other ends by SIGTERM and comes back, while somebody holds connections open."""
    for gateway in stage.gateways:
        with _open(gateway.port, b"GET / HTTP/1.1\r\nHost: a\r\n"), _open(gateway.port, b""):
            began = time.monotonic()
            assert gateway.stop(40) == 0
            stage.restarts_s.append(time.monotonic() - began)
        gateway.start()
        time.sleep(0.5)
    yield


@contextmanager
def slow_clients(stage: Stage) -> Iterator[None]:
    """Idle connections, headers and bodies that never end, and who asks and does not read."""
    with ExitStack() as opened:
        for gateway in stage.gateways:
            for _ in range(250):
                opened.enter_context(_open(gateway.port, b""))
            for _ in range(20):
                opened.enter_context(_open(gateway.port, b"GET /x HTTP/1.1\r\nHost: a\r\nX-A: "))
                opened.enter_context(_open(gateway.port, _ENDLESS_BODY))
                opened.enter_context(_open(gateway.port, b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 50))
        yield


_ENDLESS_BODY = (
    b"POST /api/v1/links HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{"
)


@contextmanager
def _open(port: int, data: bytes) -> Iterator[None]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
        yield
