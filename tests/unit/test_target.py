from __future__ import annotations

import re

import ada_url
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import target
from app.domain.errors import InvalidInput

OWN = frozenset({"hop.example", "www.hop.example"})

ACCEPTED = [
    ("https://example.com", "https://example.com/"),
    ("HTTP://EXAMPLE.com:80/A", "http://example.com/A"),
    ("https://example.com:8443/x?y=1#z", "https://example.com:8443/x?y=1#z"),
    ("https://münchen.de/straße?ü=é#ö", "https://xn--mnchen-3ya.de/stra%C3%9Fe?%C3%BC=%C3%A9#%C3%B6"),
    ("https://example.com/%7Ea/%zz", "https://example.com/%7Ea/%25zz"),
    ("https://example.com/a/../b/./c", "https://example.com/b/c"),
    ("https://example.com/\"<>'`{}", "https://example.com/%22%3C%3E'%60%7B%7D"),
    ("http://2130706433/", "http://127.0.0.1/"),
    ("http://[::1]:8080/", "http://[::1]:8080/"),
    ("https://example.com./", "https://example.com./"),
    ("https://" + "a" * 63 + ".com/", "https://" + "a" * 63 + ".com/"),
    ("https://ex.com/?q=" + "あ" * 300, "https://ex.com/?q=" + "%E3%81%82" * 300),
    ("https://example.com/" + "a" * 8172, "https://example.com/" + "a" * 8172),
    # Counted is what is stored.
    ("https://example.com:443/x/../" + "a" * 8172, "https://example.com/" + "a" * 8172),
    # Hosts as UTS 46 and browsers read them now.
    ("https://faẞ.de/", "https://xn--fa-hia.de/"),
    ("https://faß.de/", "https://xn--fa-hia.de/"),
    ("https://STRASSE.de/", "https://strasse.de/"),
    ("https://xn--a/", "https://xn--a/"),
    ("https://xn--a.example/", "https://xn--a.example/"),
    ("https://Ↄ.com/", "https://xn--r5g.com/"),
    ("https://Ӏ.com/", "https://xn--s5a.com/"),
    ("https://\U0002f868.com/", "https://xn--snl.com/"),
    # These look like slips of a paste, and are none.
    ("https://http.com/", "https://http.com/"),
    ("https://https.example.com/", "https://https.example.com/"),
    ("https://httpsome/", "https://httpsome/"),
    ("https://example.com/https://example.com/", "https://example.com/https://example.com/"),
    ("https://example.com//x", "https://example.com//x"),
    ("https://example.com:/x", "https://example.com/x"),
    ("https://example.com?u=https://example.com://", "https://example.com/?u=https://example.com://"),
]

REFUSED = [
    ("", "url_empty"),
    ("javascript:alert(1)", "url_scheme"),
    ("JaVaScRiPt:alert(1)", "url_scheme"),
    ("java\nscript:alert(1)", "url_forbidden_character"),
    ("\x01javascript:alert(1)", "url_forbidden_character"),
    ("data:text/html,<script>", "url_scheme"),
    ("vbscript:x", "url_scheme"),
    ("file:///etc/passwd", "url_scheme"),
    ("blob:https://example.com/x", "url_scheme"),
    ("ftp://example.com/", "url_scheme"),
    ("//evil.example/", "url_scheme"),
    ("/path", "url_scheme"),
    ("example.com", "url_scheme"),
    ("http:evil.example", "url_scheme"),
    ("http:/evil.example", "url_scheme"),
    ("https:/\\evil.example", "url_forbidden_character"),
    ("http:\\\\evil.example", "url_forbidden_character"),
    (" https://example.com/", "url_forbidden_character"),
    ("https://example.com/ ", "url_forbidden_character"),
    ("https://example.com/a b", "url_forbidden_character"),
    ("https://example.com/\r\nSet-Cookie: a=b", "url_forbidden_character"),
    ("https://example.com/\t", "url_forbidden_character"),
    ("https://example.com/\x00", "url_forbidden_character"),
    ("https://example.com/\u2028", "url_forbidden_character"),
    ("https://example.com/\ud800", "url_forbidden_character"),
    ("https://example.com/\x85", "url_forbidden_character"),
    ("https://user@example.com/", "url_credentials"),
    ("https://user:pass@example.com/", "url_credentials"),
    ("https://:pass@example.com/", "url_credentials"),
    ("https://example.com:99999/", "url_malformed"),
    ("https://example.com:0/", "url_port"),
    ("https://exa%mple.com/", "url_malformed"),
    ("https://a..b/", "url_host"),
    ("https://" + "a" * 64 + ".com/", "url_host"),
    ("https://" + "a." * 127 + "com/", "url_host"),
    ("http://?x", "url_scheme"),
    ("http:///x", "url_scheme"),
    ("http://[::1/", "url_malformed"),
    ("https://example.com/" + "a" * 8173, "url_too_long"),
    ("https://example.com/" + "é" * 1500, "url_too_long"),
    ("https://example.com/" + "../" * 30_000, "url_too_long"),
    ("https://hop.example/abc", "url_own_host"),
    ("https://HOP.example./abc", "url_own_host"),
    ("https://www.hop.example:8443/abc", "url_own_host"),
    ("https://hop%2Eexample/abc", "url_own_host"),
]


@pytest.mark.parametrize(("given_", "stored"), ACCEPTED)
def test_accepted_target_is_canonical(given_, stored):
    assert target.canonical(given_, own_hosts=OWN) == stored


@pytest.mark.parametrize(("text", "code"), REFUSED)
def test_refused_target_names_the_rule(text, code):
    with pytest.raises(InvalidInput) as caught:
        target.canonical(text, own_hosts=OWN)

    assert [error.code for error in caught.value.errors] == [code]
    assert caught.value.errors[0].field == "long_url"


@pytest.mark.parametrize(
    "text",
    [
        "https://https://example.com/",
        "https://http://example.com/",
        "http://https//example.com",
        "https://http:/x",
        "https://https",
        "https://https?x",
        "https://https#x",
        "https://https./x",
        "https://https:443/x",
        "HTTPS://HTTPS://example.com/",
        "https://hTTps//example.com",
        "https://%68ttps://example.com/",
        "https://ｈｔｔｐｓ://example.com/",
        "https://www.https://example.com/",
        "https://https://https://example.com/",
        "https://ttps://example.com/",
        "https://ftp://example.com/",
        "https://example.comhttps://example.com/",
        "https://example.com,https://example.com/",
        "https://example.com:///x",
    ],
)
def test_slip_of_a_paste_is_refused(text):
    with pytest.raises(InvalidInput) as caught:
        target.canonical(text, own_hosts=OWN)

    [error] = caught.value.errors
    assert error.code == "url_host"
    assert error.message.endswith("two addresses run together?")


@pytest.mark.parametrize(
    "text",
    ["https:https://a.example/", "https:///https://a.example/", "https:/https://a.example", "httpshttps://a"],
)
def test_scheme_without_a_host_is_refused(text):
    with pytest.raises(InvalidInput, match="must start with http:// or https:// and name a host"):
        target.canonical(text, own_hosts=OWN)


@given(st.one_of(st.text(max_size=200), st.text(max_size=100).map("https://example.com/".__add__)))
def test_canonical_target_is_emittable_and_stable(text):
    """Canonical form is a fixed point and valid in a header."""
    try:
        stored = target.canonical(text, own_hosts=OWN)
    except InvalidInput:
        return

    assert re.fullmatch(r"https?://[\x21-\x7e]+", stored)
    assert target.canonical(stored, own_hosts=OWN) == stored


# Strict clients (java.net.URI) refuse what RFC 3986 does not allow; browsers leave it alone.
OUTSIDE_RFC_3986 = [
    ("https://example.com/?q=a|b", "https://example.com/?q=a%7Cb"),
    ("https://example.com/a|b^c", "https://example.com/a%7Cb%5Ec"),
    ("https://example.com/?q={x}`y^", "https://example.com/?q=%7Bx%7D%60y%5E"),
    ("https://example.com/#{a}|b^#c", "https://example.com/#%7Ba%7D%7Cb%5E%23c"),
    ("https://example.com/?a[]=1&b[x]=2", "https://example.com/?a%5B%5D=1&b%5Bx%5D=2"),
    ("https://example.com/[a]", "https://example.com/%5Ba%5D"),
    ("http://[::1]/?a[]=1", "http://[::1]/?a%5B%5D=1"),
    ("https://example.com/100%", "https://example.com/100%25"),
    ("https://example.com/?q=100%&r=%4", "https://example.com/?q=100%25&r=%254"),
    ("https://example.com/#%g1", "https://example.com/#%25g1"),
    ("https://a{b}c.example/", "https://a%7Bb%7Dc.example/"),
]


@pytest.mark.parametrize(("typed", "stored"), OUTSIDE_RFC_3986)
def test_target_is_a_uri_of_rfc_3986(typed, stored):
    assert target.canonical(typed, own_hosts=OWN) == stored
    assert target.uri_reference(stored) == stored


_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_URI = re.compile(
    rf"https?://(?:\[[0-9a-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{{2}})+)(?::\d+)?"
    rf"(?:/{_PCHAR}*)+(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?"
)


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=0x2FF), max_size=40))
def test_canonical_target_matches_the_grammar(text):
    try:
        stored = target.canonical(f"https://example.com/{text}", own_hosts=OWN)
    except InvalidInput:
        return

    assert _URI.fullmatch(stored), stored
    assert target.canonical(stored, own_hosts=OWN) == stored


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com/", ("https://", "example.com", "/")),
        ("http://example.com:8080?a=@b", ("http://", "example.com", ":8080?a=@b")),
        ("https://[2001:db8::1]:8443/a:1", ("https://", "[2001:db8::1]", ":8443/a:1")),
        ("https://[2001:db8::1]", ("https://", "[2001:db8::1]", "")),
        # A link of an earlier version: what is before the @ decides nothing.
        ("https://bank.example@bad.example/x@y", ("https://bank.example@", "bad.example", "/x@y")),
        ("https://bank.example:1@bad.example:2/", ("https://bank.example:1@", "bad.example", ":2/")),
        ("https://example.com#@x", ("https://", "example.com", "#@x")),
        ("mailto:a@example.com", ("", "mailto", ":a@example.com")),
        ("myapp://open/https://example.com", ("", "myapp", "://open/https://example.com")),
    ],
)
def test_parts_name_what_decides_where_a_target_leads(url, expected):
    assert target.parts(url) == expected
    assert "".join(expected) == url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://xn--e1afmkfd.example/xn--a", "пример.example"),
        ("https://www.xn--mnchen-3ya.de:8080/", "www.münchen.de"),
        ("https://example.com/xn--e1afmkfd", ""),
        ("https://xn--zz--.com/", ""),
        ("https://[::1]/", ""),
        ("myapp://xn--e1afmkfd.example/", ""),
    ],
)
def test_host_is_shown_in_unicode(url, expected):
    assert target.unicode_host(url) == expected


_PIECES = st.sampled_from(
    "a B é 127 0x7f 1.2 . .. / // : :80 :443 @ u:p@ ? # & = % %41 [::1] ~ ' + - _ xn-- \u3002".split()
)


@given(st.sampled_from(["http://", "https://"]), st.lists(_PIECES, min_size=1, max_size=12))
def test_parts_of_a_plain_page_are_those_of_the_parser(scheme: str, pieces: list[str]) -> None:
    text = scheme + "".join(pieces)
    try:
        url = ada_url.parse_url(text)
    except ValueError:
        return
    plain = target._PLAIN_PAGE.match(url["href"])
    if plain is not None:
        assert plain.groups() == (url["protocol"], url["hostname"], url["pathname"])
        assert (url["username"], url["password"], url["port"], url["hash"]) == ("", "", "", "")
        assert target.uri_reference(url["href"]) == url["href"]


@pytest.mark.parametrize(
    "text",
    ["0" * 254, "[" + "0" * 252 + "]", "a." * 127, "\u00ad" * 250 + "a.example"],
    ids=["address", "IPv6 address", "name", "soft hyphens"],
)
def test_host_alone_is_short_as_it_is_typed(text: str) -> None:
    """Its canonical form may be shorter: `0.0.0.0`, `a.example`."""
    with pytest.raises(InvalidInput) as refused:
        target.canonical_host(text)

    assert [one.code for one in refused.value.errors] == ["url_host"]
