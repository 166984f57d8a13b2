"""`hopgate serve` as a newcomer meets it: embedded, from the printed curl to the restart."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import apsw
import httpx
import pytest

from app.resilience.deadline import DRAIN_S
from tests.servers.hopgate import Gateway, Process, eventually, hopgate
from tests.servers.ports import free_ports
from tests.servers.raw_http import exchange


@pytest.fixture
def settings(tmp_path):
    return {"HOPGATE_DATA_DIR": str(tmp_path / "data")}


def children(parent: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True).stdout.split()
    return [int(process) for process in found]


def states(process: int) -> set[str]:
    """Return the letters by which Linux tells what the threads of *process* do: T for stopped."""
    threads = Path(f"/proc/{process}/task").glob("*/stat")
    return {thread.read_text().rpartition(")")[2].split()[0] for thread in threads}


def printed_curl(gateway: Gateway) -> list[str]:
    match = re.search(r"^ *(curl .*?\}')$", gateway.output, re.DOTALL | re.MULTILINE)
    assert match, gateway.output
    return shlex.split(match[1].replace("\\\n", " "))


def test_the_printed_curl_makes_a_link_that_redirects_and_survives_a_restart(settings, tmp_path):
    gateway = Gateway(settings, tmp_path)
    with gateway:
        made = subprocess.run(
            [*printed_curl(gateway), "--silent"], capture_output=True, text=True, timeout=10
        )
        head, _, body = made.stdout.partition("\n\n")
        assert " 201 " in head.splitlines()[0]
        short_url = re.search(r'"short_url":"([^"]+)"', body)[1]
        assert short_url.startswith(gateway.url)
        first = httpx.get(short_url)

    with gateway:
        second = httpx.get(short_url)

    for answer in (first, second):
        assert answer.status_code == 302
        assert answer.headers["location"] == "https://example.com/a/long/path?with=query"


def test_the_printed_key_ends_with_the_next_start(settings, tmp_path):
    gateway = Gateway(settings, tmp_path)
    with gateway:
        old = printed_curl(gateway)
    (tmp_path / f"gateway-{gateway.port}.log").unlink()
    with gateway:
        answer = subprocess.run([*old, "--silent"], capture_output=True, text=True, timeout=10).stdout
        new = printed_curl(gateway)

    assert " 401 " in answer.splitlines()[0]
    assert new != old


def test_no_key_is_printed_once_there_is_a_lasting_one(settings, tmp_path):
    assert hopgate(settings, "keys", "create", "mine").returncode == 0

    with Gateway(settings, tmp_path) as gateway:
        assert "Bearer" not in gateway.output


def test_a_second_server_on_the_same_address_is_refused_in_one_line(settings, tmp_path):
    with Gateway(settings, tmp_path) as gateway:
        second = hopgate({**settings, "HOPGATE_BIND": f"127.0.0.1:{gateway.port}"}, "serve")

    assert second.returncode == 1
    assert second.stderr.startswith(f"hopgate: cannot listen on 127.0.0.1:{gateway.port}: ")
    assert second.stderr.count("\n") == 1


def test_a_second_embedded_gateway_on_the_same_data_is_refused(settings, tmp_path):
    """Each has a cache of its own, so changes made on one would stay unseen on the other."""
    with Gateway(settings, tmp_path):
        second = hopgate({**settings, "HOPGATE_BIND": f"127.0.0.1:{free_ports(1)[0]}"}, "serve")

    assert second.returncode == 1
    assert "another gateway serves from" in second.stderr
    assert second.stderr.count("\n") == 1


def test_who_found_nothing_too_often_finds_nothing_more(settings, tmp_path):
    """Or a hit would still show among the refusals, and guessing would cost nothing."""
    for name in ("first", "later"):
        assert hopgate(settings, "links", "create", "https://example.com/", "--slug", name).returncode == 0
    with Gateway({**settings, "HOPGATE_LIMIT_NOT_FOUND": "2/h burst 2"}, tmp_path) as gateway:
        answers = [
            httpx.get(f"{gateway.url}/{slug}").status_code
            for slug in ("first", "guess-1", "guess-2", "guess-3", "later", "first")
        ]

    assert answers == [302, 404, 404, 429, 429, 302]


def test_sigterm_lets_the_request_under_way_finish(settings, tmp_path):
    """A body that is still being sent when the signal comes is read to its end and answered."""
    gateway = Gateway(settings, tmp_path)
    with gateway:
        token = re.search(r"Bearer (hg_\w+)", gateway.output)[1]
        content = b'{"long_url": "https://example.com/late"}'
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
            connection.sendall(
                b"POST /api/v1/links HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                + f"Authorization: Bearer {token}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                + content[:5]
            )
            time.sleep(0.3)  # the handler has begun to read
            stopped = threading.Thread(target=gateway.stop)
            stopped.start()
            time.sleep(0.3)  # the signal has arrived
            connection.sendall(content[5:])
            answer = connection.recv(65536)
            stopped.join()

    assert b" 201 " in answer.split(b"\r\n")[0]


def test_sigterm_ends_the_server_though_a_client_holds_its_connection(settings, tmp_path):
    with (
        Gateway(settings, tmp_path) as gateway,
        socket.create_connection(("127.0.0.1", gateway.port)) as idle,
    ):
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.recv(65536)

        assert gateway.stop(timeout=25) == 0


def test_sigterm_ends_the_server_though_a_client_never_finishes_its_request(settings, tmp_path):
    """One that sends half a body and one that sends half a header, for as long as they like."""
    with Gateway(settings, tmp_path) as gateway:
        token = re.search(r"Bearer (hg_\w+)", gateway.output)[1]
        halves = (
            (
                f"POST /api/v1/links HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n{{"
            ),
            "GET /healthz HTTP/1.1\r\nHos",
        )
        stuck = [socket.create_connection(("127.0.0.1", gateway.port), timeout=20) for _ in halves]
        try:
            for connection, half in zip(stuck, halves, strict=True):
                connection.sendall(half.encode())
            assert httpx.get(f"{gateway.url}/healthz").status_code == 200

            assert gateway.stop(timeout=DRAIN_S + 5) == 0
        finally:
            for connection in stuck:
                connection.close()


@pytest.mark.parametrize("after_s", [0, 0.03, 0.08])
def test_a_server_that_is_told_to_end_while_it_starts_ends(settings, tmp_path, after_s):
    gateway = Gateway(settings, tmp_path)
    try:
        Process.start(gateway)
        eventually(lambda: "Spawning worker-1" in gateway.output, what="a process is started")
        time.sleep(after_s)

        assert gateway.stop(timeout=10) == 0
    finally:
        gateway.kill()


def test_who_waits_for_a_process_that_dies_is_served_by_the_next(settings, tmp_path):
    with Gateway(settings, tmp_path) as gateway:
        for _ in range(3):
            [process] = children(gateway.pid)
            os.kill(process, signal.SIGSTOP)
            eventually(lambda frozen=process: states(frozen) == {"T"}, what="it accepts nothing")
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as waiting:
                waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                os.kill(process, signal.SIGKILL)
                eventually(lambda gone=process: gone not in children(gateway.pid), what="it is gone")

                # Nobody accepts anything at this moment.
                assert httpx.get(f"{gateway.url}/healthz", timeout=10).status_code == 200
                assert b" 200 " in waiting.recv(65536).split(b"\r\n")[0]


def test_limits_are_enforced_with_the_headers_that_say_so(settings, tmp_path):
    limits = {"HOPGATE_LIMIT_REDIRECT": "2/min burst 2", "HOPGATE_LIMIT_NOT_FOUND": "1000/min burst 1000"}
    with Gateway({**settings, **limits}, tmp_path) as gateway:
        statuses = [httpx.get(f"{gateway.url}/unknown-slug") for _ in range(3)]
        health = httpx.get(f"{gateway.url}/healthz")

    assert [answer.status_code for answer in statuses] == [404, 404, 429]
    assert 1 <= int(statuses[2].headers["retry-after"]) <= 31
    assert statuses[2].json()["code"] == "too_many_requests"
    assert health.status_code == 200


def test_an_address_that_tries_keys_is_limited_and_a_valid_key_elsewhere_is_not(settings, tmp_path):
    key = hopgate(settings, "keys", "create", "mine").stdout.strip()
    limits = {"HOPGATE_LIMIT_API": "3/min burst 3", "HOPGATE_TRUSTED_PROXIES": "127.0.0.0/8"}
    with Gateway({**settings, **limits}, tmp_path) as gateway:

        def ask(token: str, address: str) -> int:
            headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
            return httpx.get(f"{gateway.url}/api/v1/links", headers=headers).status_code

        assert [ask("hg_wrong", "198.51.100.1") for _ in range(5)] == [401, 401, 401, 429, 429]
        assert ask(key, "198.51.100.1") == 429
        assert [ask(key, "198.51.100.2") for _ in range(4)] == [200, 200, 200, 429]


def test_clients_behind_a_trusted_proxy_are_told_apart(settings, tmp_path):
    proxied = {"HOPGATE_TRUSTED_PROXIES": "127.0.0.0/8", "HOPGATE_LIMIT_REDIRECT": "1/min burst 1"}
    with Gateway({**settings, **proxied}, tmp_path) as gateway:

        def ask(address: str) -> int:
            return httpx.get(f"{gateway.url}/unknown-slug", headers={"X-Forwarded-For": address}).status_code

        assert [ask("198.51.100.1"), ask("198.51.100.1"), ask("198.51.100.2")] == [404, 429, 404]
        assert [ask("2001:db8::1"), ask("2001:db8::ffff")] == [404, 429]  # one /64


def test_a_spoofed_address_changes_nothing_without_a_trusted_proxy(settings, tmp_path):
    with Gateway({**settings, "HOPGATE_LIMIT_REDIRECT": "1/min burst 1"}, tmp_path) as gateway:
        answers = [
            httpx.get(
                f"{gateway.url}/unknown-slug", headers={"X-Forwarded-For": f"198.51.100.{i}"}
            ).status_code
            for i in range(3)
        ]

    assert answers == [404, 429, 429]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_an_address_that_cannot_be_read_is_not_taken_for_that_of_the_proxy(settings, tmp_path, method):
    """The proxy has added its client to what that client sent, and granian leaves out the whole."""
    target = "/api/v1/links" if method == "POST" else "/unknown-slug"

    def ask(port: int, address: bytes) -> int:
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
        return exchange(port, head + b"X-Forwarded-For: " + address + b"\r\n\r\n").status

    answered = 401 if method == "POST" else 404
    with Gateway({**settings, "HOPGATE_TRUSTED_PROXIES": "127.0.0.0/8"}, tmp_path) as gateway:
        assert ask(gateway.port, b"\xe9, 198.51.100.1") == 400
        assert ask(gateway.port, b"unknown, 198.51.100.1") == answered
    with Gateway(settings, tmp_path) as gateway:
        assert ask(gateway.port, b"\xe9, 198.51.100.1") == answered


@pytest.mark.parametrize(("level", "is_told"), [("info", True), ("warning", False)])
def test_the_log_of_the_server_keeps_to_the_level(settings, tmp_path, level, is_told):
    with Gateway({**settings, "HOPGATE_LOG_LEVEL": level}, tmp_path) as gateway:
        assert ('"logger":"_granian"' in gateway.output) == is_told, gateway.output


def test_pipelined_requests_are_answered_in_order(settings, tmp_path):
    with Gateway(settings, tmp_path) as gateway:
        one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /unknown-slug HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as connection:
            connection.sendall(one * 3 + last)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk

    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"200", b"200", b"404"]


def test_http_1_0_and_a_missing_host_do_no_harm(settings, tmp_path):
    with Gateway(settings, tmp_path) as gateway:
        for request in (
            b"GET /healthz HTTP/1.0\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        ):
            answer = exchange(gateway.port, request)
            assert answer is None or answer.status in {200, 400}


def test_a_target_that_cannot_be_sent_is_an_error_and_never_a_redirect_without_target(settings, tmp_path):
    """Whatever got into the database: granian would drop such a Location without a word."""
    assert hopgate(settings, "links", "create", "https://example.com/", "--slug", "broken").returncode == 0
    with apsw.Connection(f"{settings['HOPGATE_DATA_DIR']}/hopgate.db") as db:
        db.execute("UPDATE links SET long_url = ? WHERE slug = 'broken'", ("https://example.com/\r\nX: y",))

    with Gateway(settings, tmp_path) as gateway:
        answer = httpx.get(f"{gateway.url}/broken")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["trace_id"] in gateway.output
