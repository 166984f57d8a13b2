"""The functions for other extension modules decide as the methods do, on the same buckets."""

from __future__ import annotations

import ctypes
import gc
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, byref, c_char_p, c_size_t, c_uint32, c_uint64, c_void_p

import pytest
from hopgate_limiter import Limiter, ManualClock

NAME = b"hopgate_limiter.api"


class Api(ctypes.Structure):
    """As `pyext/src/python/capsule.rs` lays it out, and `pyext/front/src/limits.rs` reads it."""

    _fields_ = [
        ("version", c_uint32),
        ("context", c_void_p),
        ("allow", ctypes.CFUNCTYPE(c_uint32, c_void_p, c_char_p, c_size_t)),
        ("refund", ctypes.CFUNCTYPE(None, c_void_p, c_char_p, c_size_t)),
        (
            "refusal",
            ctypes.CFUNCTYPE(c_size_t, c_void_p, c_char_p, c_size_t, c_void_p, c_size_t, POINTER(c_uint64)),
        ),
    ]


class Functions:
    def __init__(self, limiter: Limiter) -> None:
        self.capsule = limiter._c_api
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = c_void_p, [ctypes.py_object, c_char_p]
        self.api = Api.from_address(pointer(self.capsule, NAME))

    def allow(self, key: bytes) -> int:
        return self.api.allow(self.api.context, key, len(key))

    def refund(self, key: bytes) -> None:
        self.api.refund(self.api.context, key, len(key))

    def refusal(self, key: bytes, capacity: int = 4096) -> tuple[dict[str, str], int, int]:
        buffer, wait_ns = ctypes.create_string_buffer(capacity), c_uint64()
        length = self.api.refusal(self.api.context, key, len(key), buffer, capacity, byref(wait_ns))
        lines = buffer.raw[:length].decode() if length <= capacity else ""
        return dict(line.split(": ", 1) for line in lines.splitlines() if ": " in line), length, wait_ns.value


@pytest.fixture
def limiter() -> Limiter:
    return Limiter("1/min burst 2", clock=ManualClock())


def test_function_and_method_share_a_bucket(limiter):
    functions = Functions(limiter)

    assert [functions.allow(b"a"), limiter.allow("a"), functions.allow(b"a")] == [1, True, 0]
    assert functions.api.version == 1
    functions.refund(b"a")
    assert limiter.allow("a")
    stats = limiter.stats()
    assert (stats.allowed, stats.denied) == (3, 1)


def test_refusal_has_the_headers_of_the_decision(limiter):
    functions = Functions(limiter)
    while functions.allow(b"a"):
        pass

    headers, _, wait_ns = functions.refusal(b"a")

    decision = limiter.peek("a")
    assert headers == decision.headers()
    assert wait_ns == decision.retry_after * 1e9


def test_small_buffer_is_left_alone(limiter):
    _, length, _ = Functions(limiter).refusal(b"a", capacity=4)

    assert length > 4


def test_key_that_is_no_text_decides_nothing(limiter):
    functions = Functions(limiter)

    assert functions.allow(b"\xff") == 2
    assert functions.refusal(b"\xff")[1] == 0
    assert limiter.stats().allowed == 0


def test_capsule_keeps_the_limiter(limiter):
    functions = Functions(Limiter("1/min", clock=ManualClock()))
    gc.collect()

    assert [functions.allow(b"a"), functions.allow(b"a")] == [1, 0]


def test_limiter_with_a_hook_has_no_functions():
    """It would not be called for their decisions."""
    limiter = Limiter("1/s", on_decision=lambda _key, _decision: None)

    with pytest.raises(ValueError, match="on_decision"):
        _ = limiter._c_api


def test_functions_are_exact_under_threads():
    limiter = Limiter("1/h burst 1000")
    functions = Functions(limiter)

    def take(_number: int) -> int:
        return sum(functions.allow(b"a") for _ in range(400))

    with ThreadPoolExecutor(4) as pool:
        admitted = sum(pool.map(take, range(4)))

    assert admitted == 1000
