"""Keys: the subject that a limit counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

from hopgate_limiter import Key, client_key
from hopgate_limiter.contrib import _arguments
from hopgate_limiter.contrib._call import Call

KeyOf: TypeAlias = Callable[[Call], Key | None]
"""Gives the key of a request; None leaves it without a limit."""


def by_address(*, v6_prefix: int = 64) -> KeyOf:
    """
    Count clients by their address behind trusted proxies, those with IPv6 by their network.

    All peers of a Unix socket are one client. What is no address at all, such as the peer's name in a test
    client, is a key as it is.
    """
    client_key("::", v6_prefix=v6_prefix)  # refuses a bad prefix now

    def key(call: Call) -> Key:
        address = call.address
        try:
            return client_key(address, v6_prefix=v6_prefix)
        except ValueError:
            return f"peer:{address}"

    return key


def by_header(name: str, *, otherwise: KeyOf | None = None) -> KeyOf:
    """
    Count by the value of a header, such as an API key; requests without it by *otherwise*, or their address.

    The key is a hash of the value, so that neither long values nor secrets are stored. A client that may
    choose the value freely gets a new budget with each: check it first, or limit addresses as well.
    """
    _arguments.text("name", name)
    if not name:
        raise ValueError("name must be the name of a header, got ''")
    _arguments.function_or_none("otherwise", otherwise)
    field = name.lower()
    fallback = otherwise or by_address()

    def key(call: Call) -> Key | None:
        value = call.header(field)
        if value is None:
            return fallback(call)
        digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16)
        return f"{field}:{digest.hexdigest()}"

    return key


def by_user(*, otherwise: KeyOf | None = None) -> KeyOf:
    """
    Count by the user that the framework has authenticated; others by *otherwise*, or their address.

    The user is `scope["user"]` under ASGI (Starlette's AuthenticationMiddleware), REMOTE_USER under WSGI, the
    user of Flask-Login, of Django, the claim "sub" or "user" of Robyn's identity.
    """
    _arguments.function_or_none("otherwise", otherwise)
    fallback = otherwise or by_address()

    def key(call: Call) -> Key | None:
        user = call.user
        return fallback(call) if user is None else f"user:{user}"

    return key
