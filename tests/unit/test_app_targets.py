"""Targets of the schemes that an operator allows beside those of the web."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import rules, target
from app.domain.errors import InvalidInput
from app.domain.link import LinkFields, Resolution, Slug
from app.domain.policy import TargetPolicy
from app.web import patterns
from app.web.blocked import rendering
from app.web.redirects import render
from tests.unit.test_target import ACCEPTED as WEB_ACCEPTED
from tests.unit.test_target import OWN
from tests.unit.test_target import REFUSED as WEB_REFUSED

POLICY = TargetPolicy(schemes=frozenset({"http", "https", "mailto", "tel", "myapp", "sms", "ftp"}))

ACCEPTED = [
    ("mailto:a@example.com", "mailto:a@example.com"),
    ("MailTo:A.B+c@EXAMPLE.com", "mailto:A.B+c@example.com"),
    ("mailto:a@münchen.de", "mailto:a@xn--mnchen-3ya.de"),
    ("mailto:grüße@example.com", "mailto:gr%C3%BC%C3%9Fe@example.com"),
    ("mailto:a@example.com,b@example.com", "mailto:a@example.com,b@example.com"),
    ("mailto:a%40example.com%2Cb@example.com", "mailto:a@example.com,b@example.com"),
    (
        "mailto:a@example.com?subject=Grüße%20an|dich",
        "mailto:a@example.com?subject=Gr%C3%BC%C3%9Fe%20an%7Cdich",
    ),
    ("mailto:a@example.com?body=one%0D%0Atwo", "mailto:a@example.com?body=one%0D%0Atwo"),
    ("mailto:?to=a@example.com&cc=b@example.com", "mailto:?to=a@example.com&cc=b@example.com"),
    ("mailto:?subject=x", "mailto:?subject=x"),
    ("tel:+1-201-555-0123", "tel:+1-201-555-0123"),
    ("TEL:+1(201)555.0123", "tel:+1(201)555.0123"),
    ("tel:112", "tel:112"),
    ("tel:7042;phone-context=example.com", "tel:7042;phone-context=example.com"),
    ("tel:+1201;ext=5;isub=x1", "tel:+1201;ext=5;isub=x1"),
    ("myapp://open/page?id=1#top", "myapp://open/page?id=1#top"),
    ("MyApp://Open/", "myapp://Open/"),
    ("myapp:///x", "myapp:///x"),
    ("myapp:x", "myapp:x"),
    ("myapp:/ä|b", "myapp:/%C3%A4%7Cb"),
    ("myapp://a/#b#c%", "myapp://a/#b%23c%25"),
    ("myapp:javascript:alert(1)", "myapp:javascript:alert(1)"),
    ("sms:+1201?body=x", "sms:+1201?body=x"),
    ("ftp://example.com/file", "ftp://example.com/file"),
]
REFUSED = [
    ("mailto:", "url_malformed"),
    ("myapp://-oProxyCommand=x/y", "url_host"),
    ("ftp://-x/", "url_host"),
    ("myapp://evil.example;x", "url_host"),
    ("myapp://evil.example,good", "url_host"),
    ("mailto:?", "url_mail"),
    ("mailto:a", "url_mail"),
    ("mailto:@example.com", "url_mail"),
    ("mailto:a@", "url_mail"),
    ("mailto:a@b@example.com", "url_mail"),
    ("mailto:a@[127.0.0.1]", "url_mail"),
    ("mailto:a@example.com:25", "url_mail"),
    ("mailto:a@exa%6Dple.com", "url_mail"),
    ("mailto:a@example.com,", "url_mail"),
    ("mailto:a%0D%0ABcc:b@example.com", "url_mail"),
    ("mailto:a%00@example.com", "url_mail"),
    ("mailto:a@example.com?subject=x%0D%0ABcc:%20b@example.com", "url_mail"),
    ("mailto:a@example.com?body=%00", "url_mail"),
    ("mailto:a@example.com?attach=/etc/passwd", "url_mail"),
    ("mailto:a@example.com?x-header=1", "url_mail"),
    ("mailto:a@example.com?subject", "url_mail"),
    ("mailto:a@example.com?cc=b", "url_mail"),
    ("mailto:a@example.com?", "url_mail"),
    ("mailto:a@example.com#x", "url_mail"),
    ("mailto:a@example.com?body=<script>#x", "url_mail"),
    ("mailto:" + ",".join(["a@example.com"] * 51), "url_mail"),
    ("mailto:" + "a" * 193 + "@example.com", "url_mail"),
    ("mailto:a@example.com?body=" + "a" * 8192, "url_too_long"),
    ("mailto:a b@example.com", "url_forbidden_character"),
    ("tel:", "url_malformed"),
    ("tel:+", "url_tel"),
    ("tel:*%2306%23", "url_tel"),
    ("tel:*#06#", "url_tel"),
    ("tel:1#", "url_tel"),
    ("tel:abc", "url_tel"),
    ("tel:1%20", "url_tel"),
    ("tel:٣", "url_tel"),
    ("tel:1;x=y", "url_tel"),
    ("tel:1;", "url_tel"),
    ("tel:" + "1" * 33, "url_tel"),
    ("tel:1" + "-" * 300, "url_tel"),
    ("tel://1", "url_tel"),
    ("myapp:", "url_malformed"),
    ("myapp://", "url_malformed"),
    ("myapp:#", "url_malformed"),
    ("myapp://user:secret@host/", "url_credentials"),
    ("myapp://user@host/", "url_credentials"),
    ("myapp://[::1]/", "url_host"),
    ("myapp://exämple/", "url_host"),
    ("myapp://ex%61mple/", "url_host"),
    ("myapp://host:port/", "url_host"),
    ("ftp:example.com/", "url_host"),
    ("ftp:///example.com/", "url_host"),
    ("ftp:/example.com/", "url_host"),
    ("myapp:a\\b", "url_forbidden_character"),
    ("myapp:\r\nSet-Cookie:a", "url_forbidden_character"),
    ("myapp:" + "a" * 8192, "url_too_long"),
    ("myapp2:x", "url_scheme"),
    ("javascript:alert(1)", "url_scheme"),
    ("java\nscript:alert(1)", "url_forbidden_character"),
    ("mailto", "url_scheme"),
    (":x", "url_scheme"),
]


@pytest.mark.parametrize(("typed", "stored"), [*ACCEPTED, *WEB_ACCEPTED])
def test_accepted_target_is_canonical(typed, stored):
    assert target.canonical(typed, own_hosts=OWN, policy=POLICY) == stored
    assert target.canonical(stored, own_hosts=OWN, policy=POLICY) == stored
    assert target.uri_reference(stored) == stored


# ftp is allowed here.
@pytest.mark.parametrize(("text", "code"), [*REFUSED, *(one for one in WEB_REFUSED if one[0][:3] != "ftp")])
def test_refused_target_names_the_rule(text, code):
    with pytest.raises(InvalidInput) as caught:
        target.canonical(text, own_hosts=OWN, policy=POLICY)

    [error] = caught.value.errors
    assert (error.field, error.code) == ("long_url", code)
    assert len(error.message) < 250


@pytest.mark.parametrize(
    ("schemes", "message"),
    [
        ({"http", "https"}, "must start with http:// or https:// and name a host"),
        ({"https"}, "must start with https:// and name a host"),
        (
            {"https", "tel", "mailto"},
            "must start with https:// and name a host, or start with mailto: or tel:",
        ),
        ({"tel"}, "must start with tel:"),
    ],
)
def test_message_names_the_schemes(schemes, message):
    with pytest.raises(InvalidInput) as caught:
        target.canonical("gopher://x/", own_hosts=(), policy=TargetPolicy(schemes=frozenset(schemes)))

    assert caught.value.errors[0].message == message


def test_scheme_that_is_not_allowed_is_refused():
    for text, _ in ACCEPTED:
        with pytest.raises(InvalidInput):
            target.canonical(text, own_hosts=())
    with pytest.raises(InvalidInput):
        target.canonical("http://x/", own_hosts=(), policy=TargetPolicy(schemes=frozenset({"https"})))


_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_URI = re.compile(
    rf"[a-z]+:(?:(?://(?:[A-Za-z0-9._~!$&'()*+,;=-]*(?::[0-9]*)?)(?:/{_PCHAR}*)*)|/?{_PCHAR}(?:{_PCHAR}|/)*|/)?"
    rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?"
)
_REST = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="a1@.,?&=#%;:/+*-subjectodyc4021\\ \r\n", max_size=60),
    st.from_regex(r"(//)?[a-z.@]{0,9}(\?(body|subject|cc)=.{0,20})?(;ext=[0-9]{0,3})?", fullmatch=True),
)


@given(st.sampled_from(["mailto", "tel", "myapp", "sms", "ftp", "MAILTO", "javascript"]), _REST)
def test_target_of_an_app_is_a_uri_and_stable(scheme, rest):
    try:
        stored = target.canonical(f"{scheme}:{rest}", own_hosts=OWN, policy=POLICY)
    except InvalidInput:
        return

    assert _URI.fullmatch(stored), stored
    assert stored.startswith(f"{scheme.lower()}:")
    assert target.canonical(stored, own_hosts=OWN, policy=POLICY) == stored
    assert target.uri_reference(stored) == stored
    if stored.startswith("mailto:"):
        assert not re.search(r"%0[ad]", stored.partition("?")[0], re.IGNORECASE)
        assert all(
            re.match(r"(to|cc|bcc|subject|body|in-reply-to)=", part, re.IGNORECASE)
            for part in stored.partition("?")[2].split("&")
            if "?" in stored
        )


@given(
    st.data(), st.sampled_from([{"https"}, {"mailto", "tel"}, {"http", "https", "mailto", "myapp", "ftp"}])
)
def test_target_that_is_described_is_accepted(data, schemes):
    text = data.draw(st.from_regex(patterns.target(schemes), fullmatch=True))

    target.canonical(text, own_hosts=(), policy=TargetPolicy(schemes=frozenset(schemes)))


def test_described_schemes_are_those_of_the_setting():
    assert patterns.target({"https", "http"}) == patterns.TARGET
    for text, _ in (
        ("mailto:a@example.com", 0),
        ("tel:+123", 0),
        ("myapp://open/x", 0),
        ("https://example.com/", 0),
    ):
        assert re.search(patterns.target(POLICY.schemes), text)
    assert not re.search(patterns.target({"https"}), "http://example.com/")
    assert not re.search(patterns.target({"https"}), "mailto:a@example.com")


# --- fields ------------------------------------------------------------------------------

MAIL = LinkFields(long_url="mailto:a@example.com")


@pytest.mark.parametrize("long_url", ["mailto:a@example.com", "tel:+1", "sms:+1", "myapp:x"])
def test_query_of_a_visitor_is_not_written_into_a_mail(long_url):
    fields = LinkFields(long_url=long_url, forward_query=True)

    with pytest.raises(InvalidInput) as caught:
        rules.checked(fields, own_hosts=(), policy=POLICY)

    assert [error.code for error in caught.value.errors] == ["forward_query_scheme"]


@pytest.mark.parametrize(
    ("stored", "change"),
    [
        (MAIL, {"forward_query": True}),
        (
            LinkFields(long_url="https://example.com/", forward_query=True),
            {"long_url": "mailto:a@example.com"},
        ),
    ],
)
def test_edit_of_one_half_is_judged_with_the_other(stored, change):
    with pytest.raises(InvalidInput) as caught:
        rules.edited(stored, replace(stored, **change), own_hosts=(), policy=POLICY)

    assert [error.code for error in caught.value.errors] == ["forward_query_scheme"]


def test_server_of_an_app_takes_a_query():
    fields = LinkFields(long_url="myapp://open/x", forward_query=True)

    assert rules.checked(fields, own_hosts=(), policy=POLICY) == fields


# --- visits ------------------------------------------------------------------------------


def test_link_whose_scheme_is_no_longer_allowed_is_blocked():
    link = Resolution(Slug("aaa"), 1, "mailto:a@example.com")
    allowed = rendering(POLICY, "http://hop.example")(link, 0.0)
    refused = rendering(TargetPolicy(), "http://hop.example")(link, 0.0)

    assert allowed == render(link, 0.0)
    assert allowed.headers[0] == ("location", "mailto:a@example.com")
    assert (refused.status, refused.is_visit) == (451, False)


@pytest.mark.parametrize(
    "target_", ["javascript:alert(1)", "data:text/html,x", "JavaScript:x", "//evil.example"]
)
def test_stored_target_that_runs_code_is_never_sent(target_):
    """However it came into the store."""
    answer = rendering(POLICY, "http://hop.example")(Resolution(Slug("aaa"), 1, target_), 0.0)

    assert answer.status == 451


# --- every caller ------------------------------------------------------------------------


def test_every_check_of_a_target_knows_the_policy():
    """The rules have a default for tests: a caller that forgets the policy would let blocked hosts in."""
    forgotten = [
        f"{path}:{call.lineno}"
        for path in Path("app").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and any(keyword.arg == "own_hosts" for keyword in call.keywords)
        and not any(keyword.arg == "policy" for keyword in call.keywords)
    ]

    assert forgotten == []
