"""Live numbers of the console over HTTP: what their streams say, what bounds them, and what ends them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest

from app.console.live import ALL, LINK, MOST_EACH
from tests.integration.console_gateway import ARRANGEMENTS, TARGET, serving, signed_in
from tests.integration.console_session import ConsoleSession
from tests.servers.hopgate import eventually
from tests.servers.nginx import PrivateNginx

pytestmark = pytest.mark.timeout(120)


gateway = pytest.fixture(serving, scope="module", params=ARRANGEMENTS)
console = pytest.fixture(signed_in)


class Stream:
    """Reads events in the body of `following`."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.iter_lines()

    def next(self) -> tuple[str, dict[str, str]]:
        kind = ""
        for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                return kind, json.loads(value)
        raise EOFError

    def until(self, **figures: str) -> None:
        """Read until these figures are shown."""
        while True:
            kind, found = self.next()
            assert kind == "figures"
            if figures.items() <= found.items():
                return

    def last(self) -> str:
        """Return the kind of the last event."""
        last = ""
        with suppress(EOFError):
            while True:
                last, _ = self.next()
        return last


@contextmanager
def following(console: ConsoleSession, path: str = LINK, **query: str) -> Iterator[Stream]:
    with console.http.stream("GET", path, params=query, timeout=30) as answer:
        assert answer.status_code == 200, answer.read()
        yield Stream(answer)


def test_visits_arrive_while_the_stream_is_open(gateway, console):
    console.create(long_url=TARGET, slug="watched")
    with following(console, slug="watched") as stream, following(console, ALL) as all_links:
        kind, figures = stream.next()
        before = int(all_links.next()[1]["total"])
        began = time.monotonic()
        httpx.get(f"{gateway.url}/watched", headers={"User-Agent": "Mozilla/5.0 Firefox/140.0"})
        stream.until(total="1", clicks="1", people="1", bots="0")
        print(f"shown after {time.monotonic() - began:.1f} s")
        all_links.until(total=str(before + 1))

    assert kind == "figures"
    assert figures == dict.fromkeys(("total", "clicks", "people", "visitors", "bots", "others"), "0")
    assert stream.answer.headers["content-type"] == "text/event-stream"
    assert stream.answer.headers["cache-control"] == "no-store"
    page = console.page("watched").text
    assert 'data-figure="total">1<' in page
    assert 'data-live="/console/link/live?slug=watched&amp;domain=127.0.0.1&amp;range=7d"' in page


def test_stream_passes_nginx_as_it_comes(gateway, console, tmp_path):
    console.create(long_url=TARGET, slug="behind-nginx")
    with PrivateNginx(tmp_path, [gateway.port] * 2) as nginx:
        console.http.base_url = nginx.url
        with following(console, slug="behind-nginx") as stream:
            assert stream.next()[1]["total"] == "0"
            httpx.get(f"{gateway.url}/behind-nginx")
            stream.until(total="1")


def test_streams_of_a_session_are_bounded(gateway, console):
    console.create(long_url=TARGET, slug="bounded")
    with ExitStack() as stack:
        for _ in range(MOST_EACH):
            stack.enter_context(following(console, slug="bounded")).next()
        refused = console.get(LINK, slug="bounded")
        with ConsoleSession(gateway, gateway.key) as other, following(other, slug="bounded") as stream:
            assert stream.next()[1]["total"] == "0"

    assert (refused.status_code, refused.headers["content-type"]) == (503, "text/html; charset=utf-8")

    def is_free() -> bool:
        with console.http.stream("GET", LINK, params={"slug": "bounded"}) as answer:
            return answer.status_code == 200

    # A client that is gone is noticed when it is sent something.
    eventually(is_free, 30, "there is a place", every=1)


def test_stream_ends_with_its_session_its_key_and_its_link(gateway, console):
    console.create(long_url=TARGET, slug="ending")
    key = gateway.run("keys", "create", "ending", "--scope", "stats:read")
    with ConsoleSession(gateway, gateway.key) as leaving, following(leaving, slug="ending") as stream:
        stream.next()
        leaving.send("/console/sign-out")
        assert stream.last() == "over"
    with ConsoleSession(gateway, key) as revoked, following(revoked, slug="ending") as stream:
        stream.next()
        gateway.run("keys", "revoke", key.split("_")[1])
        assert stream.last() == "over"
    with following(console, slug="ending") as stream:
        stream.next()
        console.send("/console/link/remove", slug="ending", version="1")
        assert stream.last() == "over"
    assert console.get(LINK, slug="ending").status_code == 404


def test_key_follows_what_its_pages_show(gateway, console):
    console.create(long_url=TARGET, slug="of-another")
    own = gateway.run("keys", "create", "own", "--own-links", "--scope", "links:read")
    counting = gateway.run("keys", "create", "counting", "--scope", "stats:read")
    with ConsoleSession(gateway, own) as session:
        assert session.get(LINK, slug="of-another").status_code == 404
        assert session.get(ALL).status_code == 404
        assert "data-live" not in session.get("/console").text
    with ConsoleSession(gateway, counting) as session:
        assert session.get(ALL).status_code == 403
        with following(session, slug="of-another") as stream:
            assert stream.next()[0] == "figures"
    for path in (LINK, ALL):
        assert httpx.get(f"{gateway.url}{path}").headers["location"] == "/console/sign-in"
    assert console.get(LINK, slug="no such").status_code == 404
    assert console.http.head(LINK, params={"slug": "of-another"}).content == b""


def test_sigterm_ends_streams(gateway, console):
    """The last test of this gateway."""
    with following(console, ALL) as stream:
        stream.next()
        began = time.monotonic()
        gateway.stop(timeout=15)
        with suppress(httpx.RemoteProtocolError):
            assert stream.last() == ""

    print(f"stopped after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 10
