"""Several hosts in a service URL: tried in turn, or refused in one line without secrets."""

from __future__ import annotations

import asyncio

import pytest

from app.adapters.rabbitmq import connection
from app.adapters.redis.cache import RedisCache
from app.adapters.redis.cluster import RedisClusterCache
from app.domain.errors import SettingsError


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("amqp://u:p@a:1,b:2/v", [("a", 1), ("b", 2)]),
        ("amqp://u:p@a,b/v", [("a", 5672), ("b", 5672)]),
        ("amqps://u:p%2C@a:1, b/v?heartbeat=9", [("a", 1), ("b", 5671)]),
        ("amqp://[::1]:1,[::2]/", [("::1", 1), ("::2", 5672)]),
    ],
)
def test_hosts_of_a_broker_share_the_rest(url, hosts):
    nodes = connection.nodes(url)

    assert [(node.host, node.port or (5671 if node.scheme == "amqps" else 5672)) for node in nodes] == hosts
    assert len({(node.user, node.password, node.path, node.query_string) for node in nodes}) == 1


@pytest.mark.parametrize(
    "url", ["amqp://u:geheim@a:1,b:x/", "amqp://u:geheim@a,/", "amqp://u:geheim@a:99999/"]
)
def test_bad_host_of_a_broker_is_refused(url):
    with pytest.raises(SettingsError, match="RabbitMQ cannot be parsed") as refused:
        connection.nodes(url)

    assert "geheim" not in str(refused.value)


async def test_next_host_is_tried_after_a_failure(monkeypatch):
    tried = []

    class Refusing:
        def __init__(self, url, **_):
            self.kwargs = {}
            tried.append(url.host)

        async def connect(self):
            raise OSError("refused")

    async def no_sleep(_: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(connection, "Connection", Refusing)
    supervised = connection.SupervisedConnection("amqp://a,b,c/", "test", None, sleep=no_sleep)  # type: ignore[arg-type]
    supervised.start()
    while len(tried) < 6:
        await asyncio.sleep(0)
    await supervised.aclose()

    assert tried[:6] == ["a", "b", "c"] * 2


@pytest.mark.parametrize("url", ["redis://:geheim@a:1,b:2/0", "redis://a,b"])
def test_several_hosts_of_redis_are_refused(url):
    with pytest.raises(SettingsError, match=r"several hosts: name one.*redis\+sentinel://") as refused:
        RedisCache(url)

    assert "geheim" not in str(refused.value)


def test_several_hosts_of_a_cluster_are_refused():
    with pytest.raises(SettingsError, match="any one node"):
        RedisClusterCache("redis+cluster://a:1,b:2", guarded=lambda _, node: node)
