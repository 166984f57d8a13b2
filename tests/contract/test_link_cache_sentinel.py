"""`RedisSentinelCache`: failovers, sentinels that are away or wrong, and what a replica lacked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from app.adapters.redis.cache import RedisCache
from app.adapters.redis.node import Address
from app.adapters.redis.sentinel import SentinelUrl
from app.adapters.redis.sentinel_cache import RedisSentinelCache
from app.domain.errors import SettingsError, Unavailable
from app.domain.link import Resolution, Slug
from tests.contract.cache_entries import A, B, cached, live
from tests.servers.redis_sentinel import PrivateSentinels

WITHIN_S = 10.0


@pytest.fixture
def site() -> Iterator[PrivateSentinels]:
    with PrivateSentinels() as site:
        yield site


@pytest.fixture(scope="module")
def untouched() -> Iterator[PrivateSentinels]:
    with PrivateSentinels() as site:
        yield site


@pytest.fixture
async def cache(site: PrivateSentinels) -> AsyncIterator[RedisSentinelCache]:
    cache = RedisSentinelCache(site.url)
    yield cache
    await cache.aclose()


async def eventually(cache: RedisSentinelCache, slug: Slug, version: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(Unavailable):
                held = await cached(cache, slug)
                if held is not None and held.version == version:
                    return
            await asyncio.sleep(0.05)


async def put(cache: RedisSentinelCache, resolution: Resolution) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(Unavailable):
                await cache.put([resolution])
                return
            await asyncio.sleep(0.05)


@pytest.mark.services
class TestFailover:
    async def test_primary_that_is_killed_is_replaced(self, site, cache):
        await put(cache, live(A, 1))
        old = site.primary
        old.kill()
        new = await asyncio.to_thread(site.await_another, old)

        await put(cache, live(B, 1))
        await eventually(cache, B, 1)
        await eventually(cache, A, 1)
        assert new.command("DBSIZE") == 2

    async def test_writes_that_the_replica_lacked_are_written_again(self, site, cache):
        """Else the link's old entry, which the replica has, would be shown for up to a day."""
        await put(cache, live(A, 1))
        old = site.primary
        replica = next(server for server in site.servers if server is not old)
        while not replica.command("DBSIZE"):
            await asyncio.sleep(0.01)
        replica.command("REPLICAOF", "127.0.0.1", 1)  # lags from now on
        await put(cache, live(A, 2))
        await put(cache, live(B, 1))
        old.kill()
        assert replica.command("DBSIZE") == 1
        await asyncio.to_thread(site.await_another, old)

        await eventually(cache, A, 2)
        await eventually(cache, B, 1)

    async def test_old_primary_that_goes_on_is_left(self, site, cache):
        """One that was only silent still holds its connections, and what it held."""
        await put(cache, live(A, 1))
        old = site.primary
        old.pause()
        try:
            await asyncio.to_thread(site.await_another, old)
            await put(cache, live(A, 2))
        finally:
            old.resume()
        for _ in range(40):
            held = await cached(cache, A)
            assert held is not None
            assert held.version == 2
            await asyncio.sleep(0.02)

    async def test_idle_cache_follows_too(self, site, cache):
        await put(cache, live(A, 1))
        old = site.primary
        old.pause()
        try:
            new = await asyncio.to_thread(site.await_another, old)
            other = RedisCache(f"redis://:geheim%40%2F1@127.0.0.1:{new.port}/0")
            await other.put([live(A, 2)])
            await other.aclose()
            await asyncio.sleep(1.5)
        finally:
            old.resume()

        held = await cached(cache, A)  # the first call since
        assert held is not None
        assert held.version == 2


@pytest.mark.services
class TestSentinels:
    async def test_sentinels_may_be_away(self, site):
        site.sentinels[0].kill()
        site.sentinels[1].pause()
        try:
            cache = RedisSentinelCache(site.url)
            await put(cache, live(A, 1))
            await eventually(cache, A, 1)
            await cache.aclose()
        finally:
            site.sentinels[1].resume()

    async def test_cache_goes_on_without_any_sentinel(self, site, cache):
        await put(cache, live(A, 1))
        for sentinel in site.sentinels:
            sentinel.kill()
        await asyncio.sleep(1.5)

        assert (await cached(cache, A)) is not None

    async def test_sentinel_with_an_earlier_failover_is_overruled(self, site, cache):
        """It was cut off together with the old primary, and answers first."""
        await put(cache, live(A, 1))
        old = site.primary
        site.sentinels[2].pause()
        old.kill()
        new = await asyncio.to_thread(site.await_another, old)
        await put(cache, live(A, 2))
        old.start()
        site.sentinels[2].resume()
        for _ in range(100):
            held = await cached(cache, A)
            assert held is not None
            assert held.version == 2
            await asyncio.sleep(0.02)
        assert new.command("DBSIZE") == 1

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (("/hop/", "/other/"), "No such master with that name"),
            (("sentinel_password=geheim", "sentinel_password=falsch"), "invalid username-password pair"),
            (("?sentinel_password=geheim%3A%3F2", ""), "Authentication required"),
        ],
    )
    async def test_reason_is_told_without_secrets(self, untouched, change, why):
        cache = RedisSentinelCache(untouched.url.replace(*change), timeout_s=2)
        with pytest.raises(Unavailable, match=why) as refused:
            await cache.ping()
        await cache.aclose()

        assert "geheim" not in str(refused.value)

    async def test_a_server_that_is_no_sentinel(self, untouched):
        url = untouched.url_of(untouched.servers[0].port).replace("geheim%3A%3F2", "geheim%40%2F1")
        cache = RedisSentinelCache(url, timeout_s=2)
        with pytest.raises(Unavailable, match="unknown command"):
            await cache.ping()
        await cache.aclose()


@pytest.mark.services
async def test_scan_starts_over_on_another_primary(site, cache):
    slugs = [Slug(f"s{number}") for number in range(2000)]
    await put(cache, live(A, 1))
    await cache.put([live(slug, 1) for slug in slugs])
    page = await cache.scan(0)
    assert page.next_cursor
    site.primary.command("WAIT", 1, 5000)
    old = site.primary
    old.kill()
    await asyncio.to_thread(site.await_another, old)
    await eventually(cache, A, 1)

    seen: set[Slug] = set()
    while True:
        page = await cache.scan(page.next_cursor)
        seen |= set(page.slugs)
        if not page.next_cursor:
            break
    assert seen == {A, *slugs}


# --- URLs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sentinels", "primary"),
    [
        ("redis+sentinel://a/hop", ("redis://a:26379/?",), "redis://p:1/0"),
        ("redis+sentinel://a:1,b:2/hop/3", ("redis://a:1/?", "redis://b:2/?"), "redis://p:1/3"),
        (
            "redis+sentinel://u:p%40@a:1,[::1]:2,[::2]/h%20op/0?sentinel_username=s&sentinel_password=%40%3A",
            ("redis://s:%40%3A@a:1/?", "redis://s:%40%3A@[::1]:2/?", "redis://s:%40%3A@[::2]:26379/?"),
            "redis://u:p%40@p:1/0",
        ),
        (
            "rediss+sentinel://a/hop?ssl_ca_certs=/ca.pem",
            ("rediss://a:26379/?ssl_ca_certs=%2Fca.pem",),
            "rediss://p:1/0?ssl_ca_certs=%2Fca.pem",
        ),
    ],
)
def test_url_of_sentinels(url, sentinels, primary):
    parsed = SentinelUrl.parse(url)

    assert parsed.sentinels == sentinels
    assert parsed.of(Address("p", 1)) == primary
    assert parsed.name in ("hop", "h op")
    assert parsed.of(Address("::3", 1)).replace("[::3]", "p") == primary


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+sentinel://:geheim@a,b", "has to name the primary"),
        ("redis+sentinel://:geheim@a,b/", "has to name the primary"),
        ("redis+sentinel://:geheim@a/hop/x", "has to name the primary"),
        ("redis+sentinel://:geheim@a/hop/0/1", "has to name the primary"),
        ("redis+sentinel://:geheim@a/hop?sentinel_passwort=geheim", "unknown option"),
        ("redis+sentinel://:geheim@a/hop?db_name=geheim", "option that its driver does not know"),
        ("redis+sentinel://:geheim@a,/hop", "an empty host"),
    ],
)
def test_bad_url_of_sentinels_is_refused(url, why):
    with pytest.raises(SettingsError, match=why) as refused:
        RedisSentinelCache(url)

    assert "geheim" not in str(refused.value)
