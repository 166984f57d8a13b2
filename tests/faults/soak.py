"""
A soak test: one load, a random fault every minute; at the end the ledger and the resources are checked.

Usage: python -m tests.faults.soak --minutes 30 --seed 7 [--front]

Gateways and worker keep running, so their resources at the end are compared with those before the
first fault; faults that restart them are left out. The seed, printed first, reproduces the order
of faults.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.faults.harness import drill
from tests.faults.harness.figures import Window, figures
from tests.faults.harness.observer import settle
from tests.faults.harness.resources import grown, held
from tests.faults.harness.servers import Servers
from tests.faults.harness.stage import Stage, garbage_collection_paused
from tests.faults.matrix import ROWS

# Rows whose faults restart processes of Hopgate, or repeat another row.
_LEFT_OUT = frozenset({"F0", "F12", "F12b", "F27", "F34", "F35"})
_EVERY_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--visits", type=float, default=120.0, help="a second")
    parser.add_argument("--front", action="store_true", help="before each gateway; its tasks are not counted")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="hopgate-soak-") as folder,
        Servers() as servers,
        Stage(
            servers,
            Path(folder),
            # The front is of `hopgate serve`, not of granian's own command.
            target=None if arguments.front else "tests.faults.harness.resources:observed",
            settings={"HOPGATE_FRONT": "on"} if arguments.front else {"HOPGATE_FRONT": "off"},
        ) as stage,
        garbage_collection_paused(),
    ):
        broken = soak(stage, arguments.minutes * 60, random.Random(arguments.seed), arguments.visits)
    for line in broken:
        print(f"BROKEN {line}")
    raise SystemExit(1 if broken else 0)


def soak(stage: Stage, seconds: float, choice: random.Random, visits: float) -> list[str]:
    """Run for *seconds*, and return every violation and every resource that grew."""
    rows = [row for row in ROWS if row.fault is not None and row.id not in _LEFT_OUT]
    load = stage.start_load(visits=visits, creates=10.0, edits=5.0, deletes=0.5, warm=200)
    began = time.monotonic()
    time.sleep(min(20.0, seconds / 4))  # warm-up
    before = held(stage)
    first_fault = time.monotonic()
    while (left_s := began + seconds - time.monotonic()) > 0:
        row = choice.choice(rows)
        pause_s, fault_s = choice.uniform(10, 25), choice.uniform(5, 25)
        print(f"{time.monotonic() - began:5.0f} s  {row.id} {row.what}, {fault_s:.0f} s", flush=True)
        time.sleep(min(pause_s, left_s))
        assert row.fault is not None
        with row.fault(stage):
            time.sleep(min(fault_s, left_s))
        # The rest of the minute is for recovery.
        rest_s = _EVERY_S - pause_s - fault_s
        time.sleep(max(0.0, min(rest_s, began + seconds - time.monotonic())))
    last_fault = time.monotonic()
    time.sleep(10)
    load.stop()
    drill.replay(stage)
    found, drain_s = settle(stage)
    after = held(stage)
    for name, value in figures(stage.history(), Window(began, first_fault, last_fault, last_fault)).items():
        print(f"  {name} {value:.3g}")
    print(f"  drain_s {drain_s:.3g}")
    for name, now in after.items():
        print(f"  {name}: {before[name]} → {now}")
    return [*map(str, found), *grown(before, after)]


if __name__ == "__main__":
    main()
