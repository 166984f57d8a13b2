"""Wire formats: golden bytes, round trips, and bytes that are refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import PoisonMessage
from app.domain.events import ClicksCounted, Event, LinkChanged, LinksMissed, WorkQueue, work_queue
from app.domain.link import Resolution, Slug
from app.domain.slug import MAX_LENGTH
from app.wire import (
    _LAST_HOUR,
    MAX_CLICKED_SLUGS_A_MESSAGE,
    MAX_SLUGS_A_MESSAGE,
    MAX_VERSION,
    cache_key,
    dead_queue,
    decode_changes,
    decode_event,
    decode_resolution,
    decode_time,
    encode_changes,
    encode_event,
    encode_resolution,
    encode_time,
    encode_times,
    retry_queue,
    with_times,
)


class UnknownEvent:
    """A kind of event that a later release may have."""


slugs = st.from_regex(rf"[A-Za-z0-9_-]{{1,{MAX_LENGTH}}}", fullmatch=True).map(Slug)
versions = st.integers(1, MAX_VERSION)
changes = st.builds(LinkChanged, slugs, versions)
missed = st.builds(LinksMissed, st.lists(slugs, min_size=1, max_size=20).map(tuple))
hours = st.integers(0, _LAST_HOUR // 3600).map(lambda hour: datetime.fromtimestamp(hour * 3600, UTC))
counted = st.builds(
    ClicksCounted,
    st.integers(0, 2**128 - 1).map("{:032x}".format),
    hours,
    st.dictionaries(slugs, st.integers(1, MAX_VERSION), min_size=1, max_size=20),
)
times = st.none() | st.floats(0, 1e11)
resolutions = st.builds(
    Resolution,
    st.just(Slug("abc")),
    st.integers(0, MAX_VERSION),
    st.none() | st.text(max_size=200),
    st.sampled_from([301, 302, 307, 308]),
    st.booleans(),
    times,
    times,
    st.booleans(),
    expired_url=st.none() | st.text(max_size=200),
    robots=st.none() | st.text(max_size=20),
)

# --- times: in a header, as other releases refuse bodies with unknown fields ---------


@pytest.mark.parametrize("value", [None, True, 0, -1, "1900000000000", 1.5, 10**15, [1]], ids=repr)
def test_unreadable_time_is_unknown(value: object) -> None:
    one, other = LinkChanged(Slug("one"), 1), LinkChanged(Slug("other"), 2)

    assert decode_time(value) is None
    assert [change.committed_at for change in with_times([one], [value])] == [None]
    # Without a time for each, they belong to no one.
    assert list(with_times([one, other], value)) == [one, other]


def test_time_is_that_of_the_commit_or_else_of_the_publishing() -> None:
    change = LinkChanged(Slug("one"), 1, 1_900_000_000.25)

    assert decode_time(encode_time(change, now=1_900_000_009.0)) == 1_900_000_000.25
    assert decode_time(encode_time(LinksMissed((Slug("one"),)), now=1_900_000_009.5)) == 1_900_000_009.5
    assert encode_event(change) == encode_event(LinkChanged(Slug("one"), 1))
    [announced] = with_times(decode_changes(encode_changes([change])), encode_times([change]))
    assert announced.committed_at == change.committed_at


# --- golden bytes: other releases read them ------------------------------------------


@pytest.mark.parametrize(
    ("event", "body"),
    [
        (LinkChanged(Slug("aB-_9"), 7), b'{"kind":"changed","v":1,"slug":"aB-_9","version":7}'),
        (LinksMissed((Slug("a"), Slug("b"))), b'{"kind":"missed","v":1,"slugs":["a","b"]}'),
        (
            ClicksCounted("0123456789abcdef" * 2, datetime(2030, 1, 31, 12, tzinfo=UTC), {Slug("a"): 7}),
            b'{"kind":"clicks","v":1,"batch":"%s","hour":1896091200,"clicks":{"a":7}}'
            % (b"0123456789abcdef" * 2),
        ),
    ],
    ids=["changed", "missed", "clicks"],
)
def test_events_as_bytes(event: Event, body: bytes) -> None:
    assert encode_event(event) == body
    assert decode_event(body) == event


def test_changes_as_bytes() -> None:
    body = (
        b'[{"kind":"changed","v":1,"slug":"a","version":1},{"kind":"changed","v":1,"slug":"b","version":2}]'
    )
    both = [LinkChanged(Slug("a"), 1), LinkChanged(Slug("b"), 2)]

    assert encode_changes(both) == body
    assert decode_changes(body) == both
    assert decode_changes(encode_changes([])) == []


EVERYTHING = Resolution(
    slug=Slug("a"),
    version=4,
    long_url="https://x.eu/|",
    redirect_code=308,
    forward_query=True,
    valid_from=1.5,
    expires_at=2.5,
    metered=True,
    epoch=5,
    override_query=True,
    expired_url="https://y.eu/",
    robots="noindex",
    spends=Slug("b"),
)


def test_golden_entry_has_every_field() -> None:
    """Else a field that the format leaves out would go unnoticed."""
    absent = Resolution.absent(Slug(""))

    assert [
        name for name in Resolution.__struct_fields__ if getattr(EVERYTHING, name) == getattr(absent, name)
    ] == []


@pytest.mark.parametrize(
    ("resolution", "value"),
    [
        (
            EVERYTHING,
            (
                b'4|{"epoch":5,"url":"https://x.eu/|","code":308,"query":true,"start":1.5,"end":2.5,"metered":true,'
                b'"override":true,"over":"https://y.eu/","robots":"noindex","spends":"b"}'
            ),
        ),
        (Resolution(Slug("a"), 3, "https://x.example/", 301), b'3|{"url":"https://x.example/","code":301}'),
    ],
    ids=["everything", "plain"],
)
def test_cache_entries_as_bytes(resolution: Resolution, value: bytes) -> None:
    assert encode_resolution(resolution) == value
    assert decode_resolution(Slug("a"), value) == resolution


@pytest.mark.parametrize(
    ("resolution", "value"),
    [
        (Resolution.absent(Slug("a")), b"0|{}"),
        (Resolution(Slug("a"), 12), b"12|{}"),
        (Resolution(Slug("a"), 3, "https://x.example/"), b'3|{"url":"https://x.example/"}'),
    ],
    ids=["absent", "gone", "defaults"],
)
def test_cache_entry_without_defaults(resolution: Resolution, value: bytes) -> None:
    """An encoder may omit defaults; the version always comes first."""
    assert decode_resolution(Slug("a"), value) == resolution
    assert encode_resolution(resolution).startswith(b"%d|{" % resolution.version)


def test_names() -> None:
    """Other releases use the same keys and queues."""
    assert cache_key(Slug("aB")) == "hg:link:{aB}"
    assert list(WorkQueue) == ["hopgate.cache", "hopgate.clicks", "hopgate.visits"]
    assert retry_queue(10, WorkQueue.CACHE) == "hopgate.cache.retry.10s"
    assert retry_queue(10, WorkQueue.CLICKS) == "hopgate.clicks.retry.10s"
    assert [dead_queue(queue) for queue in WorkQueue] == [
        "hopgate.cache.dead",
        "hopgate.clicks.dead",
        "hopgate.visits.dead",
    ]


def test_unknown_kind_of_event_is_refused() -> None:
    """A kind without a format or queue is a bug of this program: it must not pass in silence."""
    unknown: Any = UnknownEvent()

    for use in (encode_event, work_queue):
        with pytest.raises(AssertionError, match="UnknownEvent"):
            use(unknown)


# --- round trips -----------------------------------------------------------------------


@given(event=changes | missed | counted)
def test_every_event_survives(event: Event) -> None:
    assert decode_event(encode_event(event)) == event


@given(batch=st.lists(changes, max_size=20))
def test_every_announcement_survives(batch: list[LinkChanged]) -> None:
    assert decode_changes(encode_changes(batch)) == batch


@given(resolution=resolutions)
def test_every_resolution_survives(resolution: Resolution) -> None:
    assert decode_resolution(Slug("abc"), encode_resolution(resolution)) == resolution


def test_largest_event_survives() -> None:
    most = LinksMissed(tuple(Slug(f"{n:0{MAX_LENGTH}}") for n in range(MAX_SLUGS_A_MESSAGE)))

    assert decode_event(encode_event(most)) == most


def test_largest_batch_of_clicks_survives() -> None:
    clicks = {Slug(f"{n:0{MAX_LENGTH}}"): MAX_VERSION for n in range(MAX_CLICKED_SLUGS_A_MESSAGE)}
    most = ClicksCounted("f" * 32, datetime(2030, 1, 31, 12, tzinfo=UTC), clicks)

    assert decode_event(encode_event(most)) == most


# --- refused bytes ----------------------------------------------------------------------

_CHANGED = '{"kind":"changed","v":1,"slug":"abc","version":%s}'
_COUNTED = '{"kind":"clicks","v":1,"batch":"%s","hour":%s,"clicks":{%s}}'
_ID = "0123456789abcdef" * 2

POISON: dict[str, str | bytes] = {
    "empty": b"",
    "not json": b"{",
    "not utf-8": b"\xff\xfe",
    "trailing bytes": _CHANGED % 1 + "x",
    "a number": b"7",
    "a list": b"[]",
    "null": b"null",
    "unknown kind": '{"kind":"removed","v":1,"slug":"abc","version":1}',
    "kind is not text": '{"kind":1,"v":1,"slug":"abc","version":1}',
    "no format": '{"kind":"changed","slug":"abc","version":1}',
    "newer format": '{"kind":"changed","v":2,"slug":"abc","version":1}',
    "format 0": '{"kind":"changed","v":0,"slug":"abc","version":1}',
    "missing field": '{"kind":"changed","v":1,"slug":"abc"}',
    "extra field": '{"kind":"changed","v":1,"slug":"abc","version":1,"x":1}',
    "version 0": _CHANGED % 0,
    "version negative": _CHANGED % -1,
    "version 2^53": _CHANGED % 2**53,
    "version 2^64": _CHANGED % 2**64,
    "version with a fraction": _CHANGED % 1.5,
    "version huge float": _CHANGED % "1e300",
    "version true": _CHANGED % "true",
    "version NaN": _CHANGED % "NaN",
    "version Infinity": _CHANGED % "Infinity",
    "version text": _CHANGED % '"1"',
    "version null": _CHANGED % "null",
    "slug null": '{"kind":"changed","v":1,"slug":null,"version":1}',
    "slug empty": '{"kind":"changed","v":1,"slug":"","version":1}',
    "slug too long": '{"kind":"changed","v":1,"slug":"%s","version":1}' % ("a" * (MAX_LENGTH + 1)),
    "no slugs": '{"kind":"missed","v":1,"slugs":[]}',
    "slugs null": '{"kind":"missed","v":1,"slugs":null}',
    "a null among slugs": '{"kind":"missed","v":1,"slugs":["a",null]}',
    "too many slugs": b'{"kind":"missed","v":1,"slugs":[' + b'"a",' * MAX_SLUGS_A_MESSAGE + b'"a"]}',
    "no clicks": _COUNTED % (_ID, 3600, ""),
    "zero clicks": _COUNTED % (_ID, 3600, '"abc":0'),
    "clicks of nothing": _COUNTED % (_ID, 3600, '"":1'),
    "clicks 2^53": _COUNTED % (_ID, 3600, f'"abc":{2**53}'),
    "a batch without a name": _COUNTED % ("", 3600, '"abc":1'),
    "a batch with a line break": _COUNTED % (_ID + "\\n", 3600, '"abc":1'),
    "half past": _COUNTED % (_ID, 1800, '"abc":1'),
    "an hour before time": _COUNTED % (_ID, -3600, '"abc":1'),
    "an hour after time": _COUNTED % (_ID, 253_402_300_800, '"abc":1'),
    "too many clicked": _COUNTED
    % (_ID, 3600, ",".join(f'"{n:05}":1' for n in range(MAX_CLICKED_SLUGS_A_MESSAGE + 1))),
    "deep nesting": b"[" * 100_000,
    "deep nesting in a field": b'{"kind":"changed","v":1,"slug":' + b"[" * 100_000,
    "a megabyte": b"x" * 1_000_000,
    "a megabyte of slug": b'{"kind":"changed","v":1,"slug":"' + b"a" * 1_000_000 + b'","version":1}',
}


@pytest.mark.parametrize("body", POISON.values(), ids=POISON.keys())
def test_unreadable_event_is_poison(body: str | bytes) -> None:
    """The decoder raises nothing else."""
    raw = body.encode() if isinstance(body, str) else body

    with pytest.raises(PoisonMessage):
        decode_event(raw)
    if raw != b"[]":
        with pytest.raises(PoisonMessage):
            decode_changes(raw)
    if raw != b"":
        with pytest.raises(PoisonMessage):
            decode_changes(b"[" + raw + b"]")


_BROKEN_TEXT = b'{"kind":"changed","v":1,"slug":"\xff\xfe","version":1}'


@pytest.mark.parametrize("decode", [decode_event, lambda body: decode_changes(b"[" + body + b"]")])
def test_broken_text_is_poison(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(PoisonMessage):
        decode(_BROKEN_TEXT)


def test_cache_entry_with_broken_text_is_a_miss() -> None:
    assert decode_resolution(Slug("abc"), b'1|{"url":"\xff"}') is None


def test_cache_entry_with_huge_version_is_a_miss() -> None:
    assert decode_resolution(Slug("abc"), b"%d|{}" % (MAX_VERSION + 1)) is None


def test_announcement_carries_changes_only() -> None:
    with pytest.raises(PoisonMessage):
        decode_changes(b"[" + encode_event(LinksMissed((Slug("a"),))) + b"]")


@given(raw=st.binary(max_size=200))
def test_any_bytes_are_event_or_poison(raw: bytes) -> None:
    try:
        event = decode_event(raw)
    except PoisonMessage:
        return
    assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize(
    "value",
    [
        b"", b"|", b"1", b"1|", b"|{}", b"x|{}", b"-1|{}", b"+1|{}", b"1.5|{}", b" 1|{}", b"1_0|{}",
        b"nan|{}", b"1|{", b"1|[]", b"1|null", b'1|{"url":5}', b'1|{"code":"302"}', b'1|{"end":"x"}',
        b'1|{"query":1}', b'1|{"start":NaN}', b"1|\xff", "²|{}".encode(), b"9" * 17 + b"|{}",
        b'1|{"epoch":9223372036854775808}', b'1|{"epoch":-9223372036854775809}', b'1|{"code":200}',
        b'1|{"code":304}', b'1|{"code":-302}', b'1|{"code":65838}', b"1|" + b"[" * 100_000,
    ],
    ids=lambda value: repr(value[:32]),
)  # fmt: skip
def test_unreadable_cache_entry_is_a_miss(value: bytes) -> None:
    assert decode_resolution(Slug("abc"), value) is None


@given(value=st.binary(max_size=100) | st.binary(max_size=60).map(lambda b: b"7|" + b))
def test_any_cache_value_is_resolution_or_miss(value: bytes) -> None:
    held = decode_resolution(Slug("abc"), value)
    if held is not None:
        assert decode_resolution(Slug("abc"), encode_resolution(held)) == held
