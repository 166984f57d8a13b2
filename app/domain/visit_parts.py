"""Parts of what waits to be counted, by the rows that they take: each is added in a fraction of a second."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import Dimension


def parts_of(
    described: Iterable[VisitsDescribed], most: int, times: Callable[[Slug], int]
) -> Iterator[Sequence[VisitsDescribed]]:
    """
    Part *described*: a part ends as soon as it has *most* different values of links and dimensions.

    Args:
        times: how often the values of a link count.
    """
    part: list[VisitsDescribed] = []
    seen: defaultdict[tuple[Slug, Dimension], set[str]] = defaultdict(set)
    rows = 0
    for one in described:
        # The next one begins a part, if this one is too much: what it adds is not known before.
        if part and rows >= most:
            yield part
            part, rows = [], 0
            seen.clear()
        part.append(one)
        for slug, visits in one.visits.items():
            of_link = 0
            for dimension, counts in visits.counts.items():
                values = seen[slug, dimension]
                before = len(values)
                values.update(counts)
                of_link += len(values) - before
            if of_link:
                rows += of_link * times(slug)
    if part:
        yield part
