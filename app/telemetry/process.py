"""The process itself: memory, descriptors, processor time, versions."""

from __future__ import annotations

import os
import platform
import resource
import time
from contextlib import suppress
from pathlib import Path

from app import __version__
from app.telemetry.families import (
    BUILD,
    PROCESS_CPU,
    PROCESS_FDS,
    PROCESS_MAX_FDS,
    PROCESS_MEMORY,
    PROCESSES,
)
from app.telemetry.samples import Samples

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SELF = Path("/proc/self")


def process_samples() -> Samples:
    """Report this process. Memory and descriptors are missing where there is no /proc."""
    samples: Samples = {
        PROCESSES.of(): [1],
        BUILD.of(__version__, platform.python_version()): [1],
        PROCESS_CPU.of(): [time.process_time()],
    }
    with suppress(OSError):
        samples[PROCESS_MEMORY.of()] = [int((_SELF / "statm").read_bytes().split()[1]) * _PAGE_BYTES]
        samples[PROCESS_FDS.of()] = [_open_descriptors()]
        samples[PROCESS_MAX_FDS.of()] = [resource.getrlimit(resource.RLIMIT_NOFILE)[0]]
    return samples


def _open_descriptors() -> int:
    folder = _SELF / "fd"
    # Linux 6.2 tells their number as the size. To list 16,384 of them takes milliseconds.
    return folder.stat().st_size or sum(1 for _ in folder.iterdir()) - 1
