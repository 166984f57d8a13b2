"""The L1 caches: that of dictionaries, and the table of a front, which answers nothing here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hopgate_front import Front

from app.adapters.native_limiter import NativeRateLimiter
from app.ports import Policy
from app.service.l1_cache import BOUNDS, L1, L1Bounds, L1Cache
from app.web import errors
from app.web.front import new_front
from app.web.native_l1 import NativeL1Cache
from app.web.redirects import render
from app.web.response import Response

MakeL1 = Callable[..., L1[Response]]
LIMITS = dict.fromkeys(Policy, "1000000/s burst 1000000")


def new_dictionary(monotonic: Callable[[], float], **options: Any) -> L1[Response]:
    return L1Cache(options.pop("render", render), monotonic=monotonic, **{**_DEFAULTS, **options})


def alone(limiter: NativeRateLimiter, **options: Any) -> Front:
    """Return a front without an application behind it."""
    return new_front(
        Path("/nowhere"),
        redirect_limit=limiter.functions(Policy.REDIRECT),
        not_found_limit=limiter.functions(Policy.NOT_FOUND),
        trusted=(),
        base_path="",
        blocked=errors.blocked("http://hop.example/"),
        monotonic=time.monotonic,
        **options,
    )


def new_native(monotonic: Callable[[], float], *, bounds: L1Bounds = BOUNDS, **options: Any) -> L1[Response]:
    front = alone(NativeRateLimiter(LIMITS), bounds=bounds)
    answering = options.pop("render", render)
    return NativeL1Cache(front, answering, monotonic=monotonic, **{**_DEFAULTS, **options})


_DEFAULTS: dict[str, Any] = {"wall": lambda: 0.0, "random": lambda: 0.0}
KINDS: dict[str, MakeL1] = {"dictionary": new_dictionary, "native": new_native}
