"""Runs the gateways and the worker of a stage with other settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.faults.harness.stage import Stage
from tests.servers.hopgate import Process


@contextmanager
def running_with(stage: Stage, **settings: str) -> Iterator[None]:
    """Restart the gateways and the worker with *settings*, and restore their own afterwards."""

    def change(process: Process) -> None:
        process._settings.update(settings)

    with changed(stage, change):
        yield


@contextmanager
def changed(stage: Stage, change: Callable[[Process], None]) -> Iterator[None]:
    """Restart every process of Hopgate after *change*, and restore it afterwards."""
    processes = [*stage.gateways, stage.worker]
    before = [(process._arguments, dict(process._settings)) for process in processes]
    for process in processes:
        process.stop()
    # Entries cached now would be outdated once the original settings are restored.
    stage.servers.redis.flush()
    for process in processes:
        change(process)
        process.start()
    try:
        yield
    finally:
        for process, (arguments, settings) in zip(processes, before, strict=True):
            process.stop()
            process._arguments, process._settings = arguments, settings
        stage.servers.redis.flush()
        for process in processes:
            process.start()
