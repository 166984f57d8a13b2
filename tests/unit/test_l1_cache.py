"""The L1 cache of dictionaries alone; what every one does is in tests/contract/test_l1_cache.py."""

from __future__ import annotations

from collections import Counter

from app.domain.link import Resolution, Slug
from app.service.l1_cache import L1Bounds, L1Cache


def test_clicked_entries_are_bounded_without_collect(monotonic):
    clicked: Counter[Slug] = Counter()
    l1 = L1Cache(
        lambda resolution, _: None,
        monotonic=monotonic,
        wall=lambda: 0.0,
        clicked=lambda slug, n: clicked.update({slug: n}),
        bounds=L1Bounds(entries=2),
    )
    for n in range(10):
        entry = l1.put(Resolution(Slug(f"slug-{n}"), 1))
        l1.note_clicked(entry)
        entry.clicks += 1

    assert len(l1._clicked_entries) <= 3
    l1.collect()
    assert clicked == {f"slug-{n}": 1 for n in range(10)}
