"""Free TCP ports on 127.0.0.1."""

from __future__ import annotations

import fcntl
import os
import random
import socket
from functools import cache
from pathlib import Path

# Below the ephemeral ports, so that no client takes the port of a server that is down for a while.
_PORTS = range(10_000, 32_000)


def free_ports(count: int) -> list[int]:
    """
    Return *count* ports that are free, and that no other test process on this machine gets.

    They stay reserved until this process ends, also while their server is down.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_PORTS)
        if port not in _reserved and _reserve(port) and _is_free(port):
            found.append(port)
    return found


_reserved: set[int] = set()


def _reserve(port: int) -> bool:
    """Lock the byte of that number, which the kernel unlocks when this process ends."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _reserved.add(port)
    return True


@cache
def _reservations() -> int:
    # One descriptor, never closed: closing any one would end all locks that this process holds on the file.
    # In one place for all runs, wherever each keeps its temporary files.
    path = Path("/tmp") / f"hopgate-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def is_listening(port: int) -> bool:
    """Does something accept connections on *port*?"""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False
