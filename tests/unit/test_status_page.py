"""`GET /status`: which clients see it, what the page may do, and how its figures are made."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re

import pytest

from app.domain.errors import Unavailable
from app.service.keys import ALL_SCOPES, Authenticator, Scope, issue
from app.telemetry import families
from app.telemetry.recent import RecentOverview
from app.web.client import is_local
from app.web.status import key_of, page
from tests.conftest import NOW
from tests.unit.whole_application import Headers, Protocol
from tests.unit.whole_application import Scope as RsgiScope

LOCAL = "127.0.0.1:54321"


async def ask(application, query="", *, client=LOCAL, host="127.0.0.1:8000", **headers) -> Protocol:
    scope, protocol = RsgiScope("GET", "/status"), Protocol()
    scope.query_string, scope.client = query, client
    named = {name.replace("_", "-"): [value] for name, value in headers.items()}
    scope.headers = Headers(host=[host], **named)
    await application._rsgi.__rsgi__(scope, protocol)
    return protocol


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"operator:{key}".encode()).decode()


# --- which clients see it ----------------------------------------------------------------


@pytest.mark.parametrize("client", ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "127.8.9.1:1"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000"])
def test_programs_of_this_machine_are_local(client, host):
    assert is_local(client, Headers(host=[host]))


@pytest.mark.parametrize("client", ["198.51.100.7:1", "[2001:db8::1]:1", "10.0.0.1:1", "", "x:1"])
def test_other_machines_are_not_local(client):
    assert not is_local(client, Headers(host=["127.0.0.1:8000"]))


@pytest.mark.parametrize("host", ["hop.example", "127.0.0.1.hop.example", "localhost.hop.example:80", ""])
def test_a_page_on_the_web_with_the_address_of_this_machine_is_not_local(host):
    assert not is_local(LOCAL, Headers(host=[host]))


@pytest.mark.parametrize("header", ["forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip"])
def test_what_a_proxy_sends_is_not_local(header):
    assert not is_local(LOCAL, Headers(host=["127.0.0.1"], **{header: ["127.0.0.1"]}))


async def test_embedded_gateway_shows_its_machine_the_page_without_a_key(application):
    answer = await ask(application)

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    "request_", [{"client": "198.51.100.7:1"}, {"host": "hop.example"}, {"x_forwarded_for": "127.0.0.1"}]
)
async def test_all_others_need_a_key_that_browsers_ask_for(application, request_):
    answer = await ask(application, **request_)

    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Basic realm=")
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize(
    ("scopes", "status"), [(ALL_SCOPES, 200), ({Scope.ADMIN}, 200), ({Scope.LINKS_READ}, 403)]
)
@pytest.mark.parametrize("scheme", [basic, "Bearer {}".format], ids=["basic", "bearer"])
async def test_key_needs_the_scope_admin(application, choice, scopes, status, scheme):
    text, record = issue("operators", frozenset(scopes), now=NOW, choice=choice)
    await application.services.authenticator._store.add_key(record)

    answer = await ask(application, client="198.51.100.7:1", authorization=scheme(text))

    assert answer.status == status


@pytest.mark.parametrize("value", ["", "Basic", "Basic %", "Basic w6Q6w6Q=", "Basic eA==", "Digest x", "x"])
def test_other_credentials_hold_no_key(value):
    assert key_of(value) == ""


async def test_key_counts_while_the_store_is_away(store, choice, monotonic):
    """For as long as the caller says after it was read, and not at all where nothing is said."""
    text, record = issue("operators", ALL_SCOPES, now=NOW, choice=choice)
    await store.add_key(record)
    authenticator = Authenticator(store, monotonic=monotonic)
    assert await authenticator.authenticate(text) is not None
    store.away = True

    monotonic.now += 500
    assert await authenticator.authenticate(text, stale_s=600) is not None
    with pytest.raises(Unavailable):
        await authenticator.authenticate(text)
    monotonic.now += 200
    with pytest.raises(Unavailable):
        await authenticator.authenticate(text, stale_s=600)


# --- the page ----------------------------------------------------------------------------


def test_page_runs_only_what_it_came_with():
    answer = page()
    html, policy = answer.body.decode(), dict(answer.headers)["content-security-policy"]

    for tag in ("style", "script"):
        (part,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(
        r"""\b(src|href|action)="(?!data:,"|\?format=json")|style=|\son\w+=|innerHTML""", html
    )


@pytest.mark.parametrize("query", ["format=xml", "x=1", "format=json&format=html"])
async def test_other_queries_are_refused(application, query):
    assert (await ask(application, query)).status == 422


# --- the figures -------------------------------------------------------------------------


async def test_figures_are_json(application):
    answer = await ask(application, "format=json")

    assert answer.status == 200
    found = json.loads(answer.body)
    assert found["dependencies"] == {"store": "ok", "cache": "ok", "bus": "ok"}
    assert found["overview"]["processes"] == 1
    assert answer.headers["cache-control"] == "no-store"


class Counted:
    """Samples that count how often they are read; a clock that `sleep` moves on."""

    def __init__(self, monotonic) -> None:
        self.reads = 0
        self.clock = monotonic
        self.recent = RecentOverview(self.read, monotonic=monotonic, sleep=self.sleep)

    async def read(self):
        self.reads += 1
        return {families.SHED.of("list"): [10 * self.reads]}

    async def sleep(self, seconds: float) -> None:
        self.clock.now += seconds


async def test_readers_share_the_figures_of_a_second(monotonic):
    counted = Counted(monotonic)

    first = await asyncio.gather(*(counted.recent.get() for _ in range(100)))

    assert counted.reads == 2
    assert {id(one) for one in first} == {id(first[0])}
    assert (first[0].seconds, first[0].shed_per_s) == (1, 10)
    monotonic.now += 0.5
    assert await counted.recent.get() is first[0]
    monotonic.now += 1.5
    later = await counted.recent.get()
    assert (later.seconds, later.shed_per_s, counted.reads) == (2, 5, 3)


async def test_figures_after_a_pause_are_of_one_second(monotonic):
    counted = Counted(monotonic)
    await counted.recent.get()
    monotonic.now += 3600

    assert (await counted.recent.get()).seconds == 1
