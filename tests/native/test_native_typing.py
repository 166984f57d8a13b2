"""The stub is the manual, so it must be true and usable under strict checking."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

SAMPLE = """
from datetime import timedelta
from typing import Literal, assert_type

from hopgate_limiter import Clock, Decision, Key, Limiter, ManualClock, Rate, Seconds, Stats, client_key

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
assert_type(limiter.hit("k").headers(style="both", redirect=True), dict[str, str])
assert_type(limiter.stats(), Stats)
limiter.configure("1/s")
limiter.allow(1.5)  # type: ignore[arg-type]
limiter.allow(key=key)  # type: ignore[call-arg]
limiter.hit("k").allowed = True  # type: ignore[misc]
Limiter("1/s", algorithm="leaky")  # type: ignore[arg-type]
"""


def mypy(module: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)


def test_stub_matches_the_module():
    """stubtest finds no difference between the stubs and what is importable."""
    result = mypy("mypy.stubtest", "hopgate_limiter")
    assert result.returncode == 0, result.stdout + result.stderr


def test_sample_passes_strict_mypy(tmp_path):
    """Good calls pass; bad calls are errors (an unused ignore would be reported)."""
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE)
    result = mypy("mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", str(sample))
    assert result.returncode == 0, result.stdout + result.stderr
