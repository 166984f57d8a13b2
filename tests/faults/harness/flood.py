"""More requests than a gateway can serve, sent by `wrk`."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.faults.harness.drill import CannotPlay

_SCRIPT = Path(__file__).with_name("flood.lua")


@dataclass(frozen=True)
class Flooded:
    """Counts of `requests`, `shed` (503), `silent` (503 without Retry-After) and `limited` (429)."""

    requests: int
    shed: int
    silent: int
    limited: int


class Flood:
    """
    A context manager that runs `wrk` beside its body; `result` waits for the end.

    Args:
        url: the URL to request; in mode `guess` only its host and port count.
        mode: see `flood.lua`.
        seconds: the duration.
    """

    def __init__(
        self, url: str, mode: Literal["guess", "spoof", "one"], seconds: float, *, connections: int = 64
    ) -> None:
        wrk = shutil.which("wrk")
        if wrk is None:
            raise CannotPlay("wrk is missing: install the package wrk")
        load = ["-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "5s"]
        self._command = [wrk, *load, "-s", str(_SCRIPT), url, "--", mode]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def result(self) -> Flooded:
        """Wait for the end and return the counts."""
        output, _ = self._process.communicate(timeout=120)
        return Flooded(**json.loads(output.splitlines()[-1]))
