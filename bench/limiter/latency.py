"""
The latency of one call on a leased key, with a healthy Redis and with a faulty one.

A child process makes the calls and nothing else; its parent causes the faults. Demand is far below the rate.
Both halves of a run are from the same process, so that their ratio is meaningful. A call has waited if its
thread gave up the processor during it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from tests.servers.proxy import FaultProxy, Network
from tests.servers.redis import PrivateRedis

RATE = "100000/s burst 100000"
CALLS_PER_S = 2_000
_WARM_UP_S = 1.0
_SLOW_S = 0.05


@dataclass(frozen=True)
class Fault:
    """The fault of Redis half-way through a run."""

    title: str
    begin: Callable[[PrivateRedis, FaultProxy], None]
    timeout_s: float = 0.05


FAULTS = (
    Fault("healthy", lambda _server, _proxy: None),
    Fault("50 ms away", lambda _, proxy: proxy.become(Network(latency_s=_SLOW_S / 2)), timeout_s=0.2),
    Fault("50 ms away", lambda _, proxy: proxy.become(Network(latency_s=_SLOW_S / 2))),
    Fault("stopped", lambda server, _: server.pause()),
    Fault("killed", lambda server, _: server.kill()),
)


@dataclass(frozen=True)
class Half:
    """Times of the calls of one half, ns, shortest first; and of the calls that waited."""

    times: list[int]
    waits: list[int]

    def at(self, part: float) -> int:
        """Return the time that this part of the calls stays below."""
        return self.times[min(len(self.times) - 1, int(part * len(self.times)))]


def ask(url: str, timeout_s: float, cold: str, seconds: float) -> None:
    """Run the calling process: print the times of both halves, and whether each call waited."""
    from hopgate_limiter import Limiter, RedisSync

    sync = RedisSync(url, prefix=f"{time.time_ns()}:", timeout=timeout_s, cold=cold)  # type: ignore[arg-type]
    limiter = Limiter(RATE, sync=sync)
    allow, clock, usage = limiter.allow, time.perf_counter_ns, resource.getrusage
    step = 1 / CALLS_PER_S
    halves: list[tuple[list[int], list[int]]] = []
    for half_s in (_WARM_UP_S, seconds / 2, seconds / 2):
        times, waits = array("q"), array("q")
        if halves:
            print("half", flush=True)
        start = time.perf_counter()
        for number in range(int(half_s * CALLS_PER_S)):
            if (left := start + number * step - time.perf_counter()) > 0:
                time.sleep(left)
            switches = usage(resource.RUSAGE_THREAD).ru_nvcsw
            before = clock()
            allow("hot")
            took = clock() - before
            times.append(took)
            if usage(resource.RUSAGE_THREAD).ru_nvcsw > switches:
                waits.append(took)
        halves.append((times.tolist(), waits.tolist()))
    print(json.dumps(halves))


def run(fault: Fault, cold: str, seconds: float) -> tuple[Half, Half, Half]:
    """Return the times before the first reply, while Redis is healthy, and from the fault on."""
    with PrivateRedis() as server, FaultProxy(server.port) as proxy:
        command = [sys.executable, "-m", "bench.limiter.latency", f"redis://127.0.0.1:{proxy.port}"]
        command += [str(fault.timeout_s), cold, str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            child.stdout.readline()
            fault.begin(server, proxy)
            halves = json.loads(child.stdout.readline())
    first, well, ill = (Half(sorted(times), sorted(waits)) for times, waits in halves)
    return first, well, ill


if __name__ == "__main__":
    ask(sys.argv[1], float(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
