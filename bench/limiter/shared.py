"""
Measure limits that are shared through Redis.

    python -m bench.limiter.shared            # about ten minutes
    python -m bench.limiter.shared --quick    # a minute, result on the screen only
    python -m bench.limiter.shared --every-hit # three minutes, the part in which Redis decides every call

It starts a Redis of its own. Both sides of a ratio are measured in alternation, within one run. The figures
are kept in shared.json; RESULTS.md and the table in pyext/README.md are written from it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from hopgate_limiter import Limiter, RedisSync, _native

from bench.limiter import every_hit, latency
from bench.limiter.compare import RESULTS, machine
from bench.limiter.sections import put, table
from tests.servers.redis import PrivateRedis

KEPT = Path(__file__).with_name("shared.json")
README = Path(__file__).parents[2] / "pyext" / "README.md"
SECTION = "shared limits, measured"
LEASED_BAR = 1_000_000
# Of many calls at once, by what bounds them: one key needs one message, a single caller has no second call.
ONE_KEY_BAR, MANY_KEYS_BAR, SINGLE_BAR = 10.0, 6.0, 1.0
_RATE = "100000000/s burst 100000000"
_KEY = "198.51.100.7"


def measure_leased(calls: int, rounds: int) -> dict[str, Any]:
    """One hot key in one thread, beside the same limiter without Redis."""
    with PrivateRedis() as server:
        alone = Limiter(_RATE)
        leased = Limiter(_RATE, sync=RedisSync(server.url))
        leased.allow(_KEY)
        rates: dict[str, list[float]] = {"alone": [], "leased": []}
        server.command("CONFIG", "RESETSTAT")
        before = leased.stats()
        for _ in range(rounds):
            for name, allow in (("alone", alone.allow), ("leased", leased.allow)):
                start = time.perf_counter()
                for _ in range(calls):
                    allow(_KEY)
                rates[name].append(calls / (time.perf_counter() - start))
        after = leased.stats()
        commands = server.command("INFO", "commandstats")
        assert isinstance(commands, dict)
        leased.close()
    asked = after.remote_calls - before.remote_calls
    return {
        "per_second": max(rates["leased"]),
        "alone_per_second": max(rates["alone"]),
        "ratio": statistics.median(
            mine / other for mine, other in zip(rates["leased"], rates["alone"], strict=True)
        ),
        "from_lease": (after.lease_hits - before.lease_hits) / (calls * rounds),
        "calls_per_lease": commands["cmdstat_evalsha"]["calls"] / max(1, asked),
        "calls_per_million": asked / (calls * rounds) * 1e6,
    }


def measure_every_hit(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Redis decides every call: ours and theirs."""
    rows = []
    with PrivateRedis() as server:
        for shape in every_hit.SHAPES:
            figures = every_hit.compare(shape, server.url, list(every_hit.RIVALS), rounds, seconds)
            for rival, (mine, theirs) in figures.items():
                rows.append({"shape": shape.title, "rival": rival, "ours": mine, "theirs": theirs})
                print(f"{shape.title}; {rival}: {mine / theirs:.1f}", file=sys.stderr)
            server.flush()
    return rows


def measure_latency(seconds: float) -> list[dict[str, Any]]:
    """Single calls during a fault of Redis."""
    rows = []
    for cold in ("sync", "optimistic"):
        for fault in latency.FAULTS:
            first, well, ill = latency.run(fault, cold, seconds)
            row: dict[str, Any] = {"cold": cold, "fault": fault.title, "timeout_s": fault.timeout_s}
            row |= {"first_waits": len(first.waits), "calls": len(ill.times)}
            for name, half in (("well", well), ("ill", ill)):
                for part in (0.5, 0.99, 0.999, 1.0):
                    row[f"{name}_{part}"] = half.at(part)
                row[f"{name}_waits"] = half.waits
            rows.append(row)
            print(f"{cold}; {fault.title}: {row['ill_0.999'] / row['well_0.999']:.2f}", file=sys.stderr)
    return rows


# --- the tables -------------------------------------------------------------------------


def render(kept: dict[str, Any]) -> str:
    """Return the section of RESULTS.md."""
    parts = [
        "## Shared through Redis",
        "",
        "Written by `python -m bench.limiter.shared`.",
        "",
        kept["machine"],
    ]
    parts += ["", "### From a lease", "", render_leased(kept["leased"])]
    parts += [
        "",
        "### Redis decides every call",
        "",
        _EVERY_HIT_NOTE,
        "",
        kept.get("every_hit_machine", kept["machine"]),
        "",
        render_every_hit(kept["every_hit"]),
    ]
    parts += ["", "### A single call", "", _LATENCY_NOTE, "", render_latency(kept["latency"])]
    return "\n".join(parts)


_EVERY_HIT_NOTE = (
    "Decisions per second; the same Redis, medians of rounds taken in turns. "
    "A single caller has no second call for a pipeline, so each is bound "
    "by the same round trip. limits and throttled-py use redis-py with hiredis; neither has a batch call."
)
_LATENCY_NOTE = (
    f"`allow` on one leased key, {latency.CALLS_PER_S:,} calls a second of {latency.RATE}, µs: while Redis "
    "is healthy / from the fault on, in the same process. The ratio is that of the p99.9. Waits: calls "
    "during which the thread slept at all, and their longest, without the first second, in which the first "
    "lease is fetched (waits there: last column)."
)


def render_leased(figures: dict[str, Any]) -> str:
    """Return the table about a hot key."""
    rows: list[tuple[object, ...]] = [
        ("decisions/s, one thread", f"{figures['per_second']:,.0f}", f"≥ {LEASED_BAR:,}"),
        ("÷ the same without Redis", f"{figures['ratio']:.2f}", ""),
        ("decided from a lease", f"{figures['from_lease']:.2%}", ""),
        ("Redis calls per lease", f"{figures['calls_per_lease']:.2f}", "≤ 1"),
        ("Redis calls per million decisions", f"{figures['calls_per_million']:.1f}", ""),
    ]
    return table("one hot key | measured: | bar:", rows)


def render_every_hit(figures: list[dict[str, Any]]) -> str:
    """Return the table of rivals."""
    rows: list[tuple[object, ...]] = []
    for row in figures:
        times = row["ours"] / row["theirs"]
        bar = _bar(row["shape"])
        verdict = f"≥ {bar:g}, {'holds' if times >= bar else 'missed'}"
        rows.append(
            (
                row["shape"],
                row["rival"],
                f"{row['ours']:,.0f}",
                f"{row['theirs']:,.0f}",
                f"**{times:.1f}×**",
                verdict,
            )
        )
    return table("callers | rival | ours: | theirs: | ratio: | bar", rows)


def _bar(shape: str) -> float:
    if shape in ("one task, one key", "one thread, one key"):
        return SINGLE_BAR
    return MANY_KEYS_BAR if shape.endswith("1,000 keys") else ONE_KEY_BAR


def render_latency(figures: list[dict[str, Any]]) -> str:
    """Return the table of single calls."""
    rows: list[tuple[object, ...]] = []
    for row in figures:
        pairs = [
            f"{row[f'well_{p}'] / 1e3:.1f} / {row[f'ill_{p}'] / 1e3:.1f}" for p in (0.5, 0.99, 0.999, 1.0)
        ]
        waits = row["ill_waits"]
        longest = f"{len(waits)}, {max(waits) / 1e6:.1f} ms" if waits else "0"
        ratio = f"**{row['ill_0.999'] / row['well_0.999']:.2f}**"
        fault = f"{row['fault']}, timeout {row['timeout_s']:g} s"
        rows.append((f'`cold="{row["cold"]}"`', fault, *pairs, ratio, longest, row["first_waits"]))
    return table("cold | Redis | p50: | p99: | p99.9: | max: | ratio: | waits: | at first:", rows)


def readme_table(kept: dict[str, Any]) -> str:
    """Return the table of the README: the main figures."""
    leased = kept["leased"]
    rows: list[tuple[object, ...]] = [
        ("leased hot key, one thread", f"{leased['per_second'] / 1e6:.1f} M decisions/s"),
        ("the same ÷ without Redis", f"{leased['ratio']:.2f}"),
        ("Redis calls per million of these", f"{leased['calls_per_million']:.0f}"),
    ]
    rows += [
        (f"`every_hit` ÷ limits, {row['shape']}", f"{row['ours'] / row['theirs']:.1f}×")
        for row in kept["every_hit"]
        if row["rival"] == "limits, fixed window"
    ]
    for row in kept["latency"]:
        if row["cold"] == "sync" and row["fault"] in ("stopped", "killed"):
            ratio = row["ill_0.999"] / row["well_0.999"]
            rows.append((f"p99.9 of a leased `allow`, Redis {row['fault']} ÷ well", f"{ratio:.2f}"))
    return table("shared through Redis | measured:", rows)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--every-hit", action="store_true", help="only measure that mode")
    parser.add_argument("--render", action="store_true", help="only rewrite the tables")
    args = parser.parse_args()
    if _native.build_profile != "release":
        sys.exit("refusing to measure a debug build: maturin develop --release")
    if args.render:
        kept = json.loads(KEPT.read_text())
    elif args.every_hit:
        kept = json.loads(KEPT.read_text())
        kept["every_hit_machine"] = machine()
        kept["every_hit"] = measure_every_hit(7, 0.5)
    else:
        kept = {"machine": machine()}
        kept["leased"] = measure_leased(200_000, 3 if args.quick else 15)
        kept["every_hit"] = measure_every_hit(*((1, 0.2) if args.quick else (7, 1.0)))
        kept["latency"] = measure_latency(2.0 if args.quick else 20.0)
    if args.quick:
        print(render(kept))
        return
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    put(RESULTS, SECTION, render(kept))
    put(README, SECTION, readme_table(kept))


if __name__ == "__main__":
    main()
