"""The shipped nginx configuration: limits, headers, retries and logs, with faulty gateways."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from app.console import live
from app.resilience.deadline import ADMIN_S, BATCH_BODY_S, BATCH_S
from app.web import bulk_api, errors, import_api, import_files
from app.web.body import MAX_BODY_BYTES
from app.web.response import Response
from tests.servers.hopgate import eventually
from tests.servers.nginx import CONFIGURATION, PrivateNginx
from tests.servers.ports import free_ports
from tests.servers.raw_http import answer_on, answered, exchange

# nginx starts slowly on a busy machine.
pytestmark = pytest.mark.timeout(120)


class Upstream:
    """A fake gateway: sends the same bytes to every request, or closes the connection."""

    def __init__(self, reply: bytes) -> None:
        self.requests: list[bytes] = []
        self._reply = reply
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                received = connection.recv(65536)
                if received:
                    self.requests.append(received)
                    connection.sendall(self._reply)

    def __enter__(self) -> Upstream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake a thread in accept().
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@contextmanager
def nginx_before(tmp_path, *replies: bytes) -> Iterator[tuple[httpx.Client, list[Upstream]]]:
    with ExitStack() as opened:
        upstreams = [opened.enter_context(Upstream(reply)) for reply in replies]
        nginx = opened.enter_context(PrivateNginx(tmp_path, [upstream.port for upstream in upstreams]))
        yield opened.enter_context(httpx.Client(base_url=nginx.url)), upstreams


NO_RESPONSE = b""


def test_nginx_limits_match_those_of_a_gateway():
    text = (CONFIGURATION / "nginx.conf").read_text()

    def value(name: str) -> str:
        found, *_ = re.findall(rf"^\s*{name}\s+(.*);$", text, re.MULTILINE)
        return found

    def value_of_streams(name: str) -> str:
        [block] = re.findall(r"location ~ \^/\(\?:api/v1.*?\{(.*?)\n {8}\}", text, re.DOTALL)
        [found] = re.findall(rf"^\s*{name}\s+(.*);$", block, re.MULTILINE)
        return found

    assert value("client_max_body_size") == value("client_body_buffer_size") == f"{MAX_BODY_BYTES // 1024}k"
    assert int(value("proxy_read_timeout").removesuffix("s")) > ADMIN_S
    assert int(value_of_streams("client_body_timeout").removesuffix("s")) > BATCH_BODY_S
    assert int(value_of_streams("proxy_send_timeout").removesuffix("s")) > BATCH_BODY_S
    assert int(value_of_streams("proxy_read_timeout").removesuffix("s")) > BATCH_BODY_S + BATCH_S


@pytest.mark.parametrize("path", [bulk_api.PATH, import_api.PATH, import_files.CONSOLE_PATH])
def test_large_bodies_reach_a_gateway_as_they_come(tmp_path, path):
    """nginx bounds the bodies of other paths, and reads them before it asks a gateway."""
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    head = asked(f"POST {path} HTTP/1.1", HOST, f"Content-Length: {100 * MAX_BODY_BYTES}")
    with nginx_before(tmp_path, reply, reply) as (client, upstreams):
        answer = answered(client.base_url.port or 0, head + b"slug,long_url\r\n")

    assert answer.status == 200
    assert sum(len(upstream.requests) for upstream in upstreams) == 1


def test_events_and_exports_are_passed_on_as_they_come():
    [streams] = re.findall(r"location ~ (\S+) \{", (CONFIGURATION / "nginx.conf").read_text())

    for path in ("/api/v1/events", "/api/v1/export", live.LINK, live.ALL):
        assert re.match(streams, path)
    for path in ("/api/v1/links/bulky", "/api/v1/import/x", "/x/console/import", "/events"):
        assert not re.match(streams, path)


def test_slug_of_several_segments_in_a_path_of_an_api_is_forwarded(alone):
    for path in ("/api/v1/links/a%2Fb", "/api/v1/links/x%2fstats?a=b", "/rest/v3/short-urls/a%2Fb"):
        assert answered(alone.port, asked(f"DELETE {path} HTTP/1.1", HOST)).status == 503


def test_nginx_retries_visits_but_no_writes(tmp_path):
    with nginx_before(tmp_path, NO_RESPONSE, NO_RESPONSE) as (client, upstreams):

        def seen(method: str) -> int:
            return sum(r.startswith(f"{method} ".encode()) for u in upstreams for r in u.requests)

        answers = {method: client.request(method, "/x") for method in ("GET", "POST", "PATCH")}

        assert {answer.status_code for answer in answers.values()} == {503}
        assert {answer.headers["retry-after"] for answer in answers.values()} == {"1"}
        assert {answer.json()["code"] for answer in answers.values()} == {"unavailable"}
        assert {method: seen(method) for method in answers} == {"GET": 3, "POST": 1, "PATCH": 1}


def test_503_is_forwarded_and_ejects_no_gateway(tmp_path):
    reply = (
        b"HTTP/1.1 503 x\r\nRetry-After: 7\r\nServer: secret/1.0\r\n"
        b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    )
    with nginx_before(tmp_path, reply, reply) as (client, upstreams):
        answers = [client.get("/x") for _ in range(20)]

    assert {(a.status_code, a.headers["retry-after"], a.headers["server"], a.text) for a in answers} == {
        (503, "7", "nginx", "{}")
    }
    assert sum(len(upstream.requests) for upstream in upstreams) == 20


def asked(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, *headers, "", ""]).encode()


GET = "GET /x HTTP/1.1"
POST = "POST /x HTTP/1.1"
HOST = "Host: hop.example"
LONG = "x" * 9000
# name: (request, status, code)
REFUSALS = {
    "not HTTP": (asked("NONSENSE", HOST), 400, "unreadable"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "unreadable"),
    "bad escape": (asked("GET /%zz HTTP/1.1", HOST), 400, "unreadable"),
    "above the root": (asked("GET /../x HTTP/1.1", HOST), 400, "unreadable"),
    "no host": (asked(GET), 400, "unreadable"),
    "two hosts": (asked(GET, HOST, HOST), 400, "unreadable"),
    "two lengths": (asked(POST, HOST, "Content-Length: 1", "Transfer-Encoding: chunked"), 400, "unreadable"),
    "bad chunk": (asked(POST, HOST, "Transfer-Encoding: chunked") + b"zz\r\n", 400, "unreadable"),
    "internal path": (asked("GET /readyz HTTP/1.1", HOST), 404, "not_found"),
    "another internal path": (asked("GET /metrics HTTP/1.1", HOST), 404, "not_found"),
    "page of operators": (asked("GET /status HTTP/1.1", HOST), 404, "not_found"),
    "its own page": (asked("GET /.problem HTTP/1.1", HOST), 404, "not_found"),
    "escaped slash": (asked("GET /api%2Fv1/links HTTP/1.1", HOST), 404, "not_found"),
    "escaped slash in a slug": (asked("GET /x%2fstats?a=b HTTP/1.1", HOST), 404, "not_found"),
    "TRACE": (asked("TRACE /x HTTP/1.1", HOST), 405, "method_not_allowed"),
    "CONNECT": (asked("CONNECT /x HTTP/1.1", HOST), 405, "method_not_allowed"),
    "long body": (asked(POST, HOST, f"Content-Length: {MAX_BODY_BYTES + 1}"), 413, "body_too_large"),
    "long target": (asked(f"GET /{LONG} HTTP/1.1", HOST), 414, "target_too_long"),
    "long header": (asked(GET, HOST, f"X: {LONG}"), 431, "headers_too_large"),
    "many headers": (asked(GET, HOST, *[f"X: {LONG[:999]}"] * 50), 431, "headers_too_large"),
    "other encoding": (asked(POST, HOST, "Transfer-Encoding: gzip"), 501, "not_implemented"),
    "no gateway": (asked(POST, HOST), 503, "unavailable"),
    "version": (asked("GET /x HTTP/3.0", HOST), 505, "version_not_supported"),
}
# The errors of a gateway in the same cases.
GATEWAY_ERRORS = [
    errors.unreadable(""),
    errors.not_found(),
    errors.method_not_allowed(""),
    errors.body_too_large(MAX_BODY_BYTES),
    errors.unavailable(TimeoutError()),
]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Iterator[PrivateNginx]:
    """nginx with unreachable gateways."""
    with PrivateNginx(tmp_path_factory.mktemp("alone"), free_ports(2)) as nginx:
        yield nginx


@pytest.mark.parametrize("name", REFUSALS)
def test_nginx_errors_have_the_shape_of_gateway_errors(alone, name):
    request, status, code = REFUSALS[name]
    titles = {document["code"]: document["title"] for document in map(of_answer, GATEWAY_ERRORS)}

    answer = answered(alone.port, request)

    assert answer.status == status
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("content-security-policy") == "default-src 'none'; frame-ancestors 'none'"
    assert answer.header("retry-after") == ("1" if status == 503 else None)
    assert (answer.header("allow") is not None) == (status == 405)
    document = json.loads(answer.body)
    title = titles.get(code, document["title"])
    assert document == {
        "type": f"urn:hopgate:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
    }
    assert title


def of_answer(answer: Response) -> dict[str, object]:
    return json.loads(answer.body)


def test_escaped_slash_in_a_query_is_forwarded(alone):
    answer = answered(alone.port, asked("POST /x?next=%2Fhome HTTP/1.1", HOST))

    assert answer.status == 503


def test_nginx_listens_on_ipv6(alone):
    with socket.create_connection(("::1", alone.port), timeout=5) as connection:
        connection.sendall(asked("GET /metrics HTTP/1.1", HOST, "Connection: close"))

        assert answer_on(connection).status == 404


def test_refused_head_gets_no_body(alone):
    answer = answered(alone.port, asked("HEAD /readyz HTTP/1.1", HOST, "Connection: close"))

    assert (answer.status, answer.body) == (404, b"")


def test_log_has_the_requested_method(alone):
    exchange(alone.port, asked("DELETE /the-method HTTP/1.1", HOST))

    def logged() -> list[dict[str, object]]:
        return [json.loads(line) for line in alone.output.splitlines() if '"/the-method"' in line]

    eventually(logged, what="the request is logged")
    assert [(line["method"], line["status"]) for line in logged()] == [("DELETE", 503)]


def test_gateway_receives_true_host_client_and_scheme(tmp_path):
    reply = b"HTTP/1.1 204 x\r\nConnection: close\r\n\r\n"
    forged = {"X-Forwarded-For": "1.1.1.1", "X-Real-IP": "1.1.1.1", "Forwarded": "for=1.1.1.1"}
    more = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Host": "hop.example"}
    with nginx_before(tmp_path, reply, reply) as (client, upstreams):
        client.get("/x", headers={**forged, **more})
        [request] = [request for upstream in upstreams for request in upstream.requests]

    lines = request.decode().lower().split("\r\n")
    assert {"host: hop.example", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"} <= set(lines)
    assert "1.1.1.1" not in request.decode()
    assert "evil" not in request.decode()


@pytest.mark.parametrize("reply", [NO_RESPONSE, b"HTTP/1.1 204 x\r\nConnection: close\r\n\r\n"])
def test_logs_have_no_query_strings(tmp_path, reply):
    """Also while gateways fail, which nginx logs in more detail."""
    with nginx_before(tmp_path, reply, reply) as (client, _):
        status = client.get("/abc?token=canary", headers={"Referer": "https://x/?canary"}).status_code
        client.get("//abc/%2e/?canary")
        client.post("/abc?canary", content=b"x" * (MAX_BODY_BYTES + 1))
        client.get("/abc?canary=" + 9000 * "x")
        [log] = tmp_path.glob("nginx-*/output.log")
        eventually(lambda: log.read_text().count('"status"') == 4, what="all four requests are logged")

    text = log.read_text()
    assert "canary" not in text
    first = json.loads(text.splitlines()[0])
    assert (first["client"], first["method"], first["path"], first["status"]) == (
        "127.0.0.1",
        "GET",
        "/abc",
        status,
    )
