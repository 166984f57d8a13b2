"""Faults composed of other faults."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.faults.harness.drill import Fault
from tests.faults.harness.stage import Stage


@contextmanager
def nothing(_stage: Stage) -> Iterator[None]:
    """Break nothing."""
    yield


def together(*faults: Fault) -> Fault:
    """Inject all *faults* at once."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        with ExitStack() as entered:
            for one in faults:
                entered.enter_context(one(stage))
            yield

    return fault


def verified(fault: Fault, evidence: Callable[[Stage], bool]) -> Fault:
    """Inject *fault*, and assert before healing that there is *evidence* of its effect."""

    @contextmanager
    def checked(stage: Stage) -> Iterator[None]:
        with fault(stage):
            yield
            assert evidence(stage), f"no evidence of the fault: {evidence.__name__} is false"

    return checked


def repeated(step: Fault, every_s: float) -> Fault:
    """Inject and heal *step* every *every_s* seconds."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        over = threading.Event()

        def repeat() -> None:
            while not over.wait(every_s):
                with step(stage):
                    pass

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return fault
