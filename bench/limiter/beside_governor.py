"""
Measure the engine, without Python, beside governor: `python -m bench.limiter.beside_governor`.

Builds the Rust project in `governor/`, apart from the workspace, and writes a section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from bench.limiter.compare import RESULTS
from bench.limiter.sections import put, table

PROJECT = Path(__file__).with_name("governor")
_NOTE = (
    "Wall-clock nanoseconds ÷ decisions of one thread; each thread calls for all keys in random order, and "
    "every call is admitted. governor's keyed limiters own their keys (`String`) and read its default clock; "
    "threads beyond the number of processors wait for one."
)


def measure(calls: int, rounds: int) -> list[dict[str, float]]:
    """Return ns per decision for each number of keys and threads."""
    manifest = ["--manifest-path", str(PROJECT / "Cargo.toml")]
    command = ["cargo", "run", "--release", "--quiet", "--locked", *manifest, "--", str(calls), str(rounds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def render(figures: list[dict[str, float]]) -> str:
    """Return the section of RESULTS.md."""
    rows: list[tuple[object, ...]] = []
    for row in figures:
        dash, plain = row["dashmap"] / row["ours"], row["hashmap"] / row["ours"]
        cells = (f"{row[name]:.0f}" for name in ("ours", "dashmap", "hashmap"))
        rows.append((f"{row['keys']:,}", row["threads"], *cells, f"**{dash:.2f}×**", f"**{plain:.2f}×**"))
    head = "keys: | threads: | ours, ns: | governor, DashMap: | governor, HashMap: | ratio: | ratio:"
    return "\n".join(["## The engine beside governor, in Rust", "", _NOTE, "", table(head, rows)])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the calls, result on the screen only"
    )
    args = parser.parse_args()
    text = render(measure(*((100_000, 2) if args.quick else (1_000_000, 7))))
    if args.quick:
        print(text)
    else:
        put(RESULTS, "beside governor", text)


if __name__ == "__main__":
    main()
