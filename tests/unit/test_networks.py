"""Networks that a key may be used from."""

from __future__ import annotations

import pytest

from app.domain.errors import InvalidInput
from app.domain.networks import MAX_NETWORKS, allows, checked_networks, covers


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_networks_have_one_form(text, canonical):
    assert checked_networks([text, text], "allowed_addresses") == (canonical,)


@pytest.mark.parametrize("text", ["", "10.1.2.3/8", "10.0.0.0/33", "example.com", "10.0.0", "::1/129", "*"])
def test_other_texts_are_refused(text):
    with pytest.raises(InvalidInput) as refused:
        checked_networks(["10.0.0.0/8", text], "allowed_addresses")

    assert [(one.field, one.code) for one in refused.value.errors] == [
        ("allowed_addresses", "address_invalid")
    ]


def test_networks_are_few():
    with pytest.raises(InvalidInput):
        checked_networks([f"10.0.0.{n}" for n in range(MAX_NETWORKS + 1)], "allowed_addresses")


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("::ffff:a01:203", True),
        ("11.0.0.1", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        ("::10.1.2.3", False),
        ("", False),
        ("unix:", False),
    ],
)
def test_addresses_in_any_form(address, is_allowed):
    assert allows(("10.0.0.0/8", "2001:db8::/32"), address) is is_allowed


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        (["10.0.0.0/8"], ["10.1.0.0/16", "10.0.0.1/32"], True),
        (["10.0.0.0/8"], ["10.0.0.0/7"], False),
        (["10.0.0.0/8", "::/0"], ["2001:db8::/32"], True),
        (["::/0"], ["10.0.0.0/8"], False),
        (["10.0.0.0/8"], ["10.0.0.0/8", "11.0.0.0/8"], False),
    ],
)
def test_networks_within_networks(outer, inner, expected):
    assert covers(outer, inner) is expected
