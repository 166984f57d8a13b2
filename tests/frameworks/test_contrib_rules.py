"""What all frameworks share: rules of paths, several limits at once, headers and answers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hopgate_limiter import Limiter, ManualClock, Rate
from hopgate_limiter.contrib import Charges, RateLimits, TrustedProxies, problem
from hopgate_limiter.contrib._call import EnvironCall
from hopgate_limiter.contrib._paths import NoRule, PathRules


def a_call(path="/", method="GET", **variables):
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "REMOTE_ADDR": "198.51.100.7", **variables}
    return EnvironCall(environ, TrustedProxies())


def on_clock(clock):
    return {"make": lambda _, rates: Limiter(*rates, clock=clock)}


# --- paths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("GET", "/login", "login"),
        ("POST", "/login", "post login"),
        ("GET", "/login/", "none"),
        ("GET", "/static", "static"),
        ("GET", "/static/", "static"),
        ("GET", "/static/a/b.css", "static"),
        ("GET", "/statics", "none"),
        ("GET", "/users/7", "user"),
        ("GET", "/users/", "none"),
        ("GET", "/users/7/posts", "none"),
        ("GET", "/users/me", "me"),
        ("GET", "/v1.x", "none"),
        ("GET", "/v1x", "none"),
        ("DELETE", "/static/a", "delete static"),
        ("GET", "/files-and-more", "files"),
        ("GET", "/get", "get"),
        ("HEAD", "/get", "get"),
        ("POST", "/get", "none"),
    ],
)
def test_most_specific_rule_of_a_path_counts(method, path, rule):
    rules = PathRules(
        {
            "/static/*": "static",
            "DELETE /static/*": "delete static",
            "/login": "login",
            "POST /login": "post login",
            "/users/{id}": "user",
            "/users/me": "me",
            "/files*": "files",
            "GET /get": "get",
            "/v1.x": "none",
        }
    )
    found = rules.find(method, path)
    assert ("none" if isinstance(found, NoRule) else found) == rule


def test_slash_at_the_end_evades_no_limit():
    """Many routers serve both; an exempt path has to be exact."""
    limits = RateLimits("9/min", routes={"/login": "5/min", "/healthz": None, "/a/": "1/min", "/": "2/min"})

    assert limits.rule("POST", "/login/") is limits.rule("POST", "/login") is not limits.default
    assert limits.rule("GET", "/login//") is limits.rule("GET", "/login")
    assert limits.rule("GET", "/healthz") is None
    assert limits.rule("GET", "/healthz/") is limits.default
    assert limits.rule("GET", "/a") is limits.default
    assert limits.rule("GET", "//") is limits.default
    assert limits.rule("GET", "/") is not limits.default


@pytest.mark.parametrize("pattern", ["login", "GET login", "/a*/b", ""])
def test_bad_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match="rule must be"):
        RateLimits(routes={pattern: "1/s"})


# --- deciding -------------------------------------------------------------------------------


def test_rule_takes_the_place_of_the_default():
    limits = RateLimits("100/min", routes={"/login": "5/min", "/free": None}, exempt=["/healthz"])

    login = limits.rule("GET", "/login")
    assert login is not None
    assert [rate.limit for rate in login.limiter.rates] == [5]
    assert limits.rule("GET", "/other") is limits.default
    assert limits.rule("GET", "/free") is None
    assert limits.rule("GET", "/healthz") is None


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_refusal_by_one_limit_gives_back_the_others(order):
    """Whatever the order: what was refused has changed nothing."""
    clock = ManualClock()
    limits = RateLimits(**on_clock(clock))
    both = [limits.make_limit("10/h", name="wide"), limits.make_limit("2/h", name="tight")]
    ordered = [both[index] for index in order]
    refused = 0
    for _ in range(5):
        charges = Charges()
        refused += any(limits.check(limit, "", a_call(), charges) is not None for limit in ordered)

    assert refused == 3
    assert both[0].limiter.peek("wide 198.51.100.7").remaining == 8


def test_several_rates_are_one_decision():
    limits = RateLimits("10/s; 3/h", **on_clock(ManualClock()))
    assert limits.default is not None
    decisions = [limits.check(limits.default, "", a_call(), Charges()) for _ in range(4)]

    assert decisions[:3] == [None] * 3
    assert decisions[3] is not None
    assert decisions[3].policy == "3/h"


def test_tightest_decision_is_announced():
    limits = RateLimits(**on_clock(ManualClock()))
    charges = Charges()
    for rates in ("100/h", "5/h", "50/h"):
        limits.check(limits.make_limit(rates, name=rates), "", a_call(), charges)

    assert charges.decision is not None
    assert charges.decision.policy == "5/h"


def test_routes_count_for_themselves_and_names_together():
    limits = RateLimits(**on_clock(ManualClock()))
    own, shared = limits.make_limit("1/h"), limits.make_limit("1/h", name="all")

    assert limits.check(own, "GET /a", a_call(), Charges()) is None
    assert limits.check(own, "GET /b", a_call(), Charges()) is None
    assert limits.check(own, "GET /a", a_call(), Charges()) is not None
    assert limits.check(shared, "GET /a", a_call(), Charges()) is None
    assert limits.check(shared, "GET /b", a_call(), Charges()) is not None


@pytest.mark.parametrize("keys", [(1, "1"), (b"1", "1"), (1, b"1"), ("1", "\x001"), (1, "\x001")])
def test_keys_of_other_types_are_other_keys(keys):
    for first, second in (keys, keys[::-1]):
        limits = RateLimits(**on_clock(ManualClock()))
        limit = limits.make_limit("1/h", key=lambda call: call.native["KEY"])
        assert limits.check(limit, "r", a_call(KEY=first), Charges()) is None
        assert limits.check(limit, "r", a_call(KEY=second), Charges()) is None


def test_cost_may_depend_on_the_request():
    limits = RateLimits("10/h", cost=lambda call: int(call.header("x-items") or 1), **on_clock(ManualClock()))
    assert limits.default is not None

    assert limits.check(limits.default, "", a_call(HTTP_X_ITEMS="9"), Charges()) is None
    refused = limits.check(limits.default, "", a_call(HTTP_X_ITEMS="2"), Charges())
    assert refused is not None
    assert limits.check(limits.default, "", a_call(), Charges()) is None
    assert limits.check(limits.default, "", a_call(HTTP_X_ITEMS="0"), Charges()) is None


def test_cost_beyond_the_limit_is_refused_without_retry():
    limits = RateLimits("10/h", cost=11, **on_clock(ManualClock()))
    assert limits.default is not None
    charges = Charges()
    refused = limits.check(limits.default, "", a_call(), charges)

    assert refused is not None
    assert "Retry-After" not in limits.headers(charges, 429)
    assert "ever admits at once" in json.loads(problem(a_call(), refused).body)["detail"]


def test_shadow_mode_counts_and_reports_and_never_refuses():
    """Neither its own nor that of a limiter that was made in shadow mode."""
    for options in ({"shadow": True}, {"make": lambda _, rates: Limiter(*rates, shadow=True)}):
        reported: list[tuple[str, str]] = []

        def report(call, decision, reported=reported):
            reported.append((call.path, decision.policy))

        limits = RateLimits("2/h", on_refused=report, **options)
        assert limits.default is not None
        for _ in range(5):
            charges = Charges()
            assert limits.check(limits.default, "", a_call("/x"), charges) is None
        assert limits.headers(charges, 200) == {}
        assert reported == [("/x", "2/h")] * 3
        assert limits.stats()["2/h"].denied == 3


def test_shadow_limit_charges_beside_an_enforced_one():
    limits = RateLimits("2/h", **on_clock(ManualClock()))
    trial = limits.make_limit("1/h", shadow=True)
    assert limits.default is not None
    refusals = []
    for _ in range(3):
        charges = Charges()
        limits.check(trial, "", a_call(), charges)
        refusals.append(limits.check(limits.default, "", a_call(), charges))

    assert [refusal is not None for refusal in refusals] == [False, False, True]


def test_exempt_methods_and_the_switch_admit_everything():
    limits = RateLimits("1/h", exempt_methods=["options"], **on_clock(ManualClock()))
    assert limits.default is not None
    for _ in range(3):
        assert limits.check(limits.default, "", a_call(method="OPTIONS"), Charges()) is None
    limits.enabled = False
    for _ in range(3):
        assert limits.check(limits.default, "", a_call(), Charges()) is None
    limits.enabled = True
    assert limits.check(limits.default, "", a_call(), Charges()) is None
    assert limits.check(limits.default, "", a_call(), Charges()) is not None


def test_key_none_is_no_limit():
    limits = RateLimits("1/h", key=lambda _: None)
    assert limits.default is not None
    assert [limits.check(limits.default, "", a_call(), Charges()) for _ in range(3)] == [None] * 3


# --- headers and answers ----------------------------------------------------------------------


def test_headers_are_those_of_the_decision():
    for style in ("ietf", "legacy", "both"):
        limits = RateLimits("2/h", headers=style, **on_clock(ManualClock()))
        assert limits.default is not None
        for _ in range(3):
            charges = Charges()
            limits.check(limits.default, "", a_call(), charges)
            assert charges.decision is not None
            assert limits.headers(charges, 200) == charges.decision.headers(style=style)
            assert limits.headers(charges, 302) == charges.decision.headers(style=style, redirect=True)


def test_retry_after_is_a_whole_second_at_least_and_stays_without_other_headers():
    limits = RateLimits("1000/s burst 1", headers=None, **on_clock(ManualClock()))
    assert limits.default is not None
    limits.check(limits.default, "", a_call(), charges := Charges())
    assert limits.headers(charges, 200) == {}
    limits.check(limits.default, "", a_call(), charges := Charges())
    assert limits.headers(charges, 429) == {"Retry-After": "1"}


def test_default_answer_is_a_problem_document():
    limiter = Limiter("1/min", clock=ManualClock())
    limiter.hit("k")
    answer = problem(a_call(), limiter.hit("k"))

    assert answer.status == 429
    assert answer.headers == {"Content-Type": "application/problem+json"}
    document = json.loads(answer.body)
    assert document["status"] == 429
    assert document["violated-policies"] == ["1/min"]
    assert document["detail"] == "The rate 1/min is exhausted. Retry in 60 s."


# --- limiters ---------------------------------------------------------------------------------


def test_limits_with_the_same_rates_have_one_limiter():
    """Each shared limiter keeps a thread and a connection."""
    limits = RateLimits("5/min")
    assert limits.default is not None
    assert limits.make_limit("5/min").limiter is limits.default.limiter
    assert limits.make_limit(Rate(5, "min", name="5/min")).limiter is limits.default.limiter
    assert limits.make_limit("6/min").limiter is not limits.default.limiter
    assert set(limits.stats()) == {"5/min", "6/min"}


def test_names_of_limiters_differ_as_their_rates_do():
    names: list[str] = []

    def make(name, rates):
        names.append(name)
        return Limiter(*rates)

    limits = RateLimits(make=make)
    for rates in ("5/min", "5/h", "5/min burst 6", "5/min; 5/h", "1/500ms", "5/s; 5/ms"):
        limits.make_limit(rates)

    assert names[0] == "5/60s/5"
    assert len(set(names)) == len(names)
    assert not any(":" in name for name in names)


def test_limiter_of_the_caller_is_used_as_it_is():
    limiter = Limiter("3/min", algorithm="sliding_log")
    limits = RateLimits(limiter)
    assert limits.default is not None
    assert limits.default.limiter is limiter
    with pytest.raises(TypeError, match="only rate"):
        limits.make_limit(limiter, "5/min")
    with pytest.raises(ValueError, match="at least one rate"):
        limits.make_limit()


def test_redis_and_make_exclude_each_other():
    with pytest.raises(ValueError, match="redis must be None"):
        RateLimits("1/s", redis="redis://localhost", make=lambda _, rates: Limiter(*rates))


def test_limiter_imports_no_framework():
    code = (
        "import sys, hopgate_limiter, hopgate_limiter.contrib, hopgate_limiter.contrib.asgi\n"
        "import hopgate_limiter.contrib.wsgi, hopgate_limiter.contrib.decorators\n"
        "names = {'starlette', 'fastapi', 'flask', 'werkzeug', 'django', 'robyn', 'httpx', 'requests'}\n"
        "assert not names & set(sys.modules), names & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, hopgate_limiter; assert not [n for n in sys.modules if 'contrib' in n]"
    subprocess.run([sys.executable, "-c", code], check=True)
