"""The stub is the manual, so it must be true and usable under strict checking."""

import re
import subprocess
import sys
from pathlib import Path

import hopgate_limiter
import pytest
from hopgate_limiter import Limiter, RedisSync

pytest.importorskip("mypy")

SAMPLE = """
from datetime import timedelta
from typing import Literal, assert_type

from ipaddress import ip_address
from uuid import UUID

from hopgate_limiter import (
    Clock, Decision, Key, Limiter, ManualClock, Rate, Rates, Seconds, Stats, client_key
)


class Standing:
    now_ns = 5


class Late:
    @property
    def now(self) -> float:
        return 5.0


clock: Clock = ManualClock(now_ns=5)
rates: tuple[Rate, ...] = Rate.parse("10/s burst 20; 1000/h")
second = Rate(1, timedelta(seconds=1), burst=2, name="a")
limiter = Limiter(second, "5/min", *rates, algorithm="gcra", clock=clock)
key: Key = client_key("::1", v6_prefix=48)
assert_type(limiter.allow(key, 2), bool)
assert_type(limiter.hit(b"k", cost=2, rates=rates), Decision)
assert_type(limiter.peek(5).retry_after, Seconds)
Source = Literal["local", "lease", "redis", "negative-cache", "fallback", "shadow"]
assert_type(limiter.peek(5).source, Source)
assert_type(limiter.hit_many([("a", 1), (b"b", 2)]), list[Decision])
limiter.hit_many({"a": 1}.items())
assert_type(limiter.hit("k").headers(style="both", redirect=True), dict[str, str])
assert_type(limiter.stats(), Stats)
limiter.configure("1/s")
parts: Key = ("tenant", 5, (b"k", UUID(int=1)), ip_address("::1"))
own: Rates = ["1/s", second]
assert_type(limiter.allow(parts, rates=own), bool)
assert_type(limiter.hit(), Decision)
assert_type(limiter.hit(cost=2, rates="1/s"), Decision)
assert_type(limiter.peek(key=key, rates=second), Decision)
assert_type(limiter.acquire(timeout=0, rates=rates), Decision)
assert_type(sorted(rates), list[Rate])
Limiter("1/s", clock=Standing(), on_decision=lambda key, decision: print(key, decision.allowed))
Limiter("1/s", clock=Late())  # type: ignore[arg-type]
limiter.hit(("a", None))  # type: ignore[arg-type]
limiter.hit(None)  # type: ignore[arg-type]
limiter.allow(1.5)  # type: ignore[arg-type]
assert_type(limiter.allow(key=key), bool)
limiter.hit("k").allowed = True  # type: ignore[misc]
Limiter("1/s", algorithm="leaky")  # type: ignore[arg-type]
"""


def mypy(module: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)


def test_stub_matches_the_module():
    """stubtest finds no difference between the stubs and what is importable."""
    result = mypy("mypy.stubtest", "hopgate_limiter", "hopgate_front")
    assert result.returncode == 0, result.stdout + result.stderr


def test_sample_passes_strict_mypy(tmp_path):
    """Good calls pass; bad calls are errors (an unused ignore would be reported)."""
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE)
    result = mypy("mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", str(sample))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("parameter", "make"),
    [
        ("algorithm", lambda word: Limiter("1/s", algorithm=word)),
        ("on_full", lambda word: Limiter("1/s", on_full=word)),
        ("mode", lambda word: RedisSync("redis://localhost", mode=word)),
        ("cold", lambda word: RedisSync("redis://localhost", cold=word)),
        ("on_error", lambda word: RedisSync("redis://localhost", on_error=word)),
        ("fresh", lambda word: RedisSync("redis://localhost", fresh=word)),
    ],
)
def test_stub_words_match_the_module(parameter, make):
    """A word that the module accepts is in the stub, and the other way round."""
    stub = Path(hopgate_limiter.__file__).with_suffix(".pyi").read_text()
    (literal,) = re.findall(rf"\b{parameter}: Literal\[([^]]*)\]", stub)
    with pytest.raises(ValueError, match=f"{parameter} must be one of") as refused:
        make("leaky")
    accepted = re.findall(r"'(\w+)'", str(refused.value).split(", got")[0])

    assert accepted == re.findall(r'"(\w+)"', literal)
