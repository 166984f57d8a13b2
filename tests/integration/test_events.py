"""The event stream over HTTP, with the front and without."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any, NamedTuple

import apsw
import httpx
import pytest

from tests.integration.api_calls import LINKS, create, fresh_slug, problem
from tests.integration.conftest import EmbeddedGateway
from tests.servers.hopgate import UNLIMITED, eventually, make_key

EVENTS = "/api/v1/events"


class Message(NamedTuple):
    kind: str
    id: str
    data: Any


class Stream:
    """Reads a stream in the body of `following`; `begun` is the id that it starts with."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._blocks = self._read(answer.iter_lines())
        self.raw: list[dict[str, str]] = []
        self.begun = next(self._blocks)

    def _read(self, lines: Iterator[str]) -> Iterator[dict[str, str]]:
        block: dict[str, str] = {}
        for line in lines:
            if line:
                name, _, value = line.partition(":")
                block[name] = value.removeprefix(" ")
                continue
            self.raw.append(block)
            yield block
            block = {}

    def next(self) -> Message:
        for block in self._blocks:
            if "data" in block:
                return Message(block["event"], block["id"], json.loads(block["data"]))
        raise AssertionError("the stream has ended")

    def rest(self) -> list[dict[str, str]]:
        return list(self._blocks)


@contextmanager
def following(api: httpx.Client, last_id: str | None = None, **query: str) -> Iterator[Stream]:
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    with api.stream("GET", EVENTS, params=query, headers=headers, timeout=30) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream"
        yield Stream(answer)


@pytest.fixture(scope="module", params=["on", "off"])
def gateway(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    directory = tmp_path_factory.mktemp("events")
    settings = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": "http://hop.example",
        "HOPGATE_FRONT": request.param,
        "HOPGATE_EVENT_STREAMS": "20",
        **UNLIMITED,
    }
    with EmbeddedGateway(settings, directory) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: EmbeddedGateway) -> str:
    return make_key(gateway.settings)


@pytest.fixture
def api(gateway: EmbeddedGateway, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}, timeout=10) as client:
        yield client


def test_events_arrive_while_the_stream_is_open(api):
    slug = fresh_slug()
    with following(api) as stream:
        made = create(api, slug=slug)
        first = stream.next()
        api.patch(f"{LINKS}/{slug}", json={"title": "x"})
        second = stream.next()

    assert stream.begun["retry"] == "2000"
    assert (first.kind, second.kind) == ("link.created", "link.changed")
    assert first.data == {"type": "link.created", "timestamp": made["updated_at"], "data": made}
    assert second.data["data"]["title"] == "x"


def test_stream_goes_on_after_the_last_id(api):
    with following(api) as stream:
        slugs = [create(api)["slug"] for _ in range(3)]
        seen = [stream.next() for _ in slugs]
        began = stream.begun["id"]
    with following(api, seen[0].id) as stream:
        assert [stream.next().id for _ in slugs[1:]] == [one.id for one in seen[1:]]
    with following(api, began) as stream:
        assert [stream.next().data["data"]["slug"] for _ in slugs] == slugs
    with following(api, "0-00000000") as stream:
        assert stream.next().id.startswith("1-")
    # Of clients that send the header before they have an id: from now on.
    with following(api, "") as stream:
        assert "event" not in stream.begun
        slug = create(api)["slug"]
        assert stream.next().data["data"]["slug"] == slug


def test_unknown_place_is_a_reset(api):
    create(api)
    for unknown in ("1-ffffffff", "999999999-00000000"):
        with following(api, unknown) as stream:
            assert stream.begun["event"] == "reset"
            slug = create(api)["slug"]
            assert stream.next().data["data"]["slug"] == slug
    for wrong in ("x", "1", "-1-ffffffff", "9" * 30 + "-ffffffff"):
        found = problem(api.get(EVENTS, headers={"Last-Event-ID": wrong}), 422, "invalid")
        assert found["errors"][0]["field"] == "last-event-id"


def test_open_stream_is_told_that_the_store_went_back(gateway, api):
    create(api)
    with following(api) as stream:
        create(api)
        lost = stream.next().id
        with closing(apsw.Connection(f"{gateway.settings['HOPGATE_DATA_DIR']}/hopgate.db")) as db:
            db.set_busy_timeout(10_000)
            db.execute("DELETE FROM link_events WHERE position = (SELECT max(position) FROM link_events)")
        reset = stream.next()
        slug = create(api)["slug"]
        after = stream.next()

    assert reset.kind == "reset"
    assert int(reset.id.partition("-")[0]) < int(lost.partition("-")[0])
    assert after.data["data"]["slug"] == slug


def test_filters_choose_events(api):
    with following(api, kinds="link.changed,link.removed", tag="wanted", domain="hop.example") as stream:
        slugs = [create(api, tags=tags)["slug"] for tags in ([], ["wanted"])]
        for slug in slugs:
            api.patch(f"{LINKS}/{slug}", json={"title": "x"})
        message = stream.next()

    assert (message.kind, message.data["data"]["slug"]) == ("link.changed", slugs[1])
    for query in ({"kinds": "link.exploded"}, {"domain": "none.example"}, {"tag": ""}, {"unknown": "x"}):
        problem(api.get(EVENTS, params=query), 422, "invalid")


def test_silent_stream_has_heartbeats_that_move_the_id_on(api):
    with following(api, kinds="link.expired") as stream:
        began = time.monotonic()
        create(api)
        beats = [next(stream._blocks) for _ in range(2)]

    assert time.monotonic() - began < 25
    assert [set(beat) for beat in beats] == [{"", "id"}] * 2
    assert beats[0]["id"] != stream.begun["id"]


def test_streams_are_bounded(api):
    with ExitStack() as stack:
        for _ in range(20):
            if stack.enter_context(api.stream("GET", EVENTS)).status_code == 503:
                break
        problem(api.get(EVENTS), 503, "overloaded")

    def are_free() -> bool:
        with ExitStack() as stack:
            answers = [stack.enter_context(api.stream("GET", EVENTS)) for _ in range(3)]
            return all(answer.status_code == 200 for answer in answers)

    # A client that is gone is noticed when it is sent something.
    eventually(are_free, 30, "three places", every=3)
    time.sleep(11)


def test_head_has_no_body(api):
    answer = api.head(EVENTS)

    assert (answer.status_code, answer.content) == (200, b"")


def test_revoked_key_ends_its_stream(api):
    made = api.post("/api/v1/keys", json={"name": "reader", "scopes": ["links:read"]}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    with httpx.Client(base_url=api.base_url, headers=headers) as client, following(client) as stream:
        assert api.delete(f"/api/v1/keys/{made['key_id']}").status_code == 204
        began = time.monotonic()
        assert stream.rest() == []
        assert time.monotonic() - began < 5


def test_sigterm_ends_streams(gateway, api):
    """The last test of this gateway."""
    with following(api) as stream:
        began = time.monotonic()
        gateway.stop(timeout=15)
        with suppress(httpx.RemoteProtocolError):
            stream.rest()

    assert time.monotonic() - began < 10
