"""
Bad input: every response is a clear 4xx, none is a 500, nothing is stored.

Each row is sent as raw bytes, so that no client library corrects it on the way.
"""

from __future__ import annotations

import json
import socket

import pytest

from tests.servers.raw_http import exchange, read_answer

LINKS = "/api/v1/links"
GOOD = {"long_url": "https://example.com/"}


def body(**fields) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


# name: (body, status, code of the problem or of its first field)
BODIES = {
    # Not JSON, or JSON that two readers could take for different things.
    "empty": (b"", 400, "unreadable"),
    "not json": (b"long_url=https://example.com/", 400, "unreadable"),
    "cut off": (b'{"long_url": "https://exam', 400, "unreadable"),
    "two documents": (b'{"long_url":"https://a.example/"}{}', 400, "unreadable"),
    "a name twice": (b'{"long_url":"https://a.example/","long_url":"https://b.example/"}', 400, "unreadable"),
    "invalid utf-8": (b'{"long_url":"https://example.com/\xff"}', 400, "unreadable"),
    "utf-16": ('{"long_url":"https://example.com/"}'.encode("utf-16"), 400, "unreadable"),
    "byte order mark": (b"\xef\xbb\xbf" + body(), 400, "unreadable"),
    "NaN": (b'{"long_url":"https://example.com/","redirect_code":NaN}', 400, "unreadable"),
    "infinity": (b'{"long_url":"https://example.com/","redirect_code":1e999}', 400, "unreadable"),
    "huge integer": (
        b'{"long_url":"https://example.com/","redirect_code":' + b"9" * 5000 + b"}",
        400,
        "unreadable",
    ),
    "deep nesting": (b'{"tags":' + b"[" * 30_000 + b"]" * 30_000 + b"}", 400, "unreadable"),
    "control character": (b'{"long_url":"https://example.com/\n"}', 400, "unreadable"),
    # JSON of another shape.
    "null": (b"null", 422, "schema"),
    "a list": (b"[]", 422, "schema"),
    "a string": (b'"https://example.com/"', 422, "schema"),
    "a number": (b"0", 422, "schema"),
    "no target": (b"{}", 422, "schema"),
    "target null": (body(long_url=None), 422, "schema"),
    "target number": (body(long_url=1), 422, "schema"),
    "target list": (body(long_url=["https://example.com/"]), 422, "schema"),
    "unknown field": (body(owner_id=1), 422, "schema"),
    "version given": (body(version=9), 422, "schema"),
    "id given": (body(id=9), 422, "schema"),
    "is_admin given": (body(is_admin=True), 422, "schema"),
    "prototype": (body(__proto__={"x": 1}), 422, "schema"),
    "slug number": (body(slug=123), 422, "schema"),
    "tags a string": (body(tags="a,b"), 422, "schema"),
    "tags of numbers": (body(tags=[1]), 422, "schema"),
    "code a string": (body(redirect_code="302"), 422, "schema"),
    "code a float": (body(redirect_code=302.5), 422, "schema"),
    "code true": (body(redirect_code=True), 422, "schema"),
    "enabled a string": (body(enabled="yes"), 422, "schema"),
    "time a number": (body(expires_at=2_000_000_000), 422, "schema"),
    "time not a time": (body(expires_at="tomorrow"), 422, "schema"),
    "time 31 February": (body(expires_at="2030-02-31T00:00:00Z"), 422, "schema"),
    # Against the rules.
    "code 200": (body(redirect_code=200), 422, "redirect_code_invalid"),
    "code 2^63": (body(redirect_code=2**63), 422, "redirect_code_invalid"),
    "time without zone": (body(expires_at="2030-01-01T00:00:00"), 422, "time_without_zone"),
    "time of the past": (body(expires_at="2001-01-01T00:00:00Z"), 422, "time_past"),
    "time before all zones": (body(valid_from="0001-01-01T00:00:00+14:00"), 422, "time_out_of_range"),
    "expires before valid": (
        body(valid_from="2031-01-01T00:00:00Z", expires_at="2030-01-01T00:00:00Z"),
        422,
        "never_valid",
    ),
    "title with NUL": (body(title="a\x00b"), 422, "title_invalid"),
    "title too long": (body(title="x" * 513), 422, "title_invalid"),
    "title lone surrogate": (b'{"long_url":"https://example.com/","title":"\\ud800"}', 400, "unreadable"),
    "field name lone surrogate": (b'{"long_url":"https://example.com/","\\uD800":1}', 400, "unreadable"),
    "too many tags": (body(tags=[str(i) for i in range(21)]), 422, "tags_too_many"),
    "empty tag": (body(tags=[""]), 422, "tag_invalid"),
    "target empty": (body(long_url=""), 422, "url_empty"),
    "javascript": (body(long_url="javascript:alert(1)"), 422, "url_scheme"),
    "JaVaScRiPt": (body(long_url="JaVaScRiPt:alert(1)"), 422, "url_scheme"),
    "javascript with newline": (body(long_url="java\nscript:alert(1)"), 422, "url_forbidden_character"),
    "data": (body(long_url="data:text/html,x"), 422, "url_scheme"),
    "file": (body(long_url="file:///etc/passwd"), 422, "url_scheme"),
    "no scheme": (body(long_url="//evil.example"), 422, "url_scheme"),
    "backslashes": (body(long_url="https:/\\evil.example"), 422, "url_forbidden_character"),
    "header split": (
        body(long_url="https://example.com/\r\nSet-Cookie: a=b"),
        422,
        "url_forbidden_character",
    ),
    "target NUL": (body(long_url="https://example.com/\x00"), 422, "url_forbidden_character"),
    "target lone surrogate": (b'{"long_url":"https://example.com/\\udfff"}', 400, "unreadable"),
    "credentials": (body(long_url="https://a:b@example.com/"), 422, "url_credentials"),
    "port 99999": (body(long_url="https://example.com:99999/"), 422, "url_malformed"),
    "own host": (body(long_url="http://hop.example/abc"), 422, "url_own_host"),
    "own host, capitals and dot": (body(long_url="http://HOP.EXAMPLE./abc"), 422, "url_own_host"),
    "target 8193 long": (body(long_url="https://example.com/" + "a" * 8173), 422, "url_too_long"),
    "target 8193 long when escaped": (
        body(long_url="https://example.com/" + "é" * 1363),
        422,
        "url_too_long",
    ),
    "scheme twice": (body(long_url="https://https://example.com/"), 422, "url_host"),
    "host of 30,000 labels": (body(long_url="https://" + "a." * 30_000), 422, "url_too_long"),
    "slug empty": (body(slug=""), 422, "slug_malformed"),
    "slug 129 characters": (body(slug="a" * 129), 422, "slug_malformed"),
    "slug dot": (body(slug="."), 422, "slug_malformed"),
    "slug dot dot alone": (body(slug=".."), 422, "slug_malformed"),
    "slug escaped dot": (body(slug="%2e"), 422, "slug_malformed"),
    "slug with query": (body(slug="abc?x"), 422, "slug_malformed"),
    "slug with fragment": (body(slug="abc#x"), 422, "slug_malformed"),
    "slug api with dot": (body(slug="api."), 422, "slug_malformed"),
    "slug with slash": (body(slug="api/v1"), 422, "slug_malformed"),
    "slug dot dot": (body(slug="../x"), 422, "slug_malformed"),
    "slug with NUL": (body(slug="abc\x00"), 422, "slug_malformed"),
    "slug cyrillic": (body(slug="аpi"), 422, "slug_malformed"),
    "slug right to left": (body(slug="abc\u202e"), 422, "slug_malformed"),
    "slug api": (body(slug="api"), 422, "slug_reserved"),
    "slug HEALTHZ": (body(slug="HEALTHZ"), 422, "slug_reserved"),
    # Too much.
    "body too large": (body(title="x" * 70_000), 413, "body_too_large"),
}


@pytest.fixture
def send(embedded, admin_key):
    def send(method: str, target: str, content: bytes = b"", *headers: str, key: str | None = admin_key):
        lines = [f"{method} {target} HTTP/1.1", "Host: hop.example", "Connection: close", *headers]
        if key is not None:
            lines.append(f"Authorization: Bearer {key}")
        if content and not any(
            line.lower().startswith(("content-length", "transfer-enc")) for line in headers
        ):
            lines.append(f"Content-Length: {len(content)}")
        head = "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"
        return exchange(embedded.port, head + content)

    return send


@pytest.fixture
def nothing_stored(api):
    before = api.get(LINKS, params={"limit": 1}).json()
    yield
    assert api.get(LINKS, params={"limit": 1}).json() == before


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("name", BODIES)
def test_hostile_create_stores_nothing(send, name):
    content, status, code = BODIES[name]

    answer = send("POST", LINKS, content, "Content-Type: application/json")

    assert answer.status == status, answer
    document = json.loads(answer.body)
    assert answer.header("content-type") == "application/problem+json"
    assert document["status"] == status
    assert code in [document["code"], *(error["code"] for error in document.get("errors", []))]


@pytest.mark.parametrize(
    "content_type", ["", "Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded",
                     "Content-Type: multipart/form-data; boundary=x", "Content-Type: application/jsonx"]
)  # fmt: skip
@pytest.mark.usefixtures("nothing_stored")
def test_body_not_declared_as_json_is_refused(send, content_type):
    """A form on another site cannot send application/json, so it cannot create links."""
    answer = send("POST", LINKS, body(), *filter(None, [content_type]))

    assert answer.status == 415


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize(
    ("headers", "content", "statuses"),
    [
        (["Content-Length: 999999999999"], b"{}", {413}),
        (["Content-Length: 99999999999999999999999"], b"{}", {400, 413}),
        (["Content-Length: -1"], b"{}", {400}),
        (["Content-Length: abc"], b"{}", {400}),
        (["Content-Length: 2", "Content-Length: 3"], b"{}", {400}),
        (["Content-Length: 2", "Transfer-Encoding: chunked"], b"0\r\n\r\n", {400, 411}),
        (["Transfer-Encoding: chunked, identity"], b"0\r\n\r\n", {400}),
        (["Transfer-Encoding: chunked"], b"zz\r\n\r\n", {400, 411}),
        (["Transfer-Encoding: chunked"], b"10000\r\n" + b"x" * 65536 + b"\r\n10\r\n" + b"x" * 16, {411}),
        (["Idempotency-Key: " + "x" * 256], body(), {422}),
        (["Idempotency-Key: a b"], body(), {422}),
    ],
)  # fmt: skip
def test_hostile_framing_and_headers_are_refused(send, headers, content, statuses):
    answer = send("POST", LINKS, content, "Content-Type: application/json", *headers)

    # The server may close the connection on a request that it cannot frame.
    assert answer is None or answer.status in statuses


PATHS = [
    ("/", 404),
    ("//", 404),
    ("/..", 404),
    ("/../../etc/passwd", 404),
    ("/.well-known/security.txt", 404),
    ("/favicon.ico", 200),
    ("/%2e%2e/x", 404),
    ("/%00", 404),
    ("/abc%00def", 404),
    ("/%ff%fe", 404),
    ("/%zz", 404),
    ("/abc%0d%0aSet-Cookie:a=b", 404),
    ("/" + "a" * 65, 404),
    ("/" + "a" * 20_000, 404),
    ("/ab", 404),
    ("/a", 404),
    ("/" + "a" * 129, 404),
    ("/unknown-slug/", 404),
    ("/unknown-slug/more", 404),
    ("/unknown-slug?" + "x=1&" * 500, 404),
    ("/аpi", 404),
    ("/API/v1/links", 404),
    ("/api/v1/links/", 404),
    ("/api/v1/links/..", 404),
    ("/api/v1/links/%00", 404),
    ("/api/v1/links/a%2Fb", 404),
    ("/api/v1/links/" + "a" * 5000, 404),
    ("/api/v1/links?limit=0", 422),
    ("/api/v1/links?limit=-1", 422),
    ("/api/v1/links?limit=1e9", 422),
    ("/api/v1/links?limit=" + "9" * 400, 422),
    ("/api/v1/links?limit=١", 422),
    ("/api/v1/links?limit=%00", 422),
    ("/api/v1/links?cursor=", 422),
    ("/api/v1/links?cursor=!!!", 422),
    ("/api/v1/links?cursor=LTE", 422),
    ("/api/v1/links?cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk", 422),
    ("/api/v1/links?" + "a=1&" * 200, 400),
]


@pytest.mark.parametrize(("target", "status"), PATHS, ids=lambda value: ascii(value)[:40])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_hostile_path_is_4xx(send, method, target, status):
    answer = send(method, target)

    # A request line that is not HTTP may be refused by the server itself.
    assert answer is None or answer.status in {status, 400, 414, 431}, answer


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
@pytest.mark.parametrize("etag", ["1", "W/1", '"1', '"1" "2"', '"a"b"', "*, *", '*, "1"', ",", ""])
def test_hostile_if_match_is_refused(send, method, etag):
    content = b'{"title": "x"}' if method == "PATCH" else b""

    answer = send(method, f"{LINKS}/abc-def", content, "Content-Type: application/json", f"If-Match: {etag}")

    assert answer.status == 422


# Bytes that are no ASCII, as `send` writes them: granian leaves such values out.
UNREADABLE = "\udce9"


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_unreadable_condition_is_400(send, api, method):
    made = api.post(LINKS, json=GOOD).json()
    content = b'{"title": "x"}' if method == "PATCH" else b""
    target = f"{LINKS}/{made['slug']}"

    answer = send(method, target, content, "Content-Type: application/json", f'If-Match: "3"{UNREADABLE}')

    assert answer.status == 400
    assert answer.header("content-type") == "application/problem+json"
    document = json.loads(answer.body)
    assert (document["code"], document["detail"]) == (
        "unreadable",
        "The header if-match must be visible ASCII.",
    )
    assert api.get(target).json() == made


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("name", ["Idempotency-Key", "Content-Type", "Authorization", "If-Match"])
@pytest.mark.parametrize("value", [UNREADABLE, f"a{UNREADABLE}", "ключ"])
def test_unreadable_header_is_400(send, admin_key, name, value):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {admin_key}", name: value}

    answer = send("POST", LINKS, body(), *(f"{n}: {v}" for n, v in headers.items()), key=None)

    assert answer.status == 400
    assert json.loads(answer.body)["detail"] == f"The header {name.lower()} must be visible ASCII."


def test_unused_header_may_hold_anything(send):
    assert send("GET", LINKS, b"", f"User-Agent: {UNREADABLE}", f"Cookie: a={UNREADABLE}").status == 200


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"slug": []}',
        b'{"slugs": []}',
        b'{"slugs": "abc"}',
        b'{"slugs": [1]}',
        b'{"slugs": [null]}',
        json.dumps({"slugs": [str(i) for i in range(1001)]}).encode(),
    ],
)
def test_hostile_invalidation_is_refused(send, content):
    answer = send("POST", "/api/v1/cache/invalidate", content, "Content-Type: application/json")

    assert answer.status == 422


def test_impossible_slugs_are_reported_unknown(send):
    slugs = ["\x00", "a\u0000b", "../x", "é", "x" * 300, "a b", ""]

    answer = send(
        "POST",
        "/api/v1/cache/invalidate",
        json.dumps({"slugs": slugs}).encode(),
        "Content-Type: application/json",
    )

    assert answer.status == 202
    assert json.loads(answer.body) == {"invalidated": 0, "unknown": slugs}


@pytest.mark.parametrize("count", [50, 5000])
def test_server_survives_too_many_headers(send, visitor, count):
    answer = send("GET", "/healthz", b"", *(f"X-{i}: {'y' * 100}" for i in range(count)))

    assert answer is None or answer.status in {200, 400, 431}
    assert visitor.get("/healthz").status_code == 200


def test_stalled_body_is_408(embedded, admin_key):
    """Five seconds, then 408: a slow sender holds a connection, not a handler."""
    with socket.create_connection(("127.0.0.1", embedded.port), timeout=15) as connection:
        connection.sendall(
            f"POST {LINKS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {admin_key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
        )

        answer = read_answer(connection)

    assert answer is not None
    assert answer.status == 408


HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def test_http_2_is_refused(embedded):
    """The limits on headers and on their time do not apply to it."""
    settings_frame = b"\0\0\0\4\0\0\0\0\0"

    with socket.create_connection(("127.0.0.1", embedded.port), timeout=3) as connection:
        connection.sendall(HTTP_2 + settings_frame)
        try:
            received = connection.recv(65536)
        except ConnectionResetError:
            received = b""

    assert received == b"" or received.startswith(b"HTTP/1.1 400 "), received


def test_stalled_head_closes_the_connection(embedded):
    """Five seconds after it was opened, also if it never sends a byte."""
    begun = (b"", b"G", HTTP_2[:10], b"\r\n", b"GET /healthz HTTP/1.1\r\nHos")
    connections = [socket.create_connection(("127.0.0.1", embedded.port), timeout=10) for _ in begun]
    try:
        for connection, part in zip(connections, begun, strict=True):
            connection.sendall(part)

        assert [connection.recv(65536) for connection in connections] == [b""] * len(begun)
    finally:
        for connection in connections:
            connection.close()


def test_no_response_was_a_500(embedded):
    """Runs last in this file: the log of the gateway holds no unexpected failure."""
    assert "unexpected failure" not in embedded.output, embedded.output
