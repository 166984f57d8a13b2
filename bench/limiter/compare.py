"""
Measure `allow` and `hit` against other limiters and write RESULTS.md.

    python -m bench.limiter.compare            # about ten minutes
    python -m bench.limiter.compare --quick    # a tenth of the calls, result on the screen only

Each rival runs in a process of its own, together with ours and in alternating rounds, so that both sides of
a ratio come from the same minutes. A figure is processor time per call in the best of its rounds, including
the loop that calls it.
"""

import argparse
import gc
import json
import os
import platform
import random
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

from hopgate_limiter import _native

from bench.limiter.contenders import HOURLY, PACKAGES, RIVALS, UNLIMITED, Ask, ours, ours_hit
from bench.limiter.sections import put

RESULTS = Path(__file__).with_name("RESULTS.md")
CELLS = {
    (UNLIMITED, 1): (1, 2, 8),
    (UNLIMITED, 1_000): (1, 2, 8),
    (UNLIMITED, 1_000_000): (1, 2, 8),
    (HOURLY, 1): (1,),
}
"""For each setting and number of keys, the numbers of threads."""
ROUNDS = 3


NOTE = (
    "Nanoseconds of processor time per call. Absolute figures depend on the machine and its load; compare "
    "the ratios. limits sweeps its keys in a background thread, whose time counts for the side that is being "
    "measured: with a million keys its rows show ours as too slow."
)


def key_names(count: int) -> list[str]:
    """Texts like the client addresses of a gateway."""
    return [f"198.51.{number >> 8 & 255}.{number & 255}-{number >> 16}" for number in range(count)]


def nanoseconds_per_call(ask: Ask, order: list[str], threads: int) -> float:
    """
    Call once for each key of `order`, split over the threads.

    The measure is the processor time of all threads: they run one at a time anyway, and a wait for a busy
    processor is no property of a limiter.
    """
    ready = threading.Barrier(threads + 1)

    def work(part: list[str]) -> None:
        ready.wait()
        for key in part:
            ask(key)

    pool = [threading.Thread(target=work, args=(order[index::threads],)) for index in range(threads)]
    for thread in pool:
        thread.start()
    ready.wait()
    start = time.process_time_ns()
    for thread in pool:
        thread.join()
    return (time.process_time_ns() - start) / len(order)


def child(rival: str, calls: int) -> None:
    """Print one JSON line per cell: setting, keys, threads, our ns, their ns."""
    their_factory, our_factory = RIVALS[rival]
    for (setting, keys), threads_list in CELLS.items():
        if rival == "aiolimiter" and setting != UNLIMITED:
            continue  # it waits and never refuses
        names = key_names(keys)
        order = (names * (calls // keys + 1))[:calls] if keys < calls else names[:: keys // calls]
        random.Random(2).shuffle(order)
        sides = our_factory(setting), their_factory(setting)
        for ask in sides:
            for name in names:
                ask(name)
        gc.collect()
        # An event loop belongs to one thread.
        for threads in (1,) if rival == "aiolimiter" else threads_list:
            best = [float("inf")] * 2
            for _ in range(ROUNDS):
                for side, ask in enumerate(sides):
                    best[side] = min(best[side], nanoseconds_per_call(ask, order, threads))
            print(json.dumps([setting, keys, threads, *best]), flush=True)


def rss_kb() -> int:
    """Resident memory of this process, KB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def memory_child(rival: str) -> None:
    """Print the memory that a million keys take, in bytes per key."""
    factory = ours if rival == "ours" else RIVALS[rival][0]
    names = key_names(1_000_000)
    ask = factory(HOURLY)
    ask(names[0])
    gc.collect()
    before = rss_kb()
    for name in names:
        ask(name)
    gc.collect()
    print(json.dumps((rss_kb() - before) * 1024 / len(names)))


def flood_child() -> None:
    """Print RSS in KB after 10⁶ and after 10⁷ distinct keys, in a table for 10⁶."""
    from hopgate_limiter import Limiter

    allow = Limiter("1/h", max_keys=1_000_000).allow
    for number in range(1_000_000):
        allow(number)
    early = rss_kb()
    for number in range(1_000_000, 10_000_000):
        allow(number)
    print(json.dumps([early, rss_kb()]))


def run(*args: str) -> list[list]:
    """Run one measurement in a fresh process; no result if it fails."""
    command = [sys.executable, "-m", "bench.limiter.compare", *args]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        print(f"skipped {args}: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    return [json.loads(line) for line in result.stdout.splitlines()]


def table(calls: int) -> str:
    """Measure and render the speed section."""
    lines = []
    for title, rivals in (
        ("`allow` and its equivalents", [r for r, (_, o) in RIVALS.items() if o is ours]),
        ("`hit` and its equivalents", [r for r, (_, o) in RIVALS.items() if o is ours_hit]),
    ):
        lines += [f"### {title}", "", "| rival | calls | keys | threads | ours, ns | theirs, ns | ratio |"]
        lines += ["|---|---|---:|---:|---:|---:|---:|"]
        for rival in rivals:
            for setting, keys, threads, mine, theirs in run("--child", rival, "--calls", str(calls)):
                ratio = f"**{theirs / mine:.1f}×**"
                cells = (rival, setting, f"{keys:,}", threads, f"{mine:.0f}", f"{theirs:.0f}", ratio)
                lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines.append("")
    return "\n".join(lines)


def memory_table() -> str:
    """Measure and render the memory section."""
    lines = ["### Memory", "", "| limiter | bytes per key, 10⁶ keys |", "|---|---:|"]
    for rival in ["ours", *(r for r, (_, o) in RIVALS.items() if o is ours and r != "aiolimiter")]:
        lines += [f"| {rival} | {size:.0f} |" for size in run("--memory", rival)]
    for early, late in run("--flood"):
        flood = f"{early / 1024:.1f} MB resident after the first 10⁶, {late / 1024:.1f} MB at the end."
        lines += ["", f"A flood of 10⁷ distinct keys into a table for 10⁶: {flood}"]
    return "\n".join([*lines, ""])


def machine() -> str:
    """Describe the machine and the versions."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in cpus if "model name" in line]
    versions = ", ".join(f"{name} {version(name)}" for name in ["hopgate-limiter", *PACKAGES])
    return (
        f"{models[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; "
        f"Linux {platform.release()}; Python {platform.python_version()}; {versions}."
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--calls", type=int, default=20_000)
    for hidden in ("--child", "--memory"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--flood", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if _native.build_profile != "release":
        sys.exit("refusing to measure a debug build: maturin develop --release")
    if args.child:
        child(args.child, args.calls)
    elif args.memory:
        memory_child(args.memory)
    elif args.flood:
        flood_child()
    else:
        head = ["## In memory", ""]
        head += ["Written by `python -m bench.limiter.compare`; see there for the method.", "", machine(), ""]
        head += [NOTE, ""]
        parts = ["\n".join(head), table(args.calls // 10 if args.quick else args.calls)]
        text = "\n".join(parts if args.quick else [*parts, memory_table()])
        if args.quick:
            print(text)
        else:
            put(RESULTS, "in memory", text)


if __name__ == "__main__":
    main()
