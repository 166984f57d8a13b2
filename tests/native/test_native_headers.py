"""The headers of a decision for an HTTP client."""

import pytest
from hopgate_limiter import Limiter, ManualClock, Rate


def test_admitted():
    """The policy is announced as burst per refill time; t is when the quota is whole again."""
    rates = Rate(10, "s", burst=20, name="burst"), Rate(1000, "h", name="hourly")
    limiter = Limiter(*rates, clock=ManualClock())

    assert limiter.hit("k", 15).headers() == {
        "RateLimit-Policy": '"burst";q=20;w=2, "hourly";q=1000;w=3600',
        "RateLimit": '"burst";r=5;t=54',
    }


def test_refused():
    """Retry-After is rounded up to whole seconds and t does not point beyond it."""
    limiter = Limiter("10/min", clock=ManualClock())
    limiter.allow("k", 10)

    assert limiter.hit("k", 2).headers(style="both") == {
        "RateLimit-Policy": '"10/min";q=10;w=60',
        "RateLimit": '"10/min";r=0;t=12',
        "X-RateLimit-Limit": "10",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "12",
        "Retry-After": "12",
    }


def test_wait_below_a_second():
    """Retry-After is never 0, which would make all clients retry at once."""
    limiter = Limiter("1000/s", clock=ManualClock())
    limiter.allow("k", 1000)
    headers = limiter.hit("k").headers()

    assert headers["Retry-After"] == "1"
    assert headers["RateLimit"] == '"1000/s";r=0;t=1'


def test_never():
    """A cost that can never fit gets no Retry-After."""
    headers = Limiter("10/s").hit("k", 11).headers()
    assert headers == {"RateLimit-Policy": '"10/s";q=10;w=1', "RateLimit": '"10/s";r=10'}


def test_window_below_a_second():
    """w counts whole seconds, so a shorter window is announced without it."""
    assert Limiter("5/100ms").hit("k").headers()["RateLimit-Policy"] == '"5/100ms";q=5'


@pytest.mark.parametrize(("left", "announced"), [(1, True), (0, False)])
def test_redirect(left, announced):
    """On a 3xx an exhausted quota is not announced: clients may wait before they follow."""
    limiter = Limiter("2/h", clock=ManualClock())
    headers = limiter.hit("k", 2 - left).headers(style="both", redirect=True)
    assert ("RateLimit" in headers) is ("X-RateLimit-Limit" in headers) is announced


def test_big_numbers():
    """Structured fields carry at most 15 digits."""
    limiter = Limiter(Rate(2**63 - 1, "9000000000s"))
    assert limiter.hit("k").headers()["RateLimit"].startswith('"default";r=999999999999999;')


def test_unknown_style():
    """Only the documented words."""
    with pytest.raises(ValueError, match="style must be 'ietf', 'legacy' or 'both', got 'rfc'"):
        Limiter("1/s").hit("k").headers(style="rfc")  # type: ignore[arg-type]


def test_decision_is_a_value():
    """True if admitted; read-only; its repr shows every field."""
    decision = Limiter("2/h", clock=ManualClock()).hit("k")
    assert decision
    assert repr(decision) == (
        "Decision(allowed=True, limit=2, remaining=1, cost=1, retry_after=0, reset_after=1800, "
        "policy='2/h', source='local')"
    )
    with pytest.raises(AttributeError):
        setattr(decision, "allowed", False)  # noqa: B010 - mypy knows that it cannot be set


@pytest.mark.parametrize("style", ["ietf", "legacy", "both"])
@pytest.mark.parametrize("redirect", [True, False])
def test_fields_for_asgi_are_the_headers(style, redirect):
    limiter = Limiter(Rate(10, "s", burst=20, name="burst"), Rate(1000, "h", name="hourly"))
    for cost in (15, 5, 5, 21):
        decision = limiter.hit("k", cost)
        headers = decision.headers(style=style, redirect=redirect)
        expected = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        assert decision._fields(style, redirect) == expected
    with pytest.raises(ValueError, match="style must be"):
        decision._fields("rfc", redirect)
