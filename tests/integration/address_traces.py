"""Looks for addresses, and for what they can be had from, in everything that servers keep."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psycopg
import redis

from tests.servers.postgres import PrivatePostgres
from tests.servers.redis import PrivateRedis

_HASHES = ("md5", "sha1", "sha256", "sha512", "blake2b", "blake2s")


def forms(address: str) -> Iterator[tuple[str, bytes, bool]]:
    """
    Yield the forms that *address* may be kept in: a name, the bytes, and whether these may be chance.

    Of an IPv6 address those of its /64, which stands for the client. Hashes are those without a key: there
    are so few addresses that each of them can be tried.
    """
    whole = ipaddress.ip_address(address)
    texts = [address]
    if isinstance(whole, ipaddress.IPv6Address):
        packed, number = whole.packed[:8], int(whole) >> 64
        texts += [address.partition("::")[0], f"{address.partition('::')[0]}::/64", whole.exploded[:19]]
    else:
        packed, number = whole.packed, int(whole)
        texts += [address.replace(".", "-"), address.replace(".", "_")]
    is_short = len(packed) < 8
    for text in texts:
        yield "text", text.encode(), False
        for name in _HASHES:
            digest = hashlib.new(name, text.encode()).digest()
            yield f"{name} in hex", digest.hex()[:16].encode(), False
            yield name, digest[:8], False
        short = hashlib.blake2b(text.encode(), digest_size=8).digest()
        yield "short blake2b", short, False
        yield "short blake2b in hex", short.hex().encode(), False
    yield "number", str(number).encode(), is_short
    for name, held in (("packed", packed), ("packed, reversed", packed[::-1])):
        yield name, held, is_short
        yield f"{name}, in hex", held.hex().encode(), is_short
        yield f"{name}, in upper hex", held.hex().upper().encode(), is_short
        yield f"{name}, in base64", base64.b64encode(held).rstrip(b"="), is_short


def found(addresses: Sequence[str], kept: bytes) -> list[str]:
    """
    Return the names of the forms in which *kept* has any of *addresses*.

    Four bytes are in a hundred megabytes by chance: such a form has to be there for all of them, which are
    three at least.
    """
    of_ipv4 = sum(":" not in address for address in addresses)
    assert of_ipv4 >= 3
    by_chance: defaultdict[str, set[str]] = defaultdict(set)
    sure = set()
    for address in addresses:
        for name, text, is_short in forms(address):
            if text in kept:
                (by_chance[name].add(address) if is_short else sure.add(f"{name} of {address}"))
    return sorted(sure) + sorted(name for name, those in by_chance.items() if len(those) >= of_ipv4)


def database(url: str) -> bytes:
    """Return all rows of the database *url* as text."""
    kept = []
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        ).fetchall()
        for (table,) in tables:
            with connection.cursor().copy(f"COPY {table} TO STDOUT".encode()) as copy:
                kept += [bytes(part) for part in copy]
    return b"\n".join(kept)


def database_files(server: PrivatePostgres, url: str) -> bytes:
    """Return the files of the database *url* of *server*: rows that are gone are still in them."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        [(oid,)] = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()")
    return files([server.directory / "data" / "base" / str(oid)])


def cache(server: PrivateRedis) -> bytes:
    """Return all keys and values of *server*."""
    # Else long texts are compressed.
    server.config_set("rdbcompression", "no")
    with redis.Redis(port=server.port, socket_timeout=5) as client:
        return b"\n".join(key + b"=" + (client.dump(key) or b"") for key in client.scan_iter(count=1000))


def files(folders: Iterable[Path], without: Iterable[str] = ()) -> bytes:
    """Return the contents of all files in *folders*, without those whose names end in *without*."""
    kept = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.endswith(tuple(without)):
                try:
                    kept.append(path.read_bytes())
                except OSError:
                    # It is gone, as files of a log are, or is a socket.
                    continue
    return b"\n".join(kept)
