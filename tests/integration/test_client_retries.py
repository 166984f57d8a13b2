"""What the client package repeats, when, and what it never does twice; sync and async."""

from __future__ import annotations

import json
import time

import pytest
from hopgate_client import Retries, errors

from tests.integration.api_calls import fresh_slug
from tests.integration.client_calls import Clients, Clock
from tests.servers.ports import free_ports
from tests.servers.scripted import Drop, Lose, Reply, ScriptedServer

TARGET = "https://example.com/page"


def problem(status, code, **headers):
    document = {"type": "x", "title": "T", "status": status, "code": code, "newer": 1}
    return Reply(
        status,
        json.dumps(document).encode(),
        {name.replace("_", "-"): value for name, value in headers.items()},
        "application/problem+json",
    )


OVERLOADED = problem(503, "overloaded")
UNAVAILABLE = problem(503, "unavailable", Retry_After="1")


@pytest.fixture(scope="module", params=["sync", "async"])
def clients(request):
    made = Clients(is_async=request.param == "async")
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(embedded):
    with ScriptedServer(embedded.port) as scripted:
        yield scripted


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def hopgate(clients, server, admin_key, clock):
    """Its pauses are the longest, and take no time."""
    server.plan()
    return clients(server.url, admin_key, clock=clock)


def links_to(api, target):
    return api.get("/api/v1/links", params={"long_url": target}).json()["links"]


# --- reads and creates -------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [Drop(), Lose(), OVERLOADED, UNAVAILABLE, Reply(502, b"<html>", media_type="text/html")]
)
def test_read_is_repeated_until_it_is_answered(hopgate, server, failure):
    slug = hopgate.links.create(TARGET).slug
    server.plan(failure, failure)

    assert hopgate.links.get(slug).slug == slug
    assert len(server.received) == 3


@pytest.mark.parametrize("failure", [Drop(), Lose(), OVERLOADED, UNAVAILABLE])
def test_create_is_done_once(hopgate, server, api, failure):
    """The connection dies after the gateway has stored the link: each attempt has the same key."""
    target = f"{TARGET}/{fresh_slug()}"
    server.plan(failure, Lose(), failure)

    made = hopgate.links.create(target)

    assert [one["slug"] for one in links_to(api, target)] == [made.slug]
    keys = [one.headers["idempotency-key"] for one in server.received]
    assert (len(keys), len(set(keys))) == (4, 1)
    hopgate.links.create(target)
    assert server.received[-1].headers["idempotency-key"] != keys[0]


def test_batch_is_done_once(hopgate, server, api):
    target = f"{TARGET}/{fresh_slug()}"
    server.plan(Lose(), Lose())

    made = hopgate.links.create_many({"long_url": target} for _ in range(3))

    assert {one["slug"] for one in links_to(api, target)} == {one.link.slug for one in made}
    assert len(made) == 3


def test_batches_before_a_failure_are_reported(hopgate, server, clients):
    server.plan()
    links = [{"long_url": TARGET}] * 5001
    server.plan(None, problem(422, "invalid"))

    with pytest.raises(errors.InvalidRequest) as failed:
        hopgate.links.create_many(links)

    assert [one.status for one in failed.value.done] == [201] * 5000


# --- changes -----------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [Lose(), UNAVAILABLE])
def test_change_without_a_version_is_not_repeated_once_it_may_be_done(hopgate, server, failure):
    """Meanwhile others may have changed the link, and a repetition would undo that."""
    slug = hopgate.links.create(TARGET).slug
    server.plan(failure)

    with pytest.raises((errors.ConnectionFailed, errors.Unavailable)) as failed:
        hopgate.links.change(slug, title="x")

    assert failed.value.may_have_applied
    assert len(server.received) == 1


def test_change_that_was_certainly_not_done_is_repeated(hopgate, server):
    slug = hopgate.links.create(TARGET).slug
    server.plan(OVERLOADED, problem(429, "too_many_requests", Retry_After="1"))

    assert hopgate.links.change(slug, title="x").title == "x"
    assert len(server.received) == 3


def test_change_of_a_version_is_repeated(hopgate, server):
    slug = hopgate.links.create(TARGET).slug
    server.plan(Drop())

    assert hopgate.links.change(slug, title="x", if_version=1).version == 2
    assert len(server.received) == 2


def test_change_of_a_version_is_made_once_and_says_that_it_may_be(hopgate, server):
    slug = hopgate.links.create(TARGET).slug
    server.plan(Lose())

    with pytest.raises(errors.PreconditionFailed) as failed:
        hopgate.links.change(slug, title="x", if_version=1)

    assert failed.value.may_have_applied
    assert failed.value.link is not None
    assert (failed.value.link.version, failed.value.link.title) == (2, "x")


def test_removal_of_a_version_says_that_it_may_be_done(hopgate, server):
    slug = hopgate.links.create(TARGET).slug
    server.plan(Lose())

    with pytest.raises(errors.Gone) as failed:
        hopgate.links.remove(slug, if_version=1)

    assert failed.value.may_have_applied


def test_key_is_made_once(hopgate, server, api):
    """Its text is in the lost answer: a second key would be one that nothing names."""
    name = fresh_slug()
    server.plan(Lose())

    with pytest.raises(errors.ConnectionFailed) as failed:
        hopgate.keys.create(name, ["links:read"])

    assert failed.value.may_have_applied
    assert [one["name"] for one in api.get("/api/v1/keys").json()["keys"]].count(name) == 1


# --- pauses and the deadline --------------------------------------------------------------


def test_retry_after_is_waited_for(hopgate, server, clock):
    server.plan(problem(429, "too_many_requests", Retry_After="7"))

    hopgate.me()

    assert clock.pauses == [pytest.approx(7.2)]


def test_retry_after_may_be_a_time(hopgate, server, clock):
    """It is compared with the time of the answer, so the clock of the client plays no part."""
    at = {"Date": "Thu, 31 Jan 2030 12:00:00 GMT", "Retry_After": "Thu, 31 Jan 2030 12:00:05 GMT"}
    server.plan(problem(503, "overloaded", **at))

    hopgate.me()

    assert clock.pauses == [pytest.approx(5.2)]


def test_retry_after_beyond_the_deadline_is_an_error_at_once(hopgate, server, clock):
    server.plan(problem(429, "too_many_requests", Retry_After="60"))

    with pytest.raises(errors.RateLimited) as limited:
        hopgate.me()

    assert (limited.value.retry_after, clock.pauses) == (60.0, [])


def test_limit_that_never_admits_as_much_is_an_error_at_once(hopgate, server, clock):
    server.plan(problem(429, "too_many_requests"))

    with pytest.raises(errors.RateLimited) as limited:
        hopgate.me()

    assert (limited.value.retry_after, clock.pauses) == (None, [])


def test_pauses_double_up_to_a_bound(clients, server, admin_key, clock):
    retries = Retries(attempts=6, first_pause_s=1.0, longest_pause_s=4.0)
    client = clients(server.url, admin_key, clock=clock, retries=retries)
    server.plan(*[OVERLOADED] * 6)

    with pytest.raises(errors.Unavailable):
        client.me()

    assert clock.pauses == [1.0, 2.0, 4.0, 4.0, 4.0]
    assert len(server.received) == 6


def test_pauses_are_spread(clients, server, admin_key, clock):
    client = clients(server.url, admin_key, clock=clock, random=lambda: 0.0)
    server.plan(OVERLOADED, OVERLOADED)
    client.me()

    assert clock.pauses == [0.1, 0.2]


def test_deadline_ends_the_pauses(clients, server, admin_key, clock):
    retries = Retries(attempts=99, first_pause_s=1.0)
    client = clients(server.url, admin_key, clock=clock, deadline_s=10.0, retries=retries)
    server.plan(*[UNAVAILABLE] * 99)

    with pytest.raises(errors.Unavailable):
        client.me()

    assert sum(clock.pauses) < 10.0


@pytest.mark.parametrize("reply", [Reply(body=b"x" * 1000, pause_s=0.1), Reply(body=b"xx", pause_s=30.0)])
def test_deadline_ends_an_answer_that_comes_slowly(clients, server, admin_key, reply):
    client = clients(server.url, admin_key, deadline_s=0.5)
    server.plan(reply)
    begun = time.monotonic()

    with pytest.raises(errors.DeadlineExceeded) as failed:
        client.me()

    assert time.monotonic() - begun < 20
    assert not failed.value.may_have_applied


def test_gateway_that_is_away_is_named_and_nothing_was_done(clients, clock):
    client = clients(f"http://127.0.0.1:{free_ports(1)[0]}", "hg_x", clock=clock)

    with pytest.raises(errors.ConnectionFailed, match="does not answer") as failed:
        client.links.remove("x")

    assert (len(clock.pauses), failed.value.may_have_applied) == (4, False)


# --- answers of others --------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        Reply(404, b"<html>", media_type="text/html"),
        Reply(200, b"<html>", media_type="text/html"),
        Reply(200, b"[]"),
        Reply(200, b'{"key_id": 7}'),
        Reply(302, b"", {"Location": "http://127.0.0.1:1/"}),
        Reply(403, b"no", media_type="text/plain"),
        Reply(404, b"\xff", media_type="application/problem+json"),
        Reply(404, b"{}", media_type="application/problem+json"),
    ],
)
def test_answer_of_another_server_is_no_outcome(hopgate, server, reply):
    """A proxy's 404 does not mean that there is no link; a redirect does not get the key."""
    server.plan(reply)
    with pytest.raises(errors.UnexpectedAnswer):
        hopgate.me()
    assert len(server.received) == 1


def test_answer_that_is_cut_off_is_repeated(hopgate, server):
    server.plan(Reply(body=b'{"x": ', cut=True))
    assert hopgate.me().scopes == ("admin",)


def test_failure_of_the_gateway_names_its_trace(hopgate, server):
    document = {"type": "x", "title": "T", "status": 500, "code": "server_error", "trace_id": "abc"}
    server.plan(Reply(500, json.dumps(document).encode(), {}, "application/problem+json"))

    with pytest.raises(errors.ServerFailed) as failed:
        hopgate.links.create(TARGET)

    assert (failed.value.trace_id, failed.value.may_have_applied) == ("abc", True)


def test_members_of_a_later_gateway_are_ignored(hopgate, server, api):
    document = {**api.get("/api/v1/me").json(), "newer": {"x": 1}}
    server.plan(Reply(body=json.dumps(document).encode()))
    assert hopgate.me().scopes == ("admin",)


def test_answer_that_cannot_be_decoded_is_no_answer(clients, server, admin_key, clock):
    client = clients(server.url, admin_key, clock=clock, retries=Retries(attempts=1))
    server.plan(Reply(body=b"no gzip", headers={"Content-Encoding": "gzip"}))
    with pytest.raises(errors.ConnectionFailed):
        client.me()


def test_base_url_may_have_a_path(clients, server, admin_key, clock):
    server.plan(OVERLOADED)
    with pytest.raises(errors.HopgateError):
        clients(f"{server.url}/short/", admin_key, clock=clock, retries=Retries(attempts=1)).me()
    assert server.received[0].path == "/short/api/v1/me"


# --- files --------------------------------------------------------------------------------


def test_export_is_given_in_parts_and_says_if_it_is_not_whole(hopgate, server):
    lines = b"".join(b'{"slug": "%d"}\n' % n for n in range(9000))
    server.plan(UNAVAILABLE, Reply(body=lines))
    assert b"".join(hopgate.export_file(tag="x")) == lines
    assert server.received[-1].path == "/api/v1/export?format=jsonl&tag=x"

    for form, last in ("jsonl", b'{"error":"the gateway stops"}\n'), ("csv", b"error: the gateway stops\n"):
        server.plan(Reply(body=b"a\n" + last))
        with pytest.raises(errors.HopgateError, match="the gateway stops"):
            list(hopgate.export_file(form=form))
    server.plan(Reply(body=lines, cut=True))
    with pytest.raises(errors.ConnectionFailed, match="breaks off"):
        list(hopgate.export_file())


def imported(*documents):
    return Reply(body=b"".join(json.dumps(one).encode() + b"\n" for one in documents))


COUNTS = {"read": 2, "imported": 1, "updated": 0, "same": 0, "refused": 1}
REFUSED = {"line": 4, "last_line": 4, "text": "x", "errors": [{"field": "slug", "code": "c", "message": "m"}]}


def test_import_is_reported_as_it_goes(hopgate, server, tmp_path):
    file = tmp_path / "links.csv"
    file.write_bytes(b"long_url\n" * 30_000)
    summary = {"format": "csv", "dry_run": False, **COUNTS, "succeeded": False, "notes": ["n"]}
    server.plan(
        OVERLOADED,
        imported({"refused": REFUSED}, {"progress": {"bytes": 5, "of": 9, **COUNTS}}, {"summary": summary}),
    )
    seen: list = []

    with file.open("rb") as opened:
        opened.read(3)
        report = hopgate.import_file(opened, ignore=["a", "b"], update=True, on_progress=seen.append)

    assert report.summary.imported == 1
    assert not report.summary.succeeded
    assert report.document["notes"] == ["n"]
    assert (report.refused[0].line, report.refused[0].errors[0].field) == (4, "slug")
    assert [one.bytes for one in seen] == [5]
    assert [one.body for one in server.received] == [file.read_bytes()] * 2
    assert server.received[0].path == "/api/v1/import?ignore=a&ignore=b&update=true"


def test_import_that_ends_early_is_an_error(hopgate, server, tmp_path):
    file = tmp_path / "links.csv"
    file.write_bytes(b"long_url\n")
    error = {"type": "x", "title": "T", "status": 503, "code": "unavailable"}

    for reply, kind in (
        (imported({"error": error}), errors.Unavailable),
        (imported({"refused": REFUSED}), errors.UnexpectedAnswer),
        (Reply(body=b'{"refus', cut=True), errors.ConnectionFailed),
        (Lose(), (errors.ConnectionFailed, errors.UnexpectedAnswer)),
    ):
        server.plan(reply)
        with file.open("rb") as opened, pytest.raises(kind) as failed:
            hopgate.import_file(opened)
        assert failed.value.may_have_applied
        assert len(server.received) == 1


def test_timeout_of_a_step_is_that_of_the_client(clients, server, admin_key):
    client = clients(server.url, admin_key, timeout_s=0.2, retries=Retries(attempts=1))
    server.plan(Reply(body=b"xx", pause_s=5.0))

    with pytest.raises(errors.ConnectionFailed):
        client.me()
