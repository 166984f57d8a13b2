"""The WSGI middleware, alone and around Flask."""

from __future__ import annotations

import json
import os
import threading
from wsgiref.validate import validator

import pytest
from hopgate_limiter import Limiter, ManualClock
from hopgate_limiter.contrib.wsgi import Answer, RateLimitMiddleware, RateLimits, by_user
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app
from werkzeug.wrappers import Response


def limits_of(*default, **options):
    clock = ManualClock()
    return RateLimits(*default, make=lambda _, rates: Limiter(*rates, clock=clock), **options)


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-App", "1")])
    return [b"hello"]


def ask(app, path="/", method="GET", peer="198.51.100.7", **headers):
    return Client(app).open(path, method=method, environ_base={"REMOTE_ADDR": peer}, headers=headers)


def test_requests_beyond_the_limit_are_refused():
    """By the letter of PEP 3333, which the validator checks on both sides."""
    app = validator(RateLimitMiddleware(validator(hello), limits_of("2/min")))
    responses = []
    for _ in range(3):
        environ = EnvironBuilder(environ_base={"REMOTE_ADDR": "198.51.100.7"}).get_environ()
        del environ["HTTP_HOST"]
        body, status, headers = run_wsgi_app(app, environ, buffered=True)
        responses.append((b"".join(body), status, headers))

    assert [status for _, status, _ in responses] == ["200 OK", "200 OK", "429 Too Many Requests"]
    assert responses[0][2]["RateLimit"] == '"2/min";r=1;t=30'
    assert responses[0][2]["X-App"] == "1"
    content, _, headers = responses[2]
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Retry-After"] == "30"
    assert json.loads(content)["status"] == 429


@pytest.mark.parametrize("peer", ["", "testclient", "2001:db8::1"])
def test_every_kind_of_client_is_counted(peer):
    app = RateLimitMiddleware(hello, limits_of("1/h"))
    assert [ask(app, peer=peer).status_code for _ in range(2)] == [200, 429]
    assert ask(app, peer="203.0.113.9").status_code == 200


@pytest.mark.parametrize(("trusted", "codes"), [((), [200, 429]), (("198.51.100.0/24",), [200, 200])])
def test_forwarded_address_counts_only_from_trusted_proxies(trusted, codes):
    app = RateLimitMiddleware(hello, limits_of("1/h", trusted_proxies=trusted))
    found = [ask(app, **{"X-Forwarded-For": spoofed}).status_code for spoofed in ("192.0.2.1", "192.0.2.2")]
    assert found == codes


def test_stream_passes_unbuffered_and_is_closed():
    """The iterable is the application's own, its `write` too."""

    class Stream:
        closed = False

        def __iter__(self):
            yield b"a"

        def close(self):
            self.closed = True

    stream = Stream()
    written: list[bytes] = []

    def app(environ, start_response):
        start_response("200 OK", [])(b"written")
        return stream

    def start_response(status, headers, exc_info=None):
        return written.append

    environ = EnvironBuilder().get_environ()
    assert RateLimitMiddleware(app, limits_of("9/h"))(environ, start_response) is stream
    assert written == [b"written"]


def test_exceptions_propagate_and_error_responses_are_passed_on():
    def boom(environ, start_response):
        raise LookupError("theirs")

    given: list[tuple] = []

    def start_response(*arguments):
        given.append(arguments)
        return given.append

    def restarts(environ, start_response):
        try:
            raise LookupError("theirs")
        except LookupError as error:
            start_response("500 Oops", [], (type(error), error, None))
        return [b""]

    with pytest.raises(LookupError, match="theirs"):
        ask(RateLimitMiddleware(boom, limits_of("9/h")))
    environ = EnvironBuilder().get_environ()
    RateLimitMiddleware(restarts, limits_of("9/h"))(environ, start_response)
    assert given[0][0] == "500 Oops"
    assert given[0][2][0] is LookupError


def test_rules_of_paths_are_below_the_mount_and_decoded():
    limits = limits_of(routes={"/search/é": "1/h", "POST /login": "1/h"})
    app = RateLimitMiddleware(hello, limits)
    assert [ask(app, "/search/%C3%A9").status_code for _ in range(2)] == [200, 429]
    assert [ask(app, "/login").status_code for _ in range(2)] == [200, 200]
    assert [ask(app, "/login", "POST").status_code for _ in range(2)] == [200, 429]
    environ = EnvironBuilder(path="/login", method="POST").get_environ()
    environ |= {"SCRIPT_NAME": "/mounted", "REMOTE_ADDR": "198.51.100.7"}
    assert run_wsgi_app(app, environ)[1] == "429 Too Many Requests"


def test_head_of_a_refusal_has_no_body():
    app = RateLimitMiddleware(hello, limits_of("1/h"))
    ask(app)
    refused = ask(app, method="HEAD")
    assert (refused.status_code, refused.data) == (429, b"")
    assert int(refused.headers["Content-Length"]) > 0


def test_answer_may_be_own_or_an_application():
    own = limits_of(
        "1/h", answer=lambda call, _: Answer.text(call.path, status=599, headers={"Retry-After": "7"})
    )
    werkzeugs = limits_of("1/h", answer=lambda *_: Response("wait", 503))
    refused = []
    for limits in (own, werkzeugs):
        app = RateLimitMiddleware(hello, limits)
        ask(app, "/x")
        refused.append(ask(app, "/x"))

    assert (refused[0].status_code, refused[0].text) == (599, "/x")
    assert refused[0].headers.getlist("Retry-After") == ["7"]
    assert (refused[1].status_code, refused[1].text) == (503, "wait")
    assert refused[1].headers["Retry-After"] == "3600"


def test_of_two_middlewares_the_outer_writes_the_headers():
    inner, outer = limits_of("1/h"), limits_of("5/h")
    app = RateLimitMiddleware(RateLimitMiddleware(hello, inner), outer)
    responses = [ask(app) for _ in range(4)]

    assert [response.status_code for response in responses] == [200, 429, 429, 429]
    assert [response.headers.getlist("RateLimit-Policy") for response in responses] == [
        ['"1/h";q=1;w=3600']
    ] * 4
    assert outer.default is not None
    assert outer.default.limiter.peek("* 198.51.100.7").remaining == 4


def test_key_by_remote_user():
    app = RateLimitMiddleware(hello, limits_of("1/h", key=by_user()))
    base = {"REMOTE_ADDR": "198.51.100.7"}
    users = ["alice", "bob", "alice"]
    found = [Client(app).get("/", environ_base={**base, "REMOTE_USER": user}).status_code for user in users]
    assert found == [200, 200, 429]


def test_threads_never_exceed_the_limit():
    app = RateLimitMiddleware(hello, limits_of("50/h"))
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.extend(ask(app).status_code for _ in range(25)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes.count(200) == 50


def test_forked_workers_share_the_limit(redis_server):
    """As gunicorn --preload makes them: the limiter was used before the fork."""
    redis_server.flush()
    limits = RateLimits("40/h", redis=redis_server.url, prefix="rl:fork:")
    app = RateLimitMiddleware(hello, limits)
    admitted = [ask(app).status_code for _ in range(5)].count(200)
    for _ in range(3):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            found = [ask(app).status_code for _ in range(20)].count(200)
            os.write(writer, bytes([found]))
            os._exit(0)
        os.waitpid(child, 0)
        admitted += os.read(reader, 1)[0]
        os.close(reader)
        os.close(writer)
    limits.close()
    assert 20 < admitted <= 40
