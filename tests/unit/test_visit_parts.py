"""What waits to be counted is parted by the rows that it takes, not by its messages."""

from __future__ import annotations

from datetime import UTC, datetime

from app.adapters.visit_rows import Traits, parts_by_tags
from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visit_parts import parts_of
from app.domain.visits import MAX_VALUES, Dimension, LinkVisits

HOUR = datetime(2030, 1, 31, 12, tzinfo=UTC)
A = Slug("aaa")


def described(n: int, *browsers: str, slug: Slug = A) -> VisitsDescribed:
    counts = {Dimension.BROWSER: dict.fromkeys(browsers, 1)}
    return VisitsDescribed(f"{n:032x}", HOUR, {slug: LinkVisits(counts)})


def test_repeated_values_take_no_further_rows():
    same = [described(n, "Firefox", "Chrome") for n in range(50)]
    others = [described(99, "Edge"), described(100, "Opera", slug=Slug("bbb")), described(101, "Firefox")]

    parts = list(parts_of([*same, *others], 4, lambda _: 1))

    assert parts == [[*same, *others[:2]], [others[2]]]


def test_rows_of_tags_count():
    full = {by: {f"{by} {n}": 1 for n in range(MAX_VALUES)} for by in Dimension}
    given = [VisitsDescribed(f"{n:032x}", HOUR, {Slug(f"s{n}"): LinkVisits(full)}) for n in range(20)]
    tags = {f"s{n}": [f"{n} {tag}" for tag in range(20)] for n in range(20)}

    tagged = list(parts_by_tags(given, Traits((), tags)))

    assert [one for part in tagged for one in part] == given
    assert max(map(len, tagged)) <= 6
    assert list(parts_by_tags(given, Traits((), {}))) == [given]
