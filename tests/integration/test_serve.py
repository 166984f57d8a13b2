"""`hopgate serve`, embedded: the printed curl, refusals, signals, limits and HTTP edge cases."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
from pathlib import Path

import apsw
import httpx
import pytest

from tests.servers.hopgate import UNREACHABLE, Gateway, hopgate, make_key, make_store
from tests.servers.ports import free_ports
from tests.servers.raw_http import answered, exchange


@pytest.fixture
def settings(tmp_path):
    return {"HOPGATE_DATA_DIR": str(tmp_path / "data")}


def children(parent: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True).stdout.split()
    return [int(process) for process in found]


def states(process: int) -> set[str]:
    """Return the states of the threads of *process*, as in /proc: T for stopped."""
    threads = Path(f"/proc/{process}/task").glob("*/stat")
    return {thread.read_text().rpartition(")")[2].split()[0] for thread in threads}


def printed_curl(gateway: Gateway) -> list[str]:
    match = re.search(r"^ *(curl .*?\}')$", gateway.output, re.DOTALL | re.MULTILINE)
    assert match, gateway.output
    return shlex.split(match[1].replace("\\\n", " "))


def test_printed_curl_creates_a_lasting_link(settings, tmp_path):
    gateway = Gateway(settings, tmp_path)
    with gateway:
        made = subprocess.run(
            [*printed_curl(gateway), "--silent"], capture_output=True, text=True, timeout=10
        )
        head, _, body = made.stdout.partition("\n\n")
        assert " 201 " in head.splitlines()[0]
        [short_url] = re.findall(r'"short_url":"([^"]+)"', body)
        assert short_url.startswith(gateway.url)
        first = httpx.get(short_url)

    with gateway:
        second = httpx.get(short_url)

    for answer in (first, second):
        assert answer.status_code == 302
        assert answer.headers["location"] == "https://example.com/a/long/path?with=query"


def test_admin_key_is_printed_once(settings, tmp_path):
    gateway = Gateway(settings, tmp_path)
    with gateway:
        printed = printed_curl(gateway)
    (tmp_path / f"gateway-{gateway.port}.log").unlink()
    with gateway:
        answer = subprocess.run([*printed, "--silent"], capture_output=True, text=True, timeout=10).stdout
        assert " 201 " in answer.splitlines()[0]
        assert "hg_" not in gateway.output


def test_admin_key_is_not_printed_beside_others(settings, tmp_path):
    make_key(settings)

    with Gateway(settings, tmp_path) as gateway:
        assert "hg_" not in gateway.output


@pytest.mark.parametrize("rotations", [1, 2])
def test_gateway_starts_with_a_key_that_was_rotated(tmp_path, rotations):
    """A rolling restart would take down every gateway. It warns once the key counts no more."""
    key = hopgate({}, "keys", "generate").stdout.strip()
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_KEY": key}
    with Gateway(settings, tmp_path) as gateway:
        current = key
        for _ in range(rotations):
            path = f"{gateway.url}/api/v1/keys/{key.split('_')[1]}/rotate"
            answer = httpx.post(path, json={"grace": "7d"}, headers={"Authorization": f"Bearer {current}"})
            assert answer.status_code == 200, answer.text
            current = answer.json()["key"]

    with Gateway(settings, tmp_path) as gateway:
        assert ("HOPGATE_KEY counts no more" in gateway.output) == (rotations == 2)
        me = httpx.get(f"{gateway.url}/api/v1/me", headers={"Authorization": f"Bearer {current}"})
        assert me.status_code == 200
        assert key not in gateway.output


@pytest.mark.parametrize("name", ["HOPGATE_KEY", "HOPGATE_KEY_FILE"])
def test_admin_key_of_the_settings_is_stored_unprinted(settings, tmp_path, name):
    key = hopgate({}, "keys", "generate").stdout.strip()
    (tmp_path / "key").write_text(f"{key}\n")
    value = key if name == "HOPGATE_KEY" else str(tmp_path / "key")

    with Gateway({**settings, name: value}, tmp_path) as gateway:
        answer = httpx.get(f"{gateway.url}/api/v1/links", headers={"Authorization": f"Bearer {key}"})

        assert answer.status_code == 200
        assert "hg_" not in gateway.output


def test_admin_key_of_a_stack_does_not_wait_for_its_store(settings, tmp_path):
    """Redirects that Redis holds are served while PostgreSQL is away, also by a new gateway."""
    key = hopgate({}, "keys", "generate").stdout.strip()

    with Gateway({**settings, **UNREACHABLE, "HOPGATE_KEY": key}, tmp_path) as gateway:
        assert "HOPGATE_KEY is not stored" in gateway.output
        assert key not in gateway.output


def test_setting_that_is_no_key_is_one_line(settings):
    done = hopgate(
        {**settings, "HOPGATE_KEY": "geheim", "HOPGATE_BIND": f"127.0.0.1:{free_ports(1)[0]}"}, "serve"
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("hopgate: HOPGATE_KEY: is no key")
    assert "geheim" not in done.stderr


# --- the command line beside a gateway ---------------------------------------------------


def test_command_finds_the_address_of_the_gateway(settings, tmp_path):
    lock = tmp_path / "data" / "gateway.lock"
    with Gateway(settings, tmp_path) as gateway:
        running = hopgate(settings, "links", "create", "https://example.com/", "--slug", "mine")
        assert lock.stat().st_mode & 0o777 == 0o600

        assert running.stdout == f"{gateway.url}/mine\n"
        assert httpx.get(running.stdout.strip()).status_code == 302

    stopped = hopgate(settings, "links", "create", "https://example.com/", "--slug", "yours")
    assert stopped.stdout == "http://127.0.0.1:8000/yours\n"


def test_command_refuses_another_store_than_the_gateway(settings, tmp_path):
    with Gateway(settings, tmp_path):
        done = hopgate({**settings, **UNREACHABLE}, "links", "list")

    assert done.returncode == 1
    assert "give both the same settings" in done.stderr


def test_killed_gateway_leaves_no_address(settings, tmp_path):
    gateway = Gateway(settings, tmp_path)
    with gateway:
        gateway.kill()

    done = hopgate(settings, "links", "create", "https://example.com/", "--slug", "mine")

    assert done.stdout == "http://127.0.0.1:8000/mine\n"


# --- a base URL with a path --------------------------------------------------------------


def test_base_path_is_served_and_may_be_removed(settings, tmp_path):
    settings = {**settings, "HOPGATE_BASE_URL": "HTTPS://hop.example/go/to"}
    with Gateway(settings, tmp_path) as gateway:
        curl = printed_curl(gateway)
        assert any(part.startswith(gateway.url) for part in curl), "the public host may not exist yet"
        [token] = re.findall(r"Bearer (hg_\w+)", gateway.output)
        with httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {token}"}) as api:
            link = {"slug": "mine", "long_url": "https://hop.example/about"}
            made = api.post("/go/to/api/v1/links", json=link)
            assert (made.status_code, made.json()["short_url"]) == (201, "https://hop.example/go/to/mine")
            assert made.headers["location"] == "/go/to/api/v1/links/mine"

            for path in ("/go/to/mine", "/mine"):
                assert api.get(path).headers["location"] == "https://hop.example/about"
                assert api.head(path).status_code == 302
            assert api.get(made.headers["location"]).status_code == 200
            assert api.get("/api/v1/links/mine").status_code == 200
            for path in (
                "/go/to",
                "/go/to/",
                "/go/to/go/to/mine",
                "/go/tomine",
                "/go/to/metrics",
                "/go/to/readyz",
            ):
                assert api.get(path).status_code == 404, path
            assert api.get("/metrics").status_code == 200
            own = api.post("/api/v1/links", json={"long_url": "https://hop.example/go/to/mine"})
            assert own.json()["errors"][0]["code"] == "url_own_host"


def test_dangerous_setting_is_logged_at_the_start(settings, tmp_path):
    with Gateway({**settings, "HOPGATE_TRUSTED_PROXIES": "::/0,0.0.0.0/0"}, tmp_path) as gateway:
        assert '"level":"warning","logger":"app.cli","message":"HOPGATE_TRUSTED_PROXIES' in gateway.output


def test_used_address_is_refused_in_one_line(settings, tmp_path):
    with Gateway(settings, tmp_path) as gateway:
        second = hopgate({**settings, "HOPGATE_BIND": f"127.0.0.1:{gateway.port}"}, "serve")

    assert second.returncode == 1
    assert second.stderr.startswith(f"hopgate: cannot listen on 127.0.0.1:{gateway.port}: ")
    assert second.stderr.count("\n") == 1


def test_used_data_directory_is_refused_in_one_line(settings, tmp_path):
    """Each has a cache of its own, so changes made on one would be stale on the other."""
    with Gateway(settings, tmp_path):
        second = hopgate({**settings, "HOPGATE_BIND": f"127.0.0.1:{free_ports(1)[0]}"}, "serve")

    assert second.returncode == 1
    assert "another gateway serves from" in second.stderr
    assert second.stderr.count("\n") == 1


def test_not_found_limit_hides_hits_too(settings, tmp_path):
    """Otherwise a hit would stand out among the refusals, and guessing would cost nothing."""
    make_store(settings)
    for name in ("first", "later"):
        assert hopgate(settings, "links", "create", "https://example.com/", "--slug", name).returncode == 0
    with Gateway({**settings, "HOPGATE_LIMIT_NOT_FOUND": "2/h burst 2"}, tmp_path) as gateway:
        answers = [
            httpx.get(f"{gateway.url}/{slug}").status_code
            for slug in ("first", "guess-1", "guess-2", "guess-3", "later", "first")
        ]

    assert answers == [302, 404, 404, 429, 429, 302]


def test_limits_are_enforced_with_retry_headers(settings, tmp_path):
    limits = {"HOPGATE_LIMIT_REDIRECT": "2/min burst 2", "HOPGATE_LIMIT_NOT_FOUND": "1000/min burst 1000"}
    with Gateway({**settings, **limits}, tmp_path) as gateway:
        statuses = [httpx.get(f"{gateway.url}/unknown-slug") for _ in range(3)]
        health = httpx.get(f"{gateway.url}/healthz")

    assert [answer.status_code for answer in statuses] == [404, 404, 429]
    assert 1 <= int(statuses[2].headers["retry-after"]) <= 31
    assert statuses[2].json()["code"] == "too_many_requests"
    assert health.status_code == 200


def test_guessed_keys_lock_out_no_valid_key(settings, tmp_path):
    key = make_key(settings, "links:read", "links:write")
    limits = {"HOPGATE_LIMIT_API": "3/min burst 3", "HOPGATE_TRUSTED_PROXIES": "127.0.0.0/8"}
    with Gateway({**settings, **limits}, tmp_path) as gateway:

        def ask(token: str, address: str) -> int:
            headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
            return httpx.get(f"{gateway.url}/api/v1/links", headers=headers).status_code

        assert [ask("hg_wrong", "198.51.100.1") for _ in range(5)] == [401, 401, 401, 429, 429]
        assert ask(key, "198.51.100.1") == 200
        assert [ask(key, "198.51.100.2") for _ in range(3)] == [200, 200, 429]


def test_clients_behind_a_trusted_proxy_are_distinguished(settings, tmp_path):
    proxied = {"HOPGATE_TRUSTED_PROXIES": "127.0.0.0/8", "HOPGATE_LIMIT_REDIRECT": "1/min burst 1"}
    with Gateway({**settings, **proxied}, tmp_path) as gateway:

        def ask(address: str) -> int:
            return httpx.get(f"{gateway.url}/unknown-slug", headers={"X-Forwarded-For": address}).status_code

        assert [ask("198.51.100.1"), ask("198.51.100.1"), ask("198.51.100.2")] == [404, 429, 404]
        assert [ask("2001:db8::1"), ask("2001:db8::ffff")] == [404, 429]  # one /64


def test_forwarded_address_is_ignored_without_trusted_proxy(settings, tmp_path):
    with Gateway({**settings, "HOPGATE_LIMIT_REDIRECT": "1/min burst 1"}, tmp_path) as gateway:
        answers = [
            httpx.get(
                f"{gateway.url}/unknown-slug", headers={"X-Forwarded-For": f"198.51.100.{i}"}
            ).status_code
            for i in range(3)
        ]

    assert answers == [404, 429, 429]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_unreadable_forwarded_address_is_refused(settings, tmp_path, method):
    """granian drops a header with a bad byte whole, the address that the proxy appended included."""
    target = "/api/v1/links" if method == "POST" else "/unknown-slug"

    def ask(port: int, address: bytes) -> int:
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
        return answered(port, head + b"X-Forwarded-For: " + address + b"\r\n\r\n").status

    usual = 401 if method == "POST" else 404
    with Gateway({**settings, "HOPGATE_TRUSTED_PROXIES": "127.0.0.0/8"}, tmp_path) as gateway:
        assert ask(gateway.port, b"\xe9, 198.51.100.1") == 400
        assert ask(gateway.port, b"unknown, 198.51.100.1") == usual
    with Gateway(settings, tmp_path) as gateway:
        assert ask(gateway.port, b"\xe9, 198.51.100.1") == usual


@pytest.mark.parametrize(("level", "is_logged"), [("info", True), ("warning", False)])
def test_server_log_respects_the_level(settings, tmp_path, level, is_logged):
    with Gateway({**settings, "HOPGATE_LOG_LEVEL": level}, tmp_path) as gateway:
        assert ('"logger":"_granian"' in gateway.output) == is_logged, gateway.output


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


def test_http_1_0_and_missing_host_are_harmless(settings, tmp_path):
    with Gateway(settings, tmp_path) as gateway:
        for request in (
            b"GET /healthz HTTP/1.0\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        ):
            answer = exchange(gateway.port, request)
            assert answer is None or answer.status in {200, 400}


def test_unsendable_target_is_an_error(settings, tmp_path):
    """granian would drop such a Location header silently, and send a redirect without a target."""
    make_store(settings)
    assert hopgate(settings, "links", "create", "https://example.com/", "--slug", "broken").returncode == 0
    with apsw.Connection(f"{settings['HOPGATE_DATA_DIR']}/hopgate.db") as db:
        db.execute("UPDATE links SET long_url = ? WHERE slug = 'broken'", ("https://example.com/\r\nX: y",))

    with Gateway(settings, tmp_path) as gateway:
        answer = httpx.get(f"{gateway.url}/broken")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["trace_id"] in gateway.output
