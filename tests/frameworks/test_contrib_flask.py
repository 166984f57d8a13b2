"""Limits of Flask views and blueprints."""

from __future__ import annotations

import pytest
from flask import Blueprint, Flask, Response, abort, redirect
from flask.views import MethodView
from hopgate_limiter import Limiter, ManualClock
from hopgate_limiter.contrib.flask import Answer, RateLimits, by_header
from hopgate_limiter.contrib.wsgi import RateLimitMiddleware


def limits_of(*default, **options):
    clock = ManualClock()
    return RateLimits(*default, make=lambda _, rates: Limiter(*rates, clock=clock), **options)


def codes(app, path, times, **options):
    client = app.test_client()
    return [client.get(path, **options).status_code for _ in range(times)]


def test_limit_of_a_view_takes_the_place_of_the_default():
    limits = limits_of("3/h")
    app = Flask("site")
    limits.init_app(app)

    @app.get("/default")
    def default():
        return "x"

    @app.get("/own")
    @limits.limit("1/h")
    def own():
        return "x"

    @app.get("/wide")
    @limits.limit("50/h")
    def wide():
        return "x"

    @app.get("/exempt")
    @limits.exempt
    def exempt():
        return "x"

    assert codes(app, "/own", 2) == [200, 429]
    assert codes(app, "/default", 4) == [200, 200, 200, 429]
    assert codes(app, "/wide", 4) == [200] * 4
    assert codes(app, "/exempt", 4) == [200] * 4
    assert codes(app, "/missing", 1) == [429]
    refused = app.test_client().get("/own")
    assert refused.content_type == "application/problem+json"
    assert refused.json is not None
    assert refused.json["status"] == 429
    assert refused.headers["Retry-After"] == "3600"
    assert refused.headers.getlist("RateLimit") == ['"1/h";r=0;t=3600']
    assert "RateLimit" not in app.test_client().get("/exempt").headers


@pytest.mark.parametrize("is_installed", [True, False])
def test_headers_are_on_every_kind_of_response(is_installed):
    """Also without `init_app`, on errors, and on views that are async or stream."""
    limits = limits_of()
    app = Flask("site")
    if is_installed:
        limits.init_app(app)
    limit = limits.limit("50/h")

    @app.get("/plain")
    @limit
    def plain():
        return {"a": 1}, 201

    @app.get("/async")
    @limit
    async def coroutine():
        return "x"

    @app.get("/stream")
    @limit
    def stream():
        return Response(iter(["a", "b"]))

    @app.get("/error")
    @limit
    def error():
        abort(418)

    @app.get("/redirect")
    @limit
    def elsewhere():
        return redirect("/plain")

    found = {
        path: app.test_client().get(path) for path in ("/plain", "/async", "/stream", "/error", "/redirect")
    }
    assert [response.status_code for response in found.values()] == [201, 200, 200, 418, 302]
    assert all("RateLimit-Policy" in response.headers for response in found.values())
    assert found["/stream"].text == "ab"


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("first", ["address", "key"])
def test_two_limits_of_a_view_charge_both_or_none(first, is_async):
    limits = limits_of()
    app = Flask("site")
    limits.init_app(app)
    decorators = [limits.limit("3/h"), limits.limit("1/h", key=by_header("x-api-key"))]
    outer, inner = decorators if first == "address" else decorators[::-1]
    if is_async:

        @app.get("/")
        @outer
        @inner
        async def coroutine():
            return "x"

    else:

        @app.get("/")
        @outer
        @inner
        def plain():
            return "x"

    assert codes(app, "/", 5, headers={"x-api-key": "a"}) == [200] + [429] * 4
    assert [codes(app, "/", 1, headers={"x-api-key": key}) for key in "bcd"] == [[200], [200], [429]]


def test_blueprints_and_factories():
    """One object for several applications; views of the same name in two blueprints count for themselves."""
    limits = limits_of("9/h")
    blueprints = []
    for name in ("a", "b"):
        blueprint = Blueprint(name, __name__, url_prefix=f"/{name}")

        @blueprint.get("/")
        @limits.limit("1/h")
        def home():
            return "x"

        blueprints.append(blueprint)

    def create_app():
        app = Flask("site")
        for blueprint in blueprints:
            app.register_blueprint(blueprint)
        limits.init_app(app)
        return app

    assert codes(create_app(), "/a/", 2) == [200, 429]
    assert codes(create_app(), "/b/", 2) == [200, 429]
    assert codes(create_app(), "/a/", 1) == [429]


def test_class_based_views():
    limits = limits_of("9/h")
    app = Flask("site")
    limits.init_app(app)

    class Page(MethodView):
        decorators = [limits.limit("1/h", name="page")]  # noqa: RUF012 - as Flask documents it

        def get(self):
            return "get"

        def post(self):
            return "post"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    client = app.test_client()
    assert [client.get("/").status_code, client.post("/").status_code] == [200, 429]


def test_error_handler_of_the_application_answers():
    limits = limits_of("1/h")
    app = Flask("site")
    limits.init_app(app)

    @app.errorhandler(429)
    def slow_down(error):
        return {"slow": error.decision.policy}, 429

    client = app.test_client()
    client.get("/")
    refused = client.get("/")
    assert refused.json == {"slow": "1/h"}
    assert refused.headers["Retry-After"] == "3600"


def test_own_answers_are_sent():
    for answer in (lambda *_: Answer.text("slow", status=503), lambda *_: Response("slow", 503)):
        app = Flask("site")
        limits_of("1/h", answer=answer).init_app(app)
        client = app.test_client()
        client.get("/")
        refused = client.get("/")
        assert (refused.status_code, refused.text) == (503, "slow")
        assert refused.headers["Retry-After"] == "3600"


def test_exceptions_of_views_propagate():
    limits = limits_of("9/h")
    app = Flask("site")
    app.testing = True
    limits.init_app(app)

    @app.get("/")
    @limits.limit("9/h")
    def boom():
        raise LookupError("theirs")

    with pytest.raises(LookupError, match="theirs"):
        app.test_client().get("/")


def test_view_keeps_its_name_and_arguments():
    limits = limits_of()
    app = Flask("site")

    @app.get("/<int:number>")
    @limits.limit("1/h", key=lambda call: call.native.view_args["number"])
    def page(number):
        """Show a page."""
        return str(number)

    assert (page.__name__, page.__doc__) == ("page", "Show a page.")
    assert [codes(app, f"/{number}", 1) for number in (1, 2, 1)] == [[200], [200], [429]]


def test_middleware_around_writes_the_headers_once():
    around, limits = limits_of("5/h"), limits_of("1/h")
    app = Flask("site")
    limits.init_app(app)
    app.wsgi_app = RateLimitMiddleware(app.wsgi_app, around)  # type: ignore[method-assign]

    @app.get("/")
    def home():
        return "x"

    client = app.test_client()
    responses = [client.get("/") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 429, 429]
    assert all(len(response.headers.getlist("RateLimit")) == 1 for response in responses)
    assert around.default is not None
    assert around.default.limiter.peek("* 127.0.0.1").remaining == 4


def test_shadow_mode_never_refuses():
    reported: list[str] = []
    limits = limits_of("1/h", shadow=True, on_refused=lambda call, _: reported.append(call.path))
    app = Flask("site")
    limits.init_app(app)

    @app.get("/")
    @limits.limit("1/h")
    def home():
        return "x"

    assert codes(app, "/", 3) == [200] * 3
    assert reported == ["/", "/"]
