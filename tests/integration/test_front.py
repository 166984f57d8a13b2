"""The front answers what the L1 cache holds, the application everything else, to the same clients."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.integration.front_gateway import FRONT, TARGET, get, is_of_the_front, total, workers_of
from tests.servers.hopgate import (
    UNLIMITED,
    Gateway,
    command,
    environment,
    eventually,
    hopgate,
    make_key,
    make_store,
)
from tests.servers.ports import free_ports
from tests.servers.raw_http import answer_on, answered

LINKS = "/api/v1/links"


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("front")
    return {"HOPGATE_DATA_DIR": str(folder / "data"), "TMPDIR": str(folder), **UNLIMITED, **FRONT}


@pytest.fixture(scope="module")
def gateway(settings, tmp_path_factory) -> Iterator[Gateway]:
    with Gateway(settings, tmp_path_factory.mktemp("log")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def api(gateway, settings) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {make_key(settings)}"}
    with httpx.Client(base_url=gateway.url, headers=headers) as client:
        yield client


@pytest.fixture
def slug(api) -> str:
    return api.post(LINKS, json={"long_url": TARGET}).json()["slug"]


def warm(gateway: Gateway, path: str, *headers: str) -> None:
    """Ask for *path* until the front answers it."""
    eventually(lambda: is_of_the_front(get(gateway, path, *headers)), what=f"{path} is hot")


# --- what is answered ---------------------------------------------------------------------


def test_first_visit_is_looked_up_and_answered_by_the_front(gateway, slug):
    first, second = get(gateway, f"/{slug}"), get(gateway, f"/{slug}")
    # An escape is for the application to decode.
    other = get(gateway, f"/%{ord(slug[0]):02x}{slug[1:]}")

    def shown(answer):
        return answer.status, sorted(pair for pair in answer.headers if pair[0] not in {"date", "server"})

    assert is_of_the_front(first)
    assert not is_of_the_front(other)
    assert shown(first) == shown(second) == shown(other)
    assert first.header("location") == TARGET


def test_visitors_of_one_slug_wait_for_one_look_up(gateway, slug):
    looked_up = total(gateway, "hopgate_look_ups_total")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: get(gateway, f"/{slug}"), range(60)))

    assert {(answer.status, is_of_the_front(answer)) for answer in answers} == {(302, True)}
    # A slow machine may renew it meanwhile.
    assert total(gateway, "hopgate_look_ups_total") - looked_up < 10


def test_forwarded_query_is_added_by_the_front(gateway, api):
    link = {"long_url": f"{TARGET}?a=1", "forward_query": True}
    slug = api.post(LINKS, json=link).json()["slug"]

    answers = [get(gateway, f"/{slug}{query}") for query in ("?b=2", "", "?b=2", "?")]

    assert [answer.header("location") for answer in answers] == [
        f"{TARGET}?a=1{added}" for added in ("&b=2", "", "&b=2", "")
    ]
    assert [is_of_the_front(answer) for answer in answers] == [True] * 4


def test_visitors_parameters_take_the_place_of_the_targets_if_the_link_says_so(gateway, api):
    link = {"long_url": TARGET, "utm_source": "mail", "utm_medium": "m", "forward_query": True}
    slug = api.post(LINKS, json=link).json()["slug"]
    warm(gateway, f"/{slug}")
    kept = get(gateway, f"/{slug}?utm_source=qr").header("location")

    assert api.patch(f"{LINKS}/{slug}", json={"override_query": True}).status_code == 200

    warm(gateway, f"/{slug}")
    answer = get(gateway, f"/{slug}?utm_source=qr")
    assert kept == f"{TARGET}?utm_source=mail&utm_medium=m&utm_source=qr"
    assert answer.header("location") == f"{TARGET}?utm_medium=m&utm_source=qr"
    assert is_of_the_front(answer)


def test_edit_and_removal_are_seen_at_once(gateway, api, slug):
    warm(gateway, f"/{slug}")

    assert api.patch(f"{LINKS}/{slug}", json={"long_url": f"{TARGET}2"}).status_code == 200
    assert get(gateway, f"/{slug}").header("location") == f"{TARGET}2"
    assert api.delete(f"{LINKS}/{slug}").status_code == 204
    assert get(gateway, f"/{slug}").status == 410


def test_created_link_replaces_a_hot_404(gateway, api):
    warm(gateway, "/to-be-created")
    assert get(gateway, "/to-be-created").status == 404

    assert api.post(LINKS, json={"long_url": TARGET, "slug": "to-be-created"}).status_code == 201

    assert get(gateway, "/to-be-created").status == 302


def test_visits_are_spent_by_both_sides(gateway, api):
    """From one lease, whichever side a request takes; a HEAD or a prefetch spends none."""
    slug = api.post(LINKS, json={"long_url": TARGET, "max_visits": 3}).json()["slug"]
    escaped = f"/%{ord(slug[0]):02x}{slug[1:]}"
    head = f"HEAD /{slug} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()

    assert answered(gateway.port, head).status == 302
    assert get(gateway, f"/{slug}", "Sec-Purpose: prefetch").status == 503
    answers = [get(gateway, path) for path in (f"/{slug}", escaped, f"/{slug}", escaped, f"/{slug}")]

    assert [answer.status for answer in answers] == [302, 302, 302, 410, 410]
    assert [is_of_the_front(answer) for answer in answers] == [True, False, True, False, True]
    assert answered(gateway.port, head).status == 410


def test_every_answer_is_counted_once(gateway, api, slug):
    """By status in the histogram, as hits and misses of the L1 cache, and as clicks of the link."""

    def counts() -> dict[str, float]:
        redirects = {"route": "/{slug}", "method": "GET"}
        return {
            "requests": total(gateway, "http_server_requests_total", **redirects),
            "timed": total(gateway, "http_server_request_duration_seconds_count", **redirects),
            "hits": total(gateway, "hopgate_layer_requests_total", layer="l1", result="hit"),
            "misses": total(gateway, "hopgate_layer_requests_total", layer="l1", result="miss"),
            "redirects": total(gateway, "hopgate_redirects_total", status="3xx"),
            "404": total(gateway, "hopgate_redirects_total", status="404"),
        }

    before = counts()
    visits, misses, spent = 40, 5, 3
    for _ in range(visits - spent):
        get(gateway, f"/{slug}")
    for _ in range(misses):
        get(gateway, "/counted-as-missing")
    metered = api.post(LINKS, json={"long_url": TARGET, "max_visits": 9}).json()["slug"]
    for _ in range(spent):
        get(gateway, f"/{metered}")
    after = {name: value - before[name] for name, value in counts().items()}

    assert after.pop("hits") + after.pop("misses") == visits + misses
    assert after == {
        "requests": visits + misses,
        "timed": visits + misses,
        "redirects": visits,
        "404": misses,
    }
    eventually(lambda: api.get(f"{LINKS}/{slug}").json()["visits"] == visits - spent, 30, "all clicks arrive")


# --- what is passed on --------------------------------------------------------------------


def test_bodies_pass_both_ways(gateway, api):
    title = "ü" * 200
    made = api.post(LINKS, json={"long_url": f"{TARGET}?{'a' * 8000}", "title": title})
    assert made.status_code == 201, made.text

    read = api.get(f"{LINKS}/{made.json()['slug']}").json()

    assert (read["title"], len(read["long_url"])) == (title, len(TARGET) + 8001)


def test_idle_connections_end_on_both_sides(gateway, api):
    """The front closes those of clients after 5 s; the one to granian, which does the same, is made anew."""
    assert api.get("/healthz").status_code == 200
    with (
        socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as silent,
        socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as half,
    ):
        half.sendall(b"GET /abc HTTP/1.1\r\nHos")

        for connection in (silent, half):
            assert connection.recv(100) == b""

    assert [api.post(LINKS, json={"long_url": TARGET}).status_code for _ in range(3)] == [201] * 3
    assert total(gateway, "hopgate_front_unanswered_total") == 0


def test_large_head_is_refused(gateway):
    filler = "a" * 8000
    headers = [f"X-{number}: {filler}" for number in range(5)]

    assert get(gateway, "/healthz", *headers[:3]).status == 200
    assert get(gateway, "/healthz", *headers).status == 431


def test_private_socket_is_for_this_user_alone(settings):
    [path] = Path(settings["TMPDIR"]).glob("hopgate-*/0.sock")

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_folder_with_a_long_path_is_refused(tmp_path):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "TMPDIR": str(folder), **FRONT}

    done = hopgate({**settings, "HOPGATE_BIND": f"127.0.0.1:{free_ports(1)[0]}"}, "serve")

    assert done.returncode == 1
    assert "is too long for a socket (set TMPDIR to a shorter path)" in done.stderr.splitlines()[-1]


def test_pipelined_requests_are_answered_in_order(gateway, slug):
    warm(gateway, f"/{slug}")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        paths = [f"/{slug}", "/healthz", f"/{slug}", "/nothing/here"]
        connection.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))

    statuses = [part.split(b" ", 1)[0] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"302", b"200", b"302", b"404"]


# --- many at once ---------------------------------------------------------------------------


def test_connections_leave_nothing_behind(gateway, slug):
    warm(gateway, f"/{slug}")

    def visit(number: int) -> None:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
            path = f"/{slug}" if number % 2 else f"/never-{number}"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            if number % 3:
                answer_on(connection)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # One: that of the question.
    eventually(lambda: total(gateway, "hopgate_front_connections") <= 2, 20, "connections are closed")


def test_connections_wait_while_descriptors_are_short(gateway, slug):
    """Those that are open are served meanwhile, the others afterwards."""
    [worker] = workers_of(gateway)
    folder = Path(f"/proc/{worker}/fd")
    usual = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    few = max(int(entry.name) for entry in folder.iterdir()) + 8
    request = f"GET /{slug} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=30))
        first.sendall(request)
        assert answer_on(first).status == 302
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (few, usual[1]))
        stack.callback(resource.prlimit, worker, resource.RLIMIT_NOFILE, usual)
        others = []
        for _ in range(20):
            address = ("127.0.0.1", gateway.port)
            others.append(stack.enter_context(socket.create_connection(address, timeout=30)))
            others[-1].sendall(request)
        eventually((folder / str(few - 1)).is_symlink, what="the last descriptor is taken")
        first.sendall(request)
        assert answer_on(first).status == 302

        resource.prlimit(worker, resource.RLIMIT_NOFILE, usual)

        assert {answer_on(connection).status for connection in others} == {302}


# --- the start ------------------------------------------------------------------------------


@pytest.fixture
def without_front(tmp_path) -> dict[str, str]:
    """Settings of a gateway whose Python has no front."""
    package = tmp_path / "without" / "hopgate_front"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError(\"No module named 'hopgate_front'\")")
    return {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(package.parent)}


def run(settings: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `hopgate ARGUMENTS` in a Python of its own, which looks for packages where *settings* say."""
    environ = environment(settings)
    return subprocess.run(command(*arguments), env=environ, capture_output=True, text=True, timeout=60)


def test_missing_front_is_one_line_that_says_what_to_do(without_front, tmp_path):
    done = run({**without_front, "HOPGATE_BIND": f"127.0.0.1:{free_ports(1)[0]}"}, "serve")

    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(
        "hopgate: HOPGATE_FRONT: the front cannot be loaded (No module named 'hopgate_front')"
    )
    assert "pip install ./pyext/front of this version, or set HOPGATE_FRONT=off" in line
    assert not (tmp_path / "data").exists()


def test_gateway_without_the_package_serves_if_it_is_told_to(without_front, tmp_path):
    settings = {**without_front, "HOPGATE_FRONT": "off", "HOPGATE_ACCESS_LOG": "on"}
    with Gateway(settings, tmp_path) as gateway:
        assert get(gateway, "/absent").status == 404


def test_doctor_says_whether_there_is_a_front(without_front, tmp_path):
    make_store(without_front)
    own = {name: value for name, value in without_front.items() if name != "PYTHONPATH"}
    found = []
    for settings in (
        own,
        {**own, "HOPGATE_FRONT_THREADS": "2"},
        {**own, "HOPGATE_FRONT": "off"},
        without_front,
    ):
        done = run(settings, "doctor")
        [line] = [line for line in done.stdout.splitlines() if line.split()[1] == "front"]
        found.append((done.returncode, " ".join(line.split())))

    assert [code for code, _ in found] == [0, 0, 0, 1]
    assert [line for _, line in found[:3]] == [
        "ok front on, 1 thread for each process",
        "ok front on, 2 threads for each process",
        "ok front off: Python answers redirects",
    ]
    assert found[3][1].startswith("BAD front HOPGATE_FRONT: the front cannot be loaded")


def test_log_says_that_the_front_is_on(gateway):
    lines = [line for line in gateway.output.splitlines() if "the front is on" in line]

    assert len(lines) == 1
    assert '"message":"the front is on: it answers redirects, by 1 of its threads"' in lines[0]
