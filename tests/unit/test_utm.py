"""UTM parameters: a part of the target's query, read and written there."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import rules, utm
from app.domain.errors import InvalidInput
from app.domain.link import LinkFields
from app.domain.target import canonical

TARGET = "https://example.com/p"
VALUES = st.text(st.sampled_from("aé&=+% #?/€\"'<>\\😀:;,"), min_size=1, max_size=12)
QUERIES = st.lists(
    st.sampled_from(
        ["x=1", "", "utm_source=a", "utm_source=b+c", "utm%5fsource=d", "utm_id=7", "utm_term", "%61=2"]
    ),
    max_size=6,
).map("&".join)
WANTED = st.dictionaries(st.sampled_from(utm.NAMES), VALUES | st.none(), min_size=1)


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        ("", {"utm_source": "news"}, "?utm_source=news"),
        ("?", {"utm_source": "news"}, "?utm_source=news"),
        ("#top", {"utm_source": "news"}, "?utm_source=news#top"),
        ("?x=1#a?b", {"utm_medium": "e mail"}, "?x=1&utm_medium=e%20mail#a?b"),
        ("?x=1&", {"utm_source": "a&b=c#d+e"}, "?x=1&utm_source=a%26b%3Dc%23d%2Be"),
        ("?utm_source=a&x=1", {"utm_source": "b"}, "?utm_source=b&x=1"),
        ("?utm_source=a&x=1&utm_source=c", {"utm_source": "b"}, "?utm_source=b&x=1"),
        ("?utm%5Fsource=a", {"utm_source": "b"}, "?utm_source=b"),
        ("?utm_source=a+b", {"utm_source": "a b"}, "?utm_source=a+b"),
        ("?utm_source=a", {"utm_source": None}, ""),
        ("?utm_source=&x", {"utm_source": None}, "?x"),
        ("?x=1&&y", {"utm_source": None}, "?x=1&&y"),
        ("?UTM_SOURCE=a", {"utm_source": "b"}, "?UTM_SOURCE=a&utm_source=b"),
        ("", {"utm_content": "2", "utm_source": "1"}, "?utm_source=1&utm_content=2"),
        ("?utm_id=7", {"utm_source": "é"}, "?utm_id=7&utm_source=%C3%A9"),
    ],
)
def test_parameters_are_merged_into_the_query(before, wanted, after):
    assert utm.merged(TARGET + before, wanted) == TARGET + after


def test_host_without_a_path_takes_parameters():
    merged = utm.merged("https://example.com", {"utm_source": "a"})

    assert canonical(merged, own_hosts=()) == "https://example.com/?utm_source=a"


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("?utm_source=a+b%20c", "a b c"),
        ("?utm_source=a&utm_source=b", "a"),
        ("?x&utm_source=%C3%A9#utm_source=b", "é"),
        ("#?utm_source=a", None),
        ("?utm_source", None),
        ("?utm_source=%0A", None),
        ("?utm_source=" + "a" * 256, None),
        ("?xutm_source=a", None),
    ],
)
def test_shown_is_what_the_target_says(query, value):
    assert utm.shown(TARGET + query)["utm_source"] == value


@given(query=QUERIES, fragment=st.sampled_from(["", "#f", "#?utm_source=f"]), wanted=WANTED)
def test_merged_target_shows_what_was_wanted_once(query, fragment, wanted):
    target = f"{TARGET}?{query}{fragment}"
    before = utm.shown(target)

    merged = canonical(utm.merged(target, wanted), own_hosts=())

    assert {name: utm.shown(merged)[name] for name in wanted} == wanted
    others = [pair for pair in _pairs(target) if pair[0] not in wanted]
    assert [pair for pair in _pairs(merged) if pair[0] not in wanted] == others
    for name, value in wanted.items():
        if value != before[name]:
            assert [pair[0] for pair in _pairs(merged)].count(name) == (value is not None)
    assert utm.merged(merged, wanted) == merged
    assert urlsplit(merged).fragment == urlsplit(target).fragment


def _pairs(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


@given(query=QUERIES)
def test_target_that_shows_it_already_stays_byte_for_byte(query):
    target = f"{TARGET}?{query}"
    shown = {name: value for name, value in utm.shown(target).items() if value is not None}

    assert utm.merged(target, shown) == target


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (TARGET, ""),
        (TARGET, "a\nb"),
        (TARGET, "a" * 256),
        (TARGET, "\ud800"),
        ("mailto:a@example.com", "a"),
        ("example.com", "a"),
    ],
)
def test_what_cannot_be_a_parameter_is_refused(target, value):
    with pytest.raises(InvalidInput) as caught:
        utm.merged(target, {"utm_source": value, "utm_term": None})

    assert [(error.field, error.code) for error in caught.value.errors] == [("utm_source", "utm_invalid")]


def test_patch_of_target_and_parameters_is_one_change():
    fields = LinkFields(long_url=f"{TARGET}?utm_source=old&utm_term=t")

    one = utm.patched(fields, {"utm_source": "new", "title": "T"})
    both = utm.patched(fields, {"long_url": "https://example.org/?utm_term=u", "utm_source": "new"})

    assert one == LinkFields(long_url=f"{TARGET}?utm_source=new&utm_term=t", title="T")
    assert both.long_url == "https://example.org/?utm_term=u&utm_source=new"


def test_override_without_forwarding_is_refused_however_it_comes_about():
    link = LinkFields(long_url=TARGET, forward_query=True, override_query=True)
    assert rules.checked(link, own_hosts=()) == link
    plain = LinkFields(long_url=TARGET, forward_query=True)
    assert rules.edited(plain, link, own_hosts=()) == link

    for stored, wanted in [
        (LinkFields(long_url=TARGET), LinkFields(long_url=TARGET, override_query=True)),
        (link, LinkFields(long_url=TARGET, override_query=True)),
    ]:
        for judge in (
            lambda stored, wanted: rules.edited(stored, wanted, own_hosts=()),
            lambda _, wanted: rules.checked(wanted, own_hosts=()),
        ):
            with pytest.raises(InvalidInput) as caught:
                judge(stored, wanted)
            assert [error.code for error in caught.value.errors] == ["override_query_alone"]
