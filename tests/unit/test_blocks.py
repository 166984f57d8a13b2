"""Blocks: one form of each host, the look-up by suffix, and lists of them."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import target
from app.domain.blocks import Block, BlockIndex, BlockKind, blocked_host, blocked_slug
from app.domain.errors import InvalidInput
from app.domain.policy import TargetPolicy
from app.interchange.block_lists import MAX_LINE_BYTES, ReadLine, RefusedLine, read_list

CANONICAL = [
    ("evil.example", "evil.example"),
    ("EVIL.Example.", "evil.example"),
    ("müller.example", "xn--mller-kva.example"),
    ("XN--MLLER-KVA.example", "xn--mller-kva.example"),
    ("ｅｖｉｌ。example", "evil.example"),
    ("a_b.example", "a_b.example"),
    ("zip", "zip"),
    ("127.0.0.1", "localhost"),
    ("LOCALHOST", "localhost"),
    ("::1", "localhost"),
    ("0x5db8d822", "93.184.216.34"),
    ("93.184.55330", "93.184.216.34"),
    ("2001:DB8::0:7", "[2001:db8::7]"),
    ("[2001:db8:0::7]", "[2001:db8::7]"),
    ("::ffff:93.184.216.34", "93.184.216.34"),
]
REFUSED = [
    ("", "host_invalid"),
    (" ", "host_invalid"),
    ("a b", "host_invalid"),
    ("a\x00b", "host_invalid"),
    ("evil%2Eexample", "host_invalid"),
    ("a\\b", "host_invalid"),
    ("a..b", "host_invalid"),
    (".", "host_invalid"),
    (".example", "host_invalid"),
    ("[::1", "host_invalid"),
    ("[evil.example]", "host_invalid"),
    ("999.1.1.1", "host_invalid"),
    ("xn--a\ud800", "host_invalid"),
    ("a" * 64 + ".example", "host_invalid"),
    ("a." * 127 + "example", "host_invalid"),
    ("a" * 100_000, "host_invalid"),
    ("*.evil.example", "host_wildcard"),
    ("*", "host_wildcard"),
    ("evil*", "host_wildcard"),
    ("evil.example*", "host_wildcard"),
    ("a.*.example", "host_wildcard"),
    ("*evil.example", "host_wildcard"),
    ("https://evil.example", "host_not_alone"),
    ("evil.example/path", "host_not_alone"),
    ("evil.example:8080", "host_not_alone"),
    ("user@evil.example", "host_not_alone"),
    ("||evil.example^", "host_not_alone"),
    ("evil.example?x", "host_not_alone"),
    ("evil.example#x", "host_not_alone"),
    ("a.example,b.example", "host_not_alone"),
]


@pytest.mark.parametrize(("typed", "form"), CANONICAL)
def test_host_has_one_form(typed, form):
    assert blocked_host(typed) == Block(BlockKind.HOST, form)
    assert blocked_host(form) == Block(BlockKind.HOST, form)


@pytest.mark.parametrize(("typed", "code"), REFUSED)
def test_what_is_no_host_alone_is_refused(typed, code):
    with pytest.raises(InvalidInput) as caught:
        blocked_host(typed)

    [error] = caught.value.errors
    assert (error.field, error.code) == ("hosts", code)
    assert len(error.message) < 200


@given(st.text(max_size=60))
def test_any_text_is_a_host_or_refused(text):
    try:
        block = blocked_host(text)
    except InvalidInput:
        return

    assert blocked_host(block.value) == block
    assert block.value.isascii()
    assert 1 <= len(block.value) <= 253


@given(st.from_regex(r"[a-zA-Z0-9äöéß.-]{1,30}", fullmatch=True), st.sampled_from(["", "sub.", "a.b."]))
def test_host_that_is_blocked_is_found_in_each_target(host, subdomain):
    """Whatever the parser of targets makes of a spelling, the block is found."""
    try:
        block = blocked_host(host)
        url = target.canonical(f"https://{subdomain}{host}:8443/x?y#z", own_hosts=())
    except InvalidInput:
        return
    if block.value[-1:].isdigit() and subdomain:
        return

    assert BlockIndex([block]).has_host(url)


@pytest.mark.parametrize(
    ("url", "is_blocked"),
    [
        ("https://evil.example/", True),
        ("https://evil.example./", True),
        ("https://evil.example", True),
        ("https://a.b.evil.example:8080/x", True),
        ("https://user:password@evil.example/", True),
        ("https://evil.example?x", True),
        ("https://evil.example#x", True),
        ("https://notevil.example/", False),
        ("https://example/", False),
        ("https://evil.example.org/", False),
        ("https://fine.example/evil.example", False),
        ("https://fine.example/?u=https://evil.example/", False),
        ("https://fine.example/@evil.example", False),
        ("http://93.184.216.34/", True),
        ("http://93.184.216.34.example/", False),
        ("http://[2001:db8::7]:80/", True),
        ("mailto:a@evil.example", True),
        ("mailto:a@fine.example,b@SUB.evil.example?subject=x", True),
        ("mailto:a@fine.example?cc=b@evil.example&subject=x", True),
        ("mailto:?To=a@fine.example,b@evil.example", True),
        ("mailto:a@fine.example?subject=x&BCC=b@sub.evil.example", True),
        ("mailto:a@fine.example?subject=b@evil.example", False),
        ("mailto:evil.example@fine.example", False),
        ("myapp://evil.example/x", True),
        ("myapp://EVIL.example:80", True),
        ("myapp:evil.example", False),
        ("ftp://evil.example/", True),
        ("tel:+123", False),
    ],
)
def test_block_holds_for_a_host_and_its_subdomains(url, is_blocked):
    index = BlockIndex(map(blocked_host, ("evil.example", "93.184.216.34", "2001:db8::7")))

    assert index.has_host(url) is is_blocked


def test_blocked_target_is_refused():
    policy = TargetPolicy(blocks=BlockIndex([blocked_host("evil.example")]))

    with pytest.raises(InvalidInput) as caught:
        target.canonical("https://EVIL.example./", own_hosts=(), policy=policy)

    assert [error.code for error in caught.value.errors] == ["url_blocked_host"]


@pytest.mark.parametrize("text", ["", "a b", "ä b", "a" * 129, "a//b", "api/b"])
def test_what_is_no_slug_is_refused(text):
    with pytest.raises(InvalidInput):
        blocked_slug(text)


# --- lists -------------------------------------------------------------------------------


def read(text: str | bytes, **options) -> list[object]:
    """What each line of a list becomes: the hosts, or the word `refused`."""
    data = text.encode() if isinstance(text, str) else text
    return [
        [block.value for block in line.blocks] if isinstance(line, ReadLine) else "refused"
        for line in read_list(io.BytesIO(data), **options)
    ]


@pytest.mark.parametrize(
    ("line", "hosts"),
    [
        ("evil.example", ["evil.example"]),
        ("  evil.example\t\r", ["evil.example"]),
        ("", []),
        ("# comment", []),
        ("! comment", []),
        ("   # comment", []),
        ("evil.example # comment", ["evil.example"]),
        ("evil.example#comment", "refused"),
        ("0.0.0.0 evil.example", ["evil.example"]),
        ("127.0.0.1\tevil.example\twww.evil.example # why", ["evil.example", "www.evil.example"]),
        (":: evil.example", ["evil.example"]),
        ("0.0.0.0 0.0.0.0", []),
        ("127.0.0.1 localhost", []),
        ("::1 ip6-localhost ip6-loopback", []),
        ("255.255.255.255 broadcasthost", []),
        ("fe80::1%lo0 localhost", []),
        ("10.0.0.1 intranet.example", "refused"),
        ("evil.example other.example", "refused"),
        ("https://evil.example/", "refused"),
        ("*.evil.example", "refused"),
        ("0.0.0.0 evil.example bad^one", "refused"),
        ("\x00", "refused"),
        ("x" * (MAX_LINE_BYTES + 1), "refused"),
    ],
)
def test_line_of_a_list(line, hosts):
    """What comes before a line and after it is read, whatever the line is."""
    assert read(f"first.example\n{line}\nlast.example") == [["first.example"], hosts, ["last.example"]]


def test_lines_are_numbered_from_one():
    lines = read_list(io.BytesIO(b"\xef\xbb\xbfevil.example\nb\xff\n" + b"x" * 10_000 + b"\nbad^\n"))

    refused = [line for line in lines if isinstance(line, RefusedLine)]

    assert [(line.number, line.problem) for line in refused[:2]] == [
        (2, "is not UTF-8"),
        (3, f"is longer than {MAX_LINE_BYTES} bytes"),
    ]
    assert refused[2].number == 4


def test_list_of_slugs():
    assert read("spring-sale\n0.0.0.0 x\na b\n# x\n", read=blocked_slug) == [
        ["spring-sale"],
        "refused",
        "refused",
        [],
    ]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list(data):
    """Each line is read or refused, and no other line depends on it."""
    lines = read(data + b"\nlast.example")

    assert len(lines) == data.count(b"\n") + 2
    assert lines[-1] == ["last.example"]
