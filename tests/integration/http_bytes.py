"""Requests as bytes, well formed and not, and what the rules say to them; see `test_front_bytes.py`."""

from __future__ import annotations

from dataclasses import dataclass

HOST = "Host: hop.example"
KEY = "Authorization: Bearer {KEY}"
JSON = "Content-Type: application/json"
BODY = '{"long_url":"https://example.com/"}'
CHUNKED = f"{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n"
# Sent after each row: it is answered if the connection is still open.
LAST = f"GET /healthz HTTP/1.1\r\n{HOST}\r\nConnection: close\r\n\r\n"


def text(line: str, *fields: str, body: str = "", end: str = "\r\n") -> str:
    return end.join([line, *fields, "", ""]) + body


def get(*fields: str, target: str = "/{SLUG}", version: str = "1.1", method: str = "GET") -> str:
    return text(f"{method} {target} HTTP/{version}", *fields)


def post(*fields: str, body: str = BODY, version: str = "1.1") -> str:
    return text(f"POST /api/v1/links HTTP/{version}", HOST, JSON, *fields, body=body)


LENGTH = f"Content-Length: {len(BODY)}"


@dataclass(frozen=True)
class Row:
    """
    One request.

    `answers`: the statuses of the answers in order, without that of `LAST`. `closes`: the gateway ends the
    connection after them. `ends_early`: the client ends its half instead of sending `LAST`. `differs`: words
    of SECURITY.md that say how a gateway without the front answers otherwise.
    """

    name: str
    sent: str
    answers: tuple[int, ...]
    closes: bool = False
    ends_early: bool = False
    differs: str | None = None


def refused(name: str, sent: str, status: int = 400) -> Row:
    return Row(name, sent, (status,), closes=True)


_HOST = "is sent without a look at `Host`"
_HALF = "gets no answer, although"
_HEAD = "served up to 64 KiB"
_FIELDS = "100 fields, behind the front 97"

ROWS = [
    # --- lines and characters: RFC 9112 2.2, 5; RFC 9110 5.5
    Row("redirect", get(HOST), (302,)),
    refused("field on two lines", get(HOST, "X-A: b", "  folded")),
    refused("fold before the first field", get(" X: y", HOST)),
    refused("host on two lines", get("Host: hop.", " example")),
    Row("bare LF", text("GET /{SLUG} HTTP/1.1", HOST, end="\n"), (302,)),
    refused("bare CR as end of lines", text("GET /{SLUG} HTTP/1.1", HOST, end="\r")),
    refused("CR in a value", get(HOST, "X-A: b\rc")),
    refused("CR in a name", get(HOST, "X-\rA: b")),
    refused("NUL in a value", get(HOST, "X-A: b\0c")),
    refused("NUL in a name", get(HOST, "X-\0A: b")),
    refused("NUL in the target", get(HOST, target="/{SLUG}\0")),
    refused("control character in a value", get(HOST, "X-A: b\x01c")),
    refused("DEL in a value", get(HOST, "X-A: b\x7fc")),
    Row("tab in a value", get(HOST, "X-A: b\tc"), (302,)),
    Row("byte above 127 in a value", get(HOST, "X-A: b\xffc"), (302,)),
    refused("byte above 127 in a name", get(HOST, "X-\xe9: b")),
    refused("byte above 127 in the path", get(HOST, target="/{SLUG}\xe9")),
    refused("byte above 127 in the query", get(HOST, target="/{SLUG}?\xe9")),
    refused("space in a name", get(HOST, "X A: b")),
    refused("space before the colon", get("Host : hop.example")),
    refused("tab before the colon", get(HOST, "X-A\t: b")),
    refused("empty name", get(HOST, ": b")),
    refused("field without a colon", get(HOST, "X-A")),
    Row("empty value", get(HOST, "X-A:"), (302,)),
    Row("names in any case", get("hOsT: HOP.example"), (302,)),
    # --- the first line: RFC 9112 3
    refused("two spaces after the method", "GET  /{SLUG} HTTP/1.1\r\nHost: x\r\n\r\n"),
    refused("two spaces before the version", "GET /{SLUG}  HTTP/1.1\r\nHost: x\r\n\r\n"),
    refused("tabs in the line", "GET\t/{SLUG}\tHTTP/1.1\r\nHost: x\r\n\r\n"),
    refused("space after the version", "GET /{SLUG} HTTP/1.1 \r\nHost: x\r\n\r\n"),
    Row("empty lines first", "\r\n\r\n" + get(HOST), (302,)),
    refused("space first", " " + get(HOST)),
    refused("HTTP/0.9", "GET /{SLUG}\r\n\r\n"),
    refused("HTTP/1.2", get(HOST, version="1.2")),
    refused("HTTP/2.0", get(HOST, version="2.0")),
    refused("HTTP/01.1", get(HOST, version="01.1")),
    refused("version in lower case", "GET /{SLUG} http/1.1\r\nHost: x\r\n\r\n"),
    refused("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    Row("method in lower case", get(HOST, method="get"), (405,)),
    Row("unknown method", get(HOST, method="BREW"), (405,)),
    Row("long method", get(HOST, method="G" * 300), (405,)),
    refused("empty method", " /{SLUG} HTTP/1.1\r\nHost: x\r\n\r\n"),
    refused("method with a bracket", get(HOST, method="G(T")),
    Row("TRACE", get(HOST, method="TRACE"), (405,)),
    Row("CONNECT to an authority", get(HOST, method="CONNECT", target="hop.example:443"), (404,)),
    Row("CONNECT to a link", get(HOST, method="CONNECT"), (405,)),
    # --- targets: RFC 9112 3.2, RFC 3986
    Row("OPTIONS of the server", get(HOST, method="OPTIONS", target="*"), (204,)),
    Row("GET of the server", get(HOST, target="*"), (404,)),
    Row("authority form", get(HOST, target="hop.example:443"), (404,)),
    Row("absolute form", get(HOST, target="http://hop.example/{SLUG}?a=b"), (302,)),
    Row("absolute form with another host", get(HOST, target="http://other.example/{SLUG}"), (302,)),
    Row("absolute form without Host", get(target="http://hop.example/{SLUG}"), (400,), differs=_HOST),
    Row(
        "absolute form of the API", get(HOST, KEY, target="http://hop.example/api/v1/links/unvisited"), (200,)
    ),
    Row("absolute form without a path", get(HOST, target="http://hop.example"), (404,)),
    Row("no slash first", get(HOST, target="{SLUG}"), (404,)),
    refused("backslash first", get(HOST, target="\\{SLUG}")),
    Row("two slashes", get(HOST, target="//{SLUG}"), (404,)),
    Row("slash last", get(HOST, target="/{SLUG}/"), (302,)),
    Row("end of a sentence last", get(HOST, target="/{SLUG})."), (302,)),
    Row("dots", get(HOST, target="/a/../{SLUG}"), (404,)),
    Row("escaped dots", get(HOST, target="/a/%2e%2e/{SLUG}"), (404,)),
    Row("escaped slash", get(HOST, target="/%2F{SLUG}"), (404,)),
    Row("escaped NUL", get(HOST, target="/%00{SLUG}"), (404,)),
    Row("escaped end of line", get(HOST, target="/%0d%0a{SLUG}"), (404,)),
    Row("escaped letter", get(HOST, target="/{ESCAPED}"), (302,)),
    Row("stray percent", get(HOST, target="/%zz{SLUG}"), (404,)),
    Row("semicolon", get(HOST, target="/{SLUG};a"), (404,)),
    Row("fragment", get(HOST, target="/{SLUG}#x"), (302,)),
    Row("empty query", get(HOST, target="/{SLUG}?"), (302,)),
    Row("long target", get(HOST, target="/{SLUG}?" + "a" * 8000), (302,)),
    refused("target of 70 KiB", get(HOST, target="/{SLUG}?" + "a" * 70_000), 431),
    Row(
        "head of 40 KiB",
        get(HOST, KEY, "X-A: " + "a" * 40_000, target="/api/v1/links"),
        (431,),
        differs=_HEAD,
    ),
    Row("97 fields", get(HOST, *[f"X-{number}: a" for number in range(96)]), (302,)),
    Row("98 fields", get(HOST, *[f"X-{number}: a" for number in range(97)]), (431,), True, differs=_FIELDS),
    Row("100 fields", get(HOST, *[f"X-{number}: a" for number in range(99)]), (431,), True, differs=_FIELDS),
    refused("101 fields", get(HOST, *[f"X-{number}: a" for number in range(100)]), 431),
    # --- Host: RFC 9112 3.2; more in http_rows.json
    Row("host missing", get(), (400,), differs=_HOST),
    Row("host twice", get(HOST, HOST), (400,), differs=_HOST),
    Row("host with user info", get("Host: a@b"), (400,), differs=_HOST),
    Row("host empty", get("Host:"), (302,)),
    Row("host of a large port", get("Host: a:99999"), (302,)),
    # --- lengths: RFC 9112 6
    Row("create", post(KEY, LENGTH), (201,)),
    Row("create without a key", post(LENGTH), (401,)),
    Row("two equal lengths", post(KEY, LENGTH, LENGTH), (201,)),
    refused("two lengths", post(KEY, LENGTH, "Content-Length: 3")),
    refused("list of equal lengths", post(KEY, f"{LENGTH}, {len(BODY)}")),
    refused("length with a sign", post(KEY, f"Content-Length: +{len(BODY)}")),
    refused("negative length", post(KEY, "Content-Length: -1")),
    refused("hexadecimal length", post(KEY, "Content-Length: 0x23")),
    refused("two numbers as length", post(KEY, "Content-Length: 3 5")),
    refused("empty length", post(KEY, "Content-Length:")),
    refused("length beyond 64 bits", post(KEY, "Content-Length: 99999999999999999999")),
    refused("largest length", post(KEY, "Content-Length: 18446744073709551615"), 431),
    refused("chunked", post(KEY, "Transfer-Encoding: chunked", body=CHUNKED), 411),
    refused("chunked without a key", post("Transfer-Encoding: chunked", body=CHUNKED), 411),
    refused("length and chunked", post(KEY, LENGTH, "Transfer-Encoding: chunked", body=CHUNKED), 411),
    refused("chunked and length", post(KEY, "Transfer-Encoding: chunked", LENGTH, body=CHUNKED), 411),
    refused("chunked twice", post(KEY, *["Transfer-Encoding: chunked"] * 2, body=CHUNKED), 411),
    refused("chunked in a list twice", post(KEY, "Transfer-Encoding: chunked, chunked", body=CHUNKED), 411),
    refused("gzip and chunked", post(KEY, "Transfer-Encoding: gzip, chunked", body=CHUNKED), 411),
    refused("chunked and gzip", post(KEY, "Transfer-Encoding: chunked, gzip", body=CHUNKED)),
    refused("identity", post(KEY, "Transfer-Encoding: identity", LENGTH)),
    refused("unknown coding", post(KEY, "Transfer-Encoding: xchunked", body=CHUNKED)),
    refused("vertical tab before chunked", post(KEY, "Transfer-Encoding: \x0bchunked", body=CHUNKED)),
    refused("quoted coding", post(KEY, 'Transfer-Encoding: "chunked"', LENGTH)),
    refused("empty coding", post(KEY, "Transfer-Encoding:", LENGTH)),
    refused("coding of a redirect", get(HOST, "Transfer-Encoding: gzip")),
    refused("chunked in HTTP/1.0", post(KEY, "Transfer-Encoding: chunked", body=CHUNKED, version="1.0")),
    refused(
        "chunk with an extension",
        post(KEY, "Transfer-Encoding: chunked", body=CHUNKED.replace("\r\n", ";a=b\r\n", 1)),
        411,
    ),
    refused(
        "chunks with a trailer",
        post(KEY, "Transfer-Encoding: chunked", "Trailer: X-T", body=CHUNKED[:-2] + "X-T: 1\r\n\r\n"),
        411,
    ),
    Row("redirect with a body", get(HOST, "Content-Length: 3") + "abc", (302,)),
    Row("redirect with no byte as body", get(HOST, "Content-Length: 0"), (302,)),
    Row("redirect with chunks", get(HOST, "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n", (302,)),
    Row("HEAD", get(HOST, method="HEAD"), (302,)),
    Row("HEAD with a body", get(HOST, "Content-Length: 3", method="HEAD") + "abc", (302,)),
    Row("body of 60 KB, wrong", post(KEY, "Content-Length: 60000", body="x" * 60_000), (400,)),
    Row("body of 60 KB without a key", post("Content-Length: 60000", body="x" * 60_000), (401,)),
    refused("body of 70 KB", post(KEY, "Content-Length: 70000", body="x" * 70_000), 413),
    # --- expectations, upgrades, versions: RFC 9110 10.1.1, 7.8; RFC 9112 9.3
    Row("expected body", post(KEY, LENGTH, "Expect: 100-continue"), (100, 201)),
    Row("expected body without a key", post(LENGTH, "Expect: 100-continue"), (100, 401)),
    Row("another expectation", post(KEY, LENGTH, "Expect: 200-maybe"), (201,)),
    Row("expectation of a redirect", get(HOST, "Expect: 100-continue"), (302,)),
    Row("upgrade to HTTP/2", get(HOST, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), (302,)),
    Row(
        "upgrade to a web socket",
        get(HOST, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        (302,),
    ),
    refused("redirect in HTTP/1.0", get(HOST, version="1.0"), 302),
    refused("HTTP/1.0 without Host", get(version="1.0"), 302),
    Row("HTTP/1.0 kept alive", get(HOST, "Connection: keep-alive", version="1.0"), (302,)),
    refused("API in HTTP/1.0", get(HOST, KEY, target="/api/v1/links/unvisited", version="1.0"), 200),
    refused("create in HTTP/1.0", post(KEY, LENGTH, version="1.0"), 201),
    refused("close", get(HOST, "Connection: close"), 302),
    refused("close in a list", get(HOST, "Connection: foo, close"), 302),
    # --- what Connection names stays: it is for the server
    Row(
        "key named by Connection",
        get(HOST, KEY, "Connection: authorization", target="/api/v1/links/unvisited"),
        (200,),
    ),
    Row("type named by Connection", post(KEY, LENGTH, "Connection: content-type"), (201,)),
    Row("length named by Connection", post(KEY, LENGTH, "Connection: content-length"), (201,)),
    Row("host named by Connection", get(HOST, "Connection: host", target="/api/v1/links/unvisited"), (401,)),
    # --- several requests: RFC 9112 9.3.2
    Row(
        "pipelined",
        get(HOST)
        + get(HOST, KEY, target="/api/v1/links/unvisited")
        + get(HOST)
        + get(HOST, target="/nothing-here")
        + get(HOST, method="HEAD")
        + post(KEY, LENGTH)
        + get(HOST),
        (302, 200, 302, 404, 302, 201, 302),
    ),
    refused("pipelined after what is no HTTP", get(HOST, "X A: b") + get(HOST)),
    Row("pipelined after no Host", get() + get(HOST), (400, 302), differs=_HOST),
    Row("request in the place of a body", post(KEY, "Content-Length: 0", body=get(HOST)), (400, 302)),
    refused(
        "request behind the end of chunks",
        post(KEY, "Content-Length: 4", "Transfer-Encoding: chunked", body="0\r\n\r\n" + get(HOST)),
        411,
    ),
    # --- half an exchange: RFC 9112 9.6
    Row("ends early", get(HOST), (302,), True, True, differs=_HALF),
    Row("body cut off", post(KEY, "Content-Length: 100"), (400,), True, True),
    Row("body missing", post(KEY, LENGTH, body=""), (400,), True, True),
    Row("chunk cut off", post(KEY, "Transfer-Encoding: chunked", body="5\r\nabc"), (411,), True, True),
    Row("head cut off", "GET /{SLUG} HTTP/1.1\r\nHost", (), True, True),
    Row("nothing", "", (), True, True),
]
