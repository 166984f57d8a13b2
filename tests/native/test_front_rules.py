"""The rules of redirects that the front has of its own: the same as those of the application."""

from __future__ import annotations

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

hopgate_front = pytest.importorskip("hopgate_front")

from app.adapters.native_limiter import NativeRateLimiter  # noqa: E402
from app.domain.link import Resolution, Slug  # noqa: E402
from app.ports import Policy  # noqa: E402
from app.service.leases import Leases  # noqa: E402
from app.web import errors  # noqa: E402
from app.web.front import new_front  # noqa: E402
from app.web.intent import PREVIEW_STARTS, PREVIEW_WORDS, intent_of  # noqa: E402
from app.web.redirects import render, with_query  # noqa: E402
from tests.unit.test_intent import Headers  # noqa: E402

PARTS = st.text(st.sampled_from("aé9Fz%&?=/:;+[]{}|^`\"<>\\~ü€😀 .-_!$'()*,@"), max_size=12)
WORDS = (
    *PREVIEW_WORDS,
    "bot",
    "cubot",
    "Bot/1.0",
    "robot",
    "tumblr/",
    "Tumblr/1",
    "Mozilla/5.0",
    "x",
    "_",
    "",
)


# Parameters whose names are often the same, written one way or another.
QUERIES = PARTS | st.lists(
    st.sampled_from(
        ["a=1", "%61=2", "a", "b+c=3", "b%20c", "b%2Bc=4", "é=5", "%C3%A9=6", "%c3%a9", "", "=7", "a%=8"]
    ),
    max_size=8,
).map("&".join)


@given(path=PARTS, own=QUERIES, fragment=PARTS, query=QUERIES, overrides=st.booleans())
def test_query_is_forwarded_the_same(path, own, fragment, query, overrides):
    target = f"https://example.com/{path}?{own}#{fragment}"
    redirect = render(
        Resolution(Slug("aaa"), 1, _ascii(target), forward_query=True, override_query=overrides), 0.0
    )
    ours = dict(with_query(redirect, query).headers)["location"]

    assert hopgate_front.with_query(redirect.headers[0][1], query, overrides) == ours


def _ascii(url: str) -> str:
    return "".join(letter for letter in url if " " < letter <= "~")


@given(
    agents=st.lists(st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join), max_size=2),
    purposes=st.lists(
        st.tuples(
            st.sampled_from(["sec-purpose", "purpose", "x-purpose", "x-moz"]),
            st.lists(st.sampled_from(["prefetch", "Prerender", "preview", "a", ";", ",", " ", "="])).map(
                "".join
            ),
        ),
        max_size=2,
    ),
)
def test_intent_is_the_same(agents, purposes):
    # A server strips the blanks around a value.
    lines = [*(("user-agent", agent.strip()) for agent in agents), *((n, v.strip()) for n, v in purposes)]

    theirs = hopgate_front.intent_of(lines, (PREVIEW_WORDS, PREVIEW_STARTS))

    assert theirs == intent_of(Headers(lines)).name.lower()


def front(tmp_path):
    limiter = NativeRateLimiter(dict.fromkeys(Policy, "1000000/s burst 1000000"))
    return new_front(
        tmp_path,
        redirect_limit=limiter.functions(Policy.REDIRECT),
        not_found_limit=limiter.functions(Policy.NOT_FOUND),
        trusted=(),
        base_path="",
        blocked=errors.blocked("http://hop.example/"),
        monotonic=lambda: 0.0,
    )


SLUGS = st.sampled_from(["aaa", "bbb"])
VERSIONS = st.integers(1, 3)


class SameLeases(RuleBasedStateMachine):
    """The front's leases and those of a process without one, side by side."""

    def __init__(self):
        super().__init__()
        self.books = front("/nowhere"), Leases()
        self.now = 0.0

    def same(self, ask):
        theirs, ours = map(ask, self.books)
        assert theirs == ours
        return ours

    @rule(slug=SLUGS, version=VERSIONS, spend=st.booleans())
    def take(self, slug, version, spend):
        self.same(lambda book: book.take_visit(slug, version, spend, self.now))

    @rule(slug=SLUGS, version=VERSIONS, visits=st.integers(0, 3), wait=st.sampled_from([0.0, 1.0]))
    def add(self, slug, version, visits, wait):
        self.same(lambda book: book.add_visits(slug, version, visits, self.now, self.now + wait))

    @rule(slug=SLUGS, version=VERSIONS)
    def drop_older(self, slug, version):
        self.same(lambda book: book.drop_older_visits(slug, version))

    @rule(idle_s=st.sampled_from([0.0, 1.0, -math.inf]))
    def drop_idle(self, idle_s):
        before = self.now - idle_s
        idle = self.same(lambda book: sorted(book.idle_visits(before, self.now)))
        for slug in ("aaa", "bbb"):
            left = self.same(partial(self.drop, slug, before))
            assert (left is not None) == (slug in idle)

    def drop(self, slug, before, book):
        return book.drop_idle_visits(slug, before, self.now)

    @rule(seconds=st.sampled_from([0.5, 1.0]))
    def wait(self, seconds):
        self.now += seconds


TestSameLeases = SameLeases.TestCase
