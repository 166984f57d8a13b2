"""
Bytes that an entry of an L1 cache takes beyond its slug and its target: `python -m bench.l1_memory`.

Resident memory of a process of its own for each cache, with as many entries as allowed. An entry of the front
takes 32 bytes more once it has been sent: the count of those that share its target.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from app.domain.link import Resolution, Slug
from app.service.l1_cache import L1, L1Bounds
from app.web.response import Response
from tests.contract.l1_caches import KINDS

ENTRIES = 1_000_000
# As many as the resolver looks up together.
_BATCH = 500


def _link(number: int) -> Resolution:
    return Resolution(
        Slug(f"{number:07}"), 1, f"https://example.com/articles/2030/01/a-title-of-words-{number:07}"
    )


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def bytes_an_entry(l1: L1[Response]) -> float:
    """Return what *l1* takes for each of `ENTRIES`, beyond the text of slug and target."""
    l1.offer_many([_link(number) for number in range(_BATCH)])
    l1.on_gap()
    before = _resident()
    for first in range(0, ENTRIES, _BATCH):
        l1.offer_many([_link(number) for number in range(first, first + _BATCH)])
    assert len(l1) == ENTRIES
    link = _link(0)
    return (_resident() - before) / ENTRIES - len(link.slug) - len(link.long_url or "")


def main(arguments: list[str]) -> None:
    """Measure the cache that is named, or each in a process of its own."""
    bounds = L1Bounds(entries=ENTRIES, min_versions=ENTRIES)
    for name in arguments:
        l1 = KINDS[name](time.monotonic, bounds=bounds)
        print(f"{name}: {bytes_an_entry(l1):.0f} bytes an entry beyond slug and target")
    if not arguments:
        for name in KINDS:
            subprocess.run([sys.executable, "-m", "bench.l1_memory", name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
