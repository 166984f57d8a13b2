"""The address of a client: its peer's, or the one that trusted proxies forward."""

from __future__ import annotations

from hopgate_limiter.contrib import client_address

__all__ = ["client_address", "peer_address"]


def peer_address(client: str) -> str:
    """Return the address in granian's `client`, "203.0.113.7:54321", without port and brackets."""
    host = client.rpartition(":")[0]
    return host[1:-1] if host[:1] == "[" else host
