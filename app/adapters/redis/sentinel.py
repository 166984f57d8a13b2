"""
The primary that Redis Sentinels name: found, and found again after each failover.

redis-py's own Sentinel client asks one sentinel after the other, and only when it opens a connection. So
one that does not answer delays a visit, and a connection to a primary that was replaced stays in use until
it breaks. Here all sentinels are asked at once, in the background, every second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from app.adapters.redis.cache import RedisCache
from app.adapters.redis.node import Address
from app.domain.errors import SettingsError, Unavailable

SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
LOOK_EVERY_S = 1.0
# After a failed call: a failover takes the sentinels a second or two.
_LOOK_AGAIN_S = 0.25
_PORT = 26379
_FORM = "redis+sentinel://user:password@host:26379,host:26379/NAME/0"


class Primary(NamedTuple):
    """
    A primary as a sentinel describes it.

    `epoch` grows with each failover; `run_id` is another one after each restart, and empty while unknown.
    """

    address: Address
    epoch: int
    run_id: str


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """The parts of a URL that names sentinels. Secret, as are the URLs that it gives."""

    sentinels: tuple[str, ...]
    name: str
    _data: SplitResult

    @classmethod
    def parse(cls, url: str) -> SentinelUrl:
        """
        Read `redis+sentinel://user:password@host:port,host:port/NAME/DB`.

        `rediss+sentinel://` is TLS to sentinels and primary. User and password are those of the primary.
        Those of the sentinels are the options `sentinel_username` and `sentinel_password`; all other options
        hold for both.

        Raises:
            SettingsError: it names no primary, or a database that is no number. *url* is not quoted.
        """
        parts = urlsplit(url)
        credentials, at, hosts = parts.netloc.rpartition("@")
        name, _, database = parts.path.lstrip("/").rstrip("/").partition("/")
        if not name or not (database or "0").isdecimal():
            raise SettingsError(f"the URL of Redis Sentinel has to name the primary, as in {_FORM}")
        if not all(host.strip() for host in hosts.split(",")):
            raise SettingsError(f"the URL of Redis Sentinel has an empty host: expected {_FORM}")
        options = parse_qsl(parts.query, keep_blank_values=True)
        common = urlencode([option for option in options if not option[0].startswith("sentinel_")])
        own = {key: value for key, value in options if key.startswith("sentinel_")}
        unknown = own.keys() - {"sentinel_username", "sentinel_password"}
        if unknown:
            raise SettingsError(
                "the URL of Redis Sentinel has an unknown option: besides those of its driver there are"
                " sentinel_username and sentinel_password"
            )
        scheme = parts.scheme.removesuffix("+sentinel")
        user, password = own.get("sentinel_username", ""), own.get("sentinel_password", "")
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
        return cls(
            tuple(f"{scheme}://{login}{_with_port(host)}/?{common}" for host in hosts.split(",")),
            unquote(name),
            SplitResult(scheme, f"{credentials}{at}", f"/{database or 0}", common, ""),
        )

    def of(self, address: Address) -> str:
        """Return the URL of the primary at *address*."""
        return self._data._replace(netloc=f"{self._data.netloc}{address}").geturl()


class Sentinel(RedisCache):
    """One sentinel, asked as a cache is: bounded, its errors translated, its password in none of them."""

    async def primary(self, name: str) -> Primary:
        """Return the primary that is monitored under *name*. Raises Unavailable."""
        async with self._connection_slot():
            reply: Any = await self._client.sentinel_master(name)
        try:
            address = Address(str(reply["ip"]), int(reply["port"]))
            return Primary(address, int(reply["config-epoch"]), str(reply["runid"]))
        except (KeyError, ValueError, TypeError):
            raise Unavailable("redis", "a sentinel describes the primary in no known form") from None


class PrimaryWatch:
    """
    Asks every sentinel for the primary, each second, and at once after `look_now`.

    The sentinels that answer may disagree for a moment: the one with the latest failover is right. An earlier
    one than was seen before counts only if most sentinels answer: the few may be cut off together with an old
    primary.

    Raises (every method): Unavailable.
    """

    def __init__(self, url: SentinelUrl, *, timeout_s: float, connect_timeout_s: float) -> None:
        """
        Prepare; the first look connects.

        Args:
            url: the sentinels, and the name of their primary.
            timeout_s: for each reply.
            connect_timeout_s: for opening a connection.

        Raises:
            SettingsError: see `RedisCache`.
        """
        self._name = url.name
        self._sentinels = [
            Sentinel(one, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, max_connections=2)
            for one in url.sentinels
        ]
        self._epoch = -1
        self._failed = asyncio.Event()

    async def look(self) -> Primary:
        """Return the present primary."""
        replies = await asyncio.gather(
            *(one.primary(self._name) for one in self._sentinels), return_exceptions=True
        )
        found = [reply for reply in replies if isinstance(reply, Primary)]
        for reply in replies:
            if isinstance(reply, BaseException) and not isinstance(reply, Unavailable):
                raise reply
        if not found:
            reasons = {error.reason for error in replies if isinstance(error, Unavailable)}
            raise Unavailable(
                "redis", f"no sentinel names the primary {self._name}: {'; '.join(sorted(reasons))}"
            )
        latest = max(found, key=lambda primary: primary.epoch)
        if latest.epoch < self._epoch and 2 * len(found) <= len(self._sentinels):
            raise Unavailable("redis", "the sentinels that answer know an earlier primary")
        self._epoch = latest.epoch
        return latest

    def look_now(self) -> None:
        """A call to the primary has failed: the next look follows within a quarter of a second."""
        self._failed.set()

    async def run(self, found: Callable[[Primary | Unavailable], Awaitable[None]]) -> None:
        """Pass on what each look has found, until cancelled."""
        while True:
            try:
                primary: Primary | Unavailable = await self.look()
            except Unavailable as error:
                primary = error
            await found(primary)
            if self._failed.is_set() or isinstance(primary, Unavailable):
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._failed.wait()
            self._failed.clear()

    async def aclose(self) -> None:
        await _close(self._sentinels)


async def _close(caches: Sequence[RedisCache]) -> None:
    await asyncio.gather(*(cache.aclose() for cache in caches), return_exceptions=True)


def _with_port(host: str) -> str:
    host = host.strip()
    return host if urlsplit(f"//{host}").port else f"{host}:{_PORT}"
