from __future__ import annotations

import re

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
    ("https://example.com/%7Ea/%zz", "https://example.com/%7Ea/%zz"),
    ("https://example.com/a/../b/./c", "https://example.com/b/c"),
    ("https://example.com/\"<>'`{}", "https://example.com/%22%3C%3E'%60%7B%7D"),
    ("http://2130706433/", "http://127.0.0.1/"),
    ("http://[::1]:8080/", "http://[::1]:8080/"),
    ("https://example.com./", "https://example.com./"),
    ("https://" + "a" * 63 + ".com/", "https://" + "a" * 63 + ".com/"),
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
    ("https://example.com/" + "a" * 2048, "url_too_long"),
    ("https://example.com/" + "é" * 500, "url_too_long"),
    ("https://hop.example/abc", "url_own_host"),
    ("https://HOP.example./abc", "url_own_host"),
    ("https://www.hop.example:8443/abc", "url_own_host"),
    ("https://hop%2Eexample/abc", "url_own_host"),
]


@pytest.mark.parametrize(("given_", "stored"), ACCEPTED)
def test_accepted_targets_are_stored_in_canonical_form(given_, stored):
    assert target.canonical(given_, own_hosts=OWN) == stored


@pytest.mark.parametrize(("text", "code"), REFUSED)
def test_refused_targets_name_the_rule(text, code):
    with pytest.raises(InvalidInput) as caught:
        target.canonical(text, own_hosts=OWN)

    assert [error.code for error in caught.value.errors] == [code]
    assert caught.value.errors[0].field == "long_url"


@given(st.one_of(st.text(max_size=200), st.text(max_size=100).map("https://example.com/".__add__)))
def test_whatever_is_accepted_can_be_emitted_and_stays_as_it_is(text):
    """Canonical is a fixed point: storing it again changes nothing, and a header can carry it."""
    try:
        stored = target.canonical(text, own_hosts=OWN)
    except InvalidInput:
        return

    assert re.fullmatch(r"https?://[\x21-\x7e]+", stored)
    assert target.canonical(stored, own_hosts=OWN) == stored
