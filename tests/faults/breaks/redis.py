"""Faults of Redis beyond its process and its network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from tests.faults.harness.stage import Stage
from tests.servers.redis import PrivateRedis


def refuses_writes(stage: Stage) -> bool:
    """Redis answers a write with an error."""
    try:
        stage.servers.redis.command("SET", "evidence", "")
    except redis.ResponseError:
        return True
    return False


@contextmanager
def full(stage: Stage) -> Iterator[None]:
    """Set maxmemory so low that writes fail; reads work."""
    server = stage.servers.redis
    server.config_set("maxmemory-policy", "noeviction")
    server.config_set("maxmemory", "1mb")
    try:
        yield
    finally:
        server.config_set("maxmemory", "0")


@contextmanager
def misconf(stage: Stage) -> Iterator[None]:
    """MISCONF: a snapshot fails, because its file is a folder, so Redis refuses writes."""
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
def read_only(stage: Stage) -> Iterator[None]:
    """READONLY: Redis becomes the replica of an unreachable primary and refuses writes."""
    stage.servers.redis.command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        stage.servers.redis.command("REPLICAOF", "NO", "ONE")


@contextmanager
def loading(stage: Stage) -> Iterator[None]:
    """
    LOADING: Redis reads a large snapshot and refuses every command until then.

    The snapshot comes from another Redis: its own would restore outdated links.
    """
    server = stage.servers.redis
    snapshot = server.directory / "dump.rdb"
    with PrivateRedis("--rdbcompression", "no") as other:
        other.command("EVAL", _MANY_KEYS, 0)
        other.command("SAVE")
        server.kill()
        shutil.copy(other.directory / "dump.rdb", snapshot)
    try:
        # Loading takes 2 ms a key; Redis answers clients with LOADING after each.
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
def flushed(stage: Stage) -> Iterator[None]:
    """FLUSHALL: delete every key."""
    stage.servers.redis.flush()
    yield
