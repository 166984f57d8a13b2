"""The page of operators on real gateways, and in a real browser where there is one."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.console_session import ConsoleSession
from tests.servers import browser
from tests.servers.hopgate import Gateway, eventually, make_key
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

# Names of the images in docs/images, sizes in CSS pixels, and whether the user prefers a dark page.
SCREENS = (("light", 1000, 760, False), ("dark", 1000, 760, True), ("phone", 390, 844, True))


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


class Shown:
    """A gateway of two processes on servers of which Redis may be killed, and a client with a key."""

    def __init__(self, gateway: Gateway, redis: PrivateRedis, key: str, client: httpx.Client) -> None:
        self.gateway = gateway
        self.redis = redis
        self.key = key
        self._client = client

    def figures(self) -> dict:
        answer = self._client.get("/status?format=json")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def cache(self) -> str:
        return self.figures()["dependencies"]["cache"]


@pytest.fixture(scope="module")
def shown(postgres, rabbitmq, tmp_path_factory) -> Iterator[Shown]:
    directory = tmp_path_factory.mktemp("shown")
    with PrivateRedis() as redis:
        settings = stack_settings(postgres, redis, rabbitmq)
        key = make_key(settings)
        with (
            Gateway({**settings, "HOPGATE_WORKERS": "2"}, directory) as gateway,
            httpx.Client(base_url=gateway.url, auth=("", key), timeout=30) as client,
        ):
            yield Shown(gateway, redis, key, client)


@pytest.mark.services
@pytest.mark.timeout(180)
def test_killed_redis_is_shown(shown):
    assert httpx.get(f"{shown.gateway.url}/status").status_code == 401
    eventually(lambda: shown.cache() == "ok", timeout=60, what="the cache answers")
    found = shown.figures()["overview"]
    assert found["processes"] == 2
    assert found["outbox_rows"] is None  # its workers know

    with ConsoleSession(shown.gateway, shown.key) as console:
        page = lambda: console.get("/console/health").text  # noqa: E731
        eventually(lambda: "Everything answers." in page(), timeout=60, what="the other process is ready")

        shown.redis.kill()
        killed = time.monotonic()
        eventually(lambda: shown.cache() != "ok", timeout=30, what="its absence is shown")
        print(f"shown after {time.monotonic() - killed:.2f} s")

        eventually(
            lambda: "<p>cache: " in console.get("/console/health").text, timeout=10, what="it is there"
        )
    shown.redis.start()


@pytest.mark.services
@pytest.mark.timeout(240)
@pytest.mark.skipif(bool(browser.missing()), reason=f"{browser.missing()}: not installed")
def test_killed_redis_is_shown_in_a_browser(shown, tmp_path):
    """By its own polling. Its screenshots, in both colour schemes and on a phone, are in docs/images."""
    with browser.Browser() as window:
        eventually(lambda: shown.cache() == "ok", timeout=60, what="the cache answers")
        window.open(f"{shown.gateway.url}/status", Authorization=f"Bearer {shown.key}")
        eventually(lambda: "redirects" in window.text(), timeout=60, what="the page has figures")
        # The page asks any process, and one may connect to the new Redis after another.
        eventually(lambda: "cache: " not in window.text(), timeout=60, what="each process has the cache")

        shown.redis.kill()
        killed = time.monotonic()
        eventually(lambda: "cache: " in window.text(), timeout=60, what="the alarm is shown")
        print(f"shown in the browser after {time.monotonic() - killed:.2f} s")

        def shows_breaker() -> bool:
            for number in range(20):
                httpx.get(f"{shown.gateway.url}/absent-{number}")
            return "circuit breaker redis.read" in window.text()

        eventually(shows_breaker, timeout=60, what="the circuit breaker is shown")
        colours = set()
        for name, width, height, dark in SCREENS:
            window.look(width=width, height=height, dark=dark)
            (tmp_path / f"status-{name}.png").write_bytes(window.screenshot())
            assert window.run("return document.documentElement.scrollWidth <= window.innerWidth"), name
            colours.add(window.run("return getComputedStyle(document.body).backgroundColor"))
        assert len(colours) == 2

        window.open(f"{shown.gateway.url}/console/sign-in")
        window.run(f"document.querySelector('#key').value = '{shown.key}'")
        window.run("document.querySelector('form').requestSubmit()")
        signed_in = "return document.readyState === 'complete' && location.pathname === '/console'"
        eventually(lambda: window.run(signed_in), timeout=60, what="the session begins")
        window.open(f"{shown.gateway.url}/console/health")
        alarms = "return document.querySelector('#alarms').innerText"
        eventually(lambda: "cache: " in window.run(alarms), timeout=60, what="the console shows the alarm")
        eventually(lambda: "Live: the figures" in window.text(), timeout=60, what="the figures are renewed")
        for name, width, height, dark in SCREENS:
            window.look(width=width, height=height, dark=dark)
            (tmp_path / f"health-{name}.png").write_bytes(window.screenshot())
            assert window.run("return document.documentElement.scrollWidth <= window.innerWidth"), name
        window.run("document.documentElement.dataset.opened = 'once'")

        shown.redis.start()
        eventually(lambda: "cache: " not in window.run(alarms), timeout=60, what="the alarm is over")
        assert window.run("return document.documentElement.dataset.opened") == "once"
