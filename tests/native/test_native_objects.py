"""The classes behave as Python's do: copied, pickled, compared, printed and documented."""

import ast
import copy
import inspect
import pickle
import weakref
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import AsyncMock, create_autospec

import hopgate_limiter
import pytest
from hopgate_limiter import Decision, Limiter, ManualClock, Rate, RateLimitExceeded, RedisSync

DUPLICATES = [
    pytest.param(copy.copy, id="copy"),
    pytest.param(copy.deepcopy, id="deepcopy"),
    *(
        pytest.param(lambda it, p=protocol: pickle.loads(pickle.dumps(it, p)), id=f"pickle {protocol}")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
]
duplicates = pytest.mark.parametrize("duplicate", DUPLICATES)


def refusal() -> Decision:
    limiter = Limiter("1/s burst 2; 5/h", clock=ManualClock())
    limiter.hit("k", 2)
    return limiter.hit("k", 2)


def admission() -> Decision:
    return Limiter("1/s").hit("k")


@duplicates
@pytest.mark.parametrize(
    "value",
    [
        Rate(10, "s", burst=3, name="it's"),
        refusal(),
        admission(),
        Limiter("1/s").hit("k", 9),
        Limiter("1/s").stats(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_copied_and_pickled(value, duplicate):
    """A duplicate of a value equals it, and is as good: attributes, headers, hash."""
    twin = duplicate(value)
    assert twin == value
    assert hash(twin) == hash(value)
    assert repr(twin) == repr(value)
    if isinstance(value, Decision):
        assert twin.headers(style="both") == value.headers(style="both")
        assert bool(twin) == bool(value)


@duplicates
@pytest.mark.parametrize("cost", [2, 9])
def test_exceptions_are_copied_and_pickled(duplicate, cost):
    """They cross process pools and task queues with their decision."""
    limiter = Limiter("1/s burst 2", clock=ManualClock())
    limiter.hit("k", 2)
    with pytest.raises(RateLimitExceeded) as caught:
        limiter.reserve("k", cost, max_wait=0)
    twin = duplicate(caught.value)

    assert type(twin) is type(caught.value)
    assert str(twin) == str(caught.value)
    assert twin.decision == caught.value.decision


@duplicates
def test_settings_and_clocks_are_copied_and_pickled(duplicate):
    """A copy of a RedisSync belongs to another limiter; a copy of a clock shows the same time."""
    sync = RedisSync("redis://127.0.0.1:1/2", prefix="a:", max_outstanding=3, cold="optimistic", optimistic=2)
    Limiter("10/s", sync=sync).close()
    Limiter("10/s", sync=duplicate(sync)).close()
    assert duplicate(ManualClock(7)).now_ns == 7


def test_live_objects_are_not_pickled():
    """A limiter and a reservation are state of this process."""
    limiter = Limiter("1/s")
    for live in (limiter, limiter.reserve("k")):
        with pytest.raises(TypeError):
            pickle.dumps(live)


def test_values_compare_by_what_they_say():
    """Equal decisions are equal and have one hash; others and other types are not."""
    one, other = (Limiter("2/s", clock=ManualClock()).hit("k") for _ in range(2))
    assert one == other
    assert len({one, other}) == 1
    assert one != Limiter("2/s", clock=ManualClock()).hit("k", 2)
    assert one != "Decision"
    assert Limiter("1/s").stats() == Limiter("9/s").stats()
    assert Rate(1, "s") == Rate(1, "1s", name="default")


@pytest.mark.parametrize(
    ("per", "text"), [("1s", "s"), ("500ms", "500ms"), ("90s", "90s"), ("2 days", "2d"), (1e-9, "ns")]
)
def test_a_rate_prints_as_it_is_written(per, text):
    """repr is an expression that makes an equal rate."""
    rate = Rate(10, per, burst=20, name="it's")
    assert repr(rate) == f"Rate(10, '{text}', burst=20, name=\"it's\")"
    assert eval(repr(rate)) == rate


def test_weak_references():
    """Every class takes weak references."""
    limiter = Limiter("1/s")
    for it in (limiter, limiter.hit("k"), limiter.stats(), ManualClock(), Rate(1, "s"), limiter.reserve("a")):
        assert weakref.ref(it)() is it


def test_rates_of_a_limiter():
    """`rates` shows the rates in force."""
    limiter = Limiter("10/s burst 20; 1000/h")
    assert limiter.rates == Rate.parse("10/s burst 20; 1000/h")
    limiter.configure("5/s")
    assert limiter.rates == Rate.parse("5/s")


def test_unnamed_rates_get_names():
    """Unnamed rates are named after their numbers; chosen names may not clash."""
    assert [rate.name for rate in Limiter(Rate(100, "s"), Rate(200, "min")).rates] == ["100/s", "200/min"]
    assert [rate.name for rate in Limiter("10/s; 10/s burst 5").rates] == ["10/s burst 10", "10/s burst 5"]
    assert [rate.name for rate in Limiter(Rate(1, "s"), Rate(2, "s", name="default")).rates] == [
        "1/s",
        "default",
    ]
    assert [rate.name for rate in Limiter(Rate(1, "s")).rates] == ["default"]
    with pytest.raises(ValueError, match="two rates are named 'a'"):
        Limiter(Rate(1, "s", name="a"), Rate(2, "s", name="a"))


def test_coroutine_functions_are_recognised():
    """inspect and mocks see that the asynchronous methods are."""
    assert inspect.iscoroutinefunction(Limiter.hit_async)
    assert inspect.iscoroutinefunction(Limiter("1/s").acquire_async)
    assert isinstance(create_autospec(Limiter).acquire_async, AsyncMock)


def stub() -> Iterator[tuple[str, str]]:
    """Yield each documented name of the stub, and its text; a constructor is documented with its class."""
    text = Path(hopgate_limiter.__file__).with_suffix(".pyi").read_text()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and (said := ast.get_docstring(node)):
            yield node.name, said
        if not isinstance(node, ast.ClassDef):
            continue
        members = {
            member.name: ast.get_docstring(member)
            for member in node.body
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        yield node.name, "\n\n".join(filter(None, (ast.get_docstring(node), members.pop("__new__", None))))
        yield from ((f"{node.name}.{name}", said) for name, said in members.items() if said)


@pytest.mark.parametrize(
    ("name", "said"), list(stub()), ids=lambda it: it if "\n" not in it and " " not in it else ""
)
def test_help_says_what_the_stub_says(name, said):
    """help() shows the manual."""
    head, _, member = name.partition(".")
    it = getattr(hopgate_limiter, head)
    it = getattr(it, member) if member else it
    assert inspect.getdoc(it) == said


def test_every_callable_has_a_signature():
    """inspect.signature works for everything public."""
    for it in (getattr(hopgate_limiter, name) for name in hopgate_limiter.__all__ if name != "__version__"):
        for called in (it, *(getattr(it, member) for member in dir(it) if not member.startswith("_"))):
            is_ours = getattr(called, "__name__", "") not in {"add_note", "with_traceback"}
            if callable(called) and is_ours and not isinstance(called, type):
                assert inspect.signature(called)
    for made in (Limiter, Rate, RedisSync, ManualClock):
        assert inspect.signature(made).parameters
    assert inspect.signature(Limiter.reserve).parameters["max_wait"].default is None
