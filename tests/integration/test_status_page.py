"""The page of operators on real gateways."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.servers.hopgate import Gateway, eventually, make_key
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings


def test_page_of_a_public_gateway_needs_a_key(embedded, admin_key):
    """It has a base URL, so a proxy may stand before it."""
    assert httpx.get(f"{embedded.url}/status").status_code == 401
    answer = httpx.get(f"{embedded.url}/status", auth=("", admin_key))

    assert answer.status_code == 200
    assert answer.text.startswith("<!doctype html>")
    assert httpx.head(f"{embedded.url}/status", auth=("", admin_key)).status_code == 200
    assert httpx.post(f"{embedded.url}/status", auth=("", admin_key)).status_code == 405


def test_page_of_a_local_gateway_needs_none(tmp_path):
    with Gateway({"HOPGATE_DATA_DIR": str(tmp_path / "data")}, tmp_path) as gateway:
        assert httpx.get(f"{gateway.url}/status").status_code == 200
        forwarded = {"X-Forwarded-For": "127.0.0.1"}
        assert httpx.get(f"{gateway.url}/status", headers=forwarded).status_code == 401
        assert httpx.get(f"{gateway.url}/status", headers={"Host": "hop.example"}).status_code == 401


@pytest.mark.services
@pytest.mark.timeout(180)
def test_killed_redis_is_shown(postgres, rabbitmq, tmp_path):
    with PrivateRedis() as redis:
        settings = stack_settings(postgres, redis, rabbitmq)
        key = make_key(settings)
        with (
            Gateway({**settings, "HOPGATE_WORKERS": "2"}, tmp_path) as gateway,
            httpx.Client(base_url=gateway.url, auth=("", key)) as client,
        ):
            assert httpx.get(f"{gateway.url}/status").status_code == 401

            def cache() -> str:
                answer = client.get("/status?format=json")
                assert answer.status_code == 200, answer.text
                return answer.json()["dependencies"]["cache"]

            eventually(lambda: cache() == "ok", timeout=60, what="the cache answers")
            found = client.get("/status?format=json").json()["overview"]
            assert found["processes"] == 2
            assert found["outbox_rows"] is None  # its workers know

            redis.kill()
            killed = time.monotonic()
            eventually(lambda: cache() != "ok", timeout=30, what="its absence is shown")
            print(f"shown after {time.monotonic() - killed:.2f} s")
