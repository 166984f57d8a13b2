"""Free TCP ports on 127.0.0.1."""

from __future__ import annotations

import random
import socket

# Below those that the kernel gives to clients: a server that is down for a while finds its port
# free when it comes back.
_PORTS = range(10_000, 32_000)
# By this process: who was given one may not listen on it yet.
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Return *count* ports that nobody listens on right now, and that were not given out before."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_PORTS)
        if port not in _given and _is_free(port):
            _given.add(port)
            found.append(port)
    return found


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
